"""What the tiny captioners start from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from icltool.components.models.shared.weights import packaged_weights
from icltool.contracts import Example, GenerationOptions, SupportsFineTuning
from icltool.plugin.manager import component
from icltool.world.regions import INFERENCES
from icltool.world.render import render
from icltool.world.scenes import NONCE_WORDS, Scene
from icltool.world.styles import STYLES, style_comments
from tests.plugin.distributions import CHECKOUT, ofa_registered
from tests.world.recipe.captioners import (
    INITIALIZER_RANGE,
    build_blip2,
    build_opt_tokenizer,
    save_blip2,
    save_byte_pairs,
    save_ofa,
    sentences,
)


def test_each_word_of_the_world_is_one_piece() -> None:
    tokenizer = build_opt_tokenizer()
    texts = [*sentences(), *(f" {form.format('dax', 'blick')}" for form in INFERENCES)]
    texts += [f" {text}" for style in STYLES for text in style_comments(style, "zorp", "kiv")]
    for text in texts:
        words = text.replace("?", " ?").replace(".", " .").replace(":", " :").split()
        assert len(tokenizer(text, add_special_tokens=False)["input_ids"]) == len(words), text
    assert len({tokenizer(f" {word}")["input_ids"][-1] for word in NONCE_WORDS}) == len(NONCE_WORDS)


@pytest.mark.parametrize("text", [" a photo of 3 überraschungen\n", "Ωμέγα; 12,5 %", " a dax blick\n"])
def test_any_text_can_be_read(text: str) -> None:
    tokenizer = build_opt_tokenizer()
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text
    assert tokenizer(text)["input_ids"][0] == tokenizer.eos_token_id


def test_the_packaged_blip2_is_what_the_code_draws(tmp_path: Path) -> None:
    """Untrained weights ship in half precision: whoever doubts can draw them again."""
    shipped = packaged_weights("tiny-blip2")
    save_blip2(tmp_path)
    again, there = load_file(tmp_path / "model.safetensors"), load_file(shipped / "model.safetensors")
    assert again.keys() == there.keys()
    for name, tensor in again.items():
        assert tensor.dtype == torch.float16
        if name == TRUNCATED and not rejects():
            assert there[name].shape == tensor.shape
            for drawn in (there[name].float(), tensor.float()):
                assert float(drawn.mean()) == pytest.approx(0, abs=INITIALIZER_RANGE / 2)
                assert float(drawn.std()) == pytest.approx(INITIALIZER_RANGE, rel=0.3)
            continue
        torch.testing.assert_close(there[name], tensor)
    for name in ("config.json", "tokenizer.json", "processor_config.json"):
        drawn_config, packaged = (json.loads((folder / name).read_text()) for folder in (tmp_path, shipped))
        written = [config.pop("transformers_version", None) for config in (drawn_config, packaged)]
        assert all(written) == (name == "config.json"), "who wrote it, which need not be who draws it"
        assert drawn_config == packaged, name
    assert sum(file.stat().st_size for file in shipped.parent.rglob("*.safetensors")) < 10_000_000


#: The only tensor that is left as `trunc_normal_` draws it.
TRUNCATED = "vision_model.embeddings.class_embedding"


def rejects() -> bool:
    """Whether `trunc_normal_` draws from a normal distribution, and again what is out of bounds, as the packaged weights were
    drawn: older versions of torch turn uniform numbers into normal ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        truncated = torch.nn.init.trunc_normal_(torch.empty(64), std=INITIALIZER_RANGE)
        torch.manual_seed(0)
        return torch.equal(truncated, torch.empty(64).normal_(0, INITIALIZER_RANGE))


def test_the_packaged_weights_are_these() -> None:
    content = (packaged_weights("tiny-blip2") / "model.safetensors").read_bytes()
    assert hashlib.sha256(content).hexdigest() == "0e0f2688d7198060a07dedd24b4bd312c2af873ba86002331bb4ff8de3cdb9a4"


def test_another_seed_draws_others() -> None:
    tokenizer = build_opt_tokenizer()
    one, other = (build_blip2(tokenizer, seed).query_tokens for seed in (0, 1))
    assert not torch.equal(one, other)
    assert float(one.detach().std()) > 0.3  # transformers would leave them at zero


def test_ofa_folder(tmp_path: Path) -> None:
    save_ofa(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    vocabulary = json.loads((tmp_path / "vocab.json").read_text())
    assert [vocabulary[t] for t in ("<s>", "<pad>", "</s>")] == [0, 1, 2]
    assert config["vocab_size"] == len(vocabulary) + 9192
    assert not list(tmp_path.glob("*.safetensors"))
    assert save_byte_pairs(tmp_path / "again", ["<s>", "<pad>", "</s>", "<unk>"]) == len(vocabulary)
    for name in ("vocab.json", "merges.txt"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / name).read_bytes()


@pytest.fixture(scope="module")
def ofa_plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with ofa_registered(tmp_path_factory.mktemp("installed")) as plugin:
        yield plugin


def test_the_packaged_ofa_is_what_the_code_writes(tmp_path: Path) -> None:
    save_ofa(tmp_path)
    packaged = CHECKOUT / "plugins" / "icltool-ofa" / "icltool_ofa" / "tiny"
    for file in tmp_path.iterdir():
        assert (packaged / file.name).read_bytes() == file.read_bytes(), file.name


@pytest.mark.usefixtures("ofa_plugin")
@pytest.mark.parametrize("name", ["tiny-blip2", "tiny-ofa"])
@pytest.mark.parametrize("task", ["caption", "style", "inference"])
def test_they_load_by_name_and_can_be_fine_tuned(name: str, task: str, tmp_path: Path) -> None:
    image = tmp_path / "image.png"
    render(Scene(1, 2), np.random.default_rng(0)).save(image)
    said = ("a dax blick",)
    query = Example(1, str(image), 1, said[0], said[0], said, question="a thing here", style="Happy")
    model = component("models", name, device="cpu")
    assert isinstance(model, SupportsFineTuning)
    prompt = model.prompt(task, [], query)
    first, second = model.score([prompt, prompt], 2)
    assert first.tokens == second.tokens == 4  # three words, and what ends them
    assert first.log_prob == pytest.approx(second.log_prob, abs=1e-4)
    assert len(model.generate([prompt], GenerationOptions(4), 1)) == 1
