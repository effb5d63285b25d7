"""Encoders of texts: the modules of a sentence-transformers folder, against the same written out for one text at a time."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from icltool.components.encoders.options import TextOptions
from icltool.components.encoders.text import TextEncoder
from icltool.errors import ConfigError
from icltool.testing import check_encoder
from tests.components.encoders.tiny_encoders import bert, sentence_bert, write
from tests.components.models import tiny
from tests.components.models.tiny import shared_folder
from tests.conftest import Shared

TEXTS = ["a red bar", "what is it", "a yellow bar and a blue frame and a green block and a red bar and one more", "bar"]
#: A pooling layer's config.json, by release of sentence-transformers.
OLD = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False, "pooling_mode_max_tokens": False}
PROMPTS = {"prompts": {"query": "question: ", "document": ""}, "default_prompt_name": "query"}


def encoder(path: str | Path, **options: Any) -> TextEncoder:
    return TextEncoder(TextOptions(name="words", path=str(path), device="cpu", **options))


def tokens_of(folder: str | Path, text: str, length: int = 12) -> Tensor:
    """[T, D]: the last states of one text's tokens."""
    from transformers import AutoModel, AutoTokenizer

    ids = AutoTokenizer.from_pretrained(str(folder))(text)["input_ids"]
    ids = [*ids[: length - 1], ids[-1]] if len(ids) > length else ids
    with torch.inference_mode():
        states: Tensor = AutoModel.from_pretrained(str(folder)).eval()(torch.tensor([ids])).last_hidden_state[0]
    return states


def test_it_conforms(tmp_path: Path) -> None:
    check_encoder(
        encoder(sentence_bert(tmp_path / "model", {"pooling_mode": "mean"}, "Normalize")), tmp_path / "images"
    )


@pytest.mark.parametrize("pooling", ["cls", "mean", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"])
def test_pooling(pooling: str, tmp_path: Path) -> None:
    folder = sentence_bert(tmp_path, {"pooling_mode": pooling})
    chosen = encoder(shared_copy(folder, tmp_path), pooling=pooling)
    for text, vector, other in zip(TEXTS, encoder(folder).encode_texts(TEXTS), chosen.encode_texts(TEXTS), strict=True):
        states = tokens_of(folder, text)
        weights = torch.arange(1, len(states) + 1)[:, None]
        expected = {
            "cls": states[0],
            "mean": states.mean(dim=0),
            "max": states.max(dim=0).values,
            "mean_sqrt_len_tokens": states.sum(dim=0) / len(states) ** 0.5,
            "weightedmean": (states * weights).sum(dim=0) / weights.sum(),
            "lasttoken": states[-1],
        }[pooling]
        np.testing.assert_allclose(vector, expected.numpy(), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(other, vector, rtol=1e-5, atol=1e-6)


def shared_copy(folder: str, tmp_path: Path) -> Path:
    """The folder as transformers writes it, without modules."""
    copy = Path(shutil.copytree(folder, tmp_path / "plain", ignore=shutil.ignore_patterns("modules.json", "plain")))
    (copy / "sentence_bert_config.json").rename(copy / "sentence_roberta_config.json")  # as older releases named it
    return copy


def test_modules_in_their_order(tmp_path: Path) -> None:
    folder = sentence_bert(tmp_path, {**OLD, "pooling_mode_max_tokens": True}, "Normalize")
    write(tmp_path / "1_Pooling" / "config.json", OLD)
    words = encoder(folder)
    for text, vector in zip(TEXTS, words.encode_texts(TEXTS), strict=True):
        first = tokens_of(folder, text)[0]
        np.testing.assert_allclose(vector, (first / first.norm()).numpy(), rtol=1e-4, atol=1e-5)
    longer = encoder(folder, normalize=False)
    assert longer.fingerprint() != words.fingerprint()
    assert not np.allclose(np.linalg.norm(longer.encode_texts(TEXTS), axis=1), 1, atol=0.01)


def test_several_poolings_are_joined_and_a_dense_layer_follows(tmp_path: Path) -> None:
    folder = sentence_bert(tmp_path / "two", {**OLD, "pooling_mode_mean_tokens": True})
    states = tokens_of(folder, TEXTS[0])
    expected = torch.cat([states[0], states.mean(dim=0)])
    np.testing.assert_allclose(encoder(folder).encode_texts(TEXTS[:1])[0], expected.numpy(), rtol=1e-4, atol=1e-5)

    folder = sentence_bert(tmp_path / "dense", {"pooling_mode": "cls"}, "Dense", "Normalize")
    weights = torch.load(tmp_path / "dense" / "2_Dense" / "pytorch_model.bin")
    states = tokens_of(folder, TEXTS[0])
    layer = torch.tanh(weights["linear.weight"] @ states[0] + weights["linear.bias"])
    words = encoder(folder)
    assert words.dim == 8
    np.testing.assert_allclose(words.encode_texts(TEXTS[:1])[0], (layer / layer.norm()).numpy(), rtol=1e-4, atol=1e-5)


def test_prefix_and_prompts(tmp_path: Path) -> None:
    plain = encoder(sentence_bert(tmp_path / "plain", {"pooling_mode": "mean"}))
    folder = sentence_bert(tmp_path / "prompts", {"pooling_mode": "mean"}, settings=PROMPTS)
    usual = encoder(folder)
    prefixed = plain.encode_texts(["question: a red bar"])
    assert np.array_equal(usual.encode_texts(["a red bar"]), prefixed)
    assert np.array_equal(encoder(folder, prompt="query").encode_texts(["a red bar"]), prefixed)
    assert np.array_equal(encoder(folder, prefix="question: ").encode_texts(["a red bar"]), prefixed)
    for bare in (encoder(folder, prompt="document"), encoder(folder, prefix="")):
        assert np.array_equal(bare.encode_texts(["a red bar"]), plain.encode_texts(["a red bar"]))
        assert bare.fingerprint() != usual.fingerprint()
    with pytest.raises(ConfigError, match="has no prompt 'passage'") as caught:
        encoder(folder, prompt="passage")
    assert caught.value.hint == "its prompts: query, document"
    with pytest.raises(ConfigError, match="prefix and prompt exclude each other"):
        encoder(folder, prompt="query", prefix="")


def test_a_prompt_that_is_not_pooled(tmp_path: Path) -> None:
    folder = sentence_bert(tmp_path, {"pooling_mode": "mean", "include_prompt": False}, settings=PROMPTS)
    from transformers import AutoTokenizer

    tokens = len(AutoTokenizer.from_pretrained(folder)("question: ")["input_ids"]) - 1  # all but the end
    expected = tokens_of(folder, "question: a red bar")[tokens:].mean(dim=0)
    np.testing.assert_allclose(encoder(folder).encode_texts(["a red bar"])[0], expected.numpy(), rtol=1e-4, atol=1e-5)


def test_length(tmp_path: Path) -> None:
    folder = sentence_bert(tmp_path / "st", {"pooling_mode": "mean"})
    [vector] = encoder(folder, max_length=5).encode_texts(TEXTS[2:3])
    np.testing.assert_allclose(vector, tokens_of(folder, TEXTS[2], 5).mean(dim=0).numpy(), rtol=1e-4, atol=1e-5)
    plain = encoder(bert(tmp_path / "bert"))  # the model's own limit of 40
    [vector] = plain.encode_texts([" ".join(TEXTS)])
    expected = tokens_of(tmp_path / "bert", " ".join(TEXTS), 40).mean(dim=0)
    np.testing.assert_allclose(vector, expected.numpy(), rtol=1e-4, atol=1e-5)


def test_positions_that_do_not_begin_at_zero(tmp_path: Path) -> None:
    """RoBERTa has two positions fewer than its configuration says."""
    from transformers import RobertaConfig, RobertaModel

    from tests.components.encoders.tiny_encoders import TOWER, spread, with_end
    from tests.components.models.tiny import save, trained_tokenizer

    tokenizer = trained_tokenizer({"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>"}, side="right")
    with_end(tokenizer, start="<s>")
    config = RobertaConfig(**TOWER, vocab_size=len(tokenizer), max_position_embeddings=14, pad_token_id=1)
    words = encoder(save(tmp_path, spread(RobertaModel(config)), tokenizer))
    assert words.encode_texts([" ".join(TEXTS)]).shape == (1, 32)
    assert words._max_length == 12


def test_a_decoder_that_pads_on_the_left(tmp_path: Path) -> None:
    folder = Path(tiny.llama(tmp_path))
    words = encoder(folder, pooling="lasttoken")
    for text, vector in zip(TEXTS, words.encode_texts(TEXTS), strict=True):
        np.testing.assert_allclose(vector, tokens_of(folder, text, 999)[-1].numpy(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("modules.json", {"a": 1}, "does not list modules of sentence-transformers"),
        (
            "modules.json",
            [{"path": "", "type": "x.WordEmbeddings"}],
            "has a module WordEmbeddings, which icltool does not read",
        ),
        ("modules.json", [{"path": "0_CLIPModel", "type": "x.CLIPModel"}], "has a module CLIPModel"),
        ("1_Pooling/config.json", {"pooling_mode": "median"}, "names the pooling 'median'"),
        ("1_Pooling/config.json", [1], "does not contain a JSON object"),
        ("2_Dense/config.json", {"in_features": 32}, "the layer in .*2_Dense cannot be read: 'out_features'"),
        ("config.json", {"model_type": "nothing"}, "encoder 'words' cannot be loaded from"),
        ("tokenizer.json", {"version": "1.0"}, "encoder 'words' cannot be loaded from"),
    ],
)
def test_damaged_folders_are_one_line(file: str, content: object, message: str, tmp_path: Path) -> None:
    sentence_bert(tmp_path, {"pooling_mode": "cls"}, "Dense")
    (tmp_path / file).write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=message) as caught:
        encoder(tmp_path)
    assert "\n" not in str(caught.value)


def test_other_modalities_are_refused(tmp_path: Path, shared: Shared) -> None:
    from tests.components.encoders.tiny_encoders import dinov2

    words = encoder(bert(tmp_path))
    with pytest.raises(ConfigError, match="'words' encodes texts only") as caught:
        words.encode_images(["a.png"])
    assert "dinov2" in str(caught.value.hint)
    with pytest.raises(ConfigError, match="does not encode texts"):
        encoder(shared_folder(shared, dinov2))
