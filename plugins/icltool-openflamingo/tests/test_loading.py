"""Where the parts come from, and what happens when they do not fit."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from icltool_openflamingo.model import OpenFlamingoOptions

from icltool import ConfigError, PluginError
from icltool.testing import make_examples

if TYPE_CHECKING:
    from tiny_flamingo import Tiny


def checkpoint_of(tiny: Tiny) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(tiny.folder / "checkpoint.pt", weights_only=True)
    return state


def score_of(model: Any, folder: Path) -> float:
    examples = make_examples(folder / "images", 3)
    return float(model.score([model.prompt("caption", examples[1:], examples[0])], 1)[0].log_prob)


def test_without_open_flamingo_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import icltool_openflamingo
    from icltool_openflamingo.model import OpenFlamingoModel

    monkeypatch.delattr(icltool_openflamingo, "assembly", raising=False)  # where another test has imported it
    for module in [
        m for m in sys.modules if m.split(".")[0] == "open_flamingo" or m == "icltool_openflamingo.assembly"
    ]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "open_flamingo", None)
    with pytest.raises(PluginError, match="needs the package open_flamingo") as caught:
        OpenFlamingoModel(OpenFlamingoOptions(name="openflamingo-3b"))
    assert "pip install --no-deps open_flamingo==2.0.1" in str(caught.value.hint)


@pytest.mark.parametrize("form", ["training", "other names", "rotary"])
def test_checkpoints_come_in_several_forms(tiny_mpt: Tiny, checkpoint_folder: Path, tmp_path: Path, form: str) -> None:
    """With the optimizer beside it and "module." before each name; with open_flamingo's second names of the layers;
    with rotary frequencies that older releases of transformers stored."""
    from tiny_flamingo import load

    state: dict[str, Any] = checkpoint_of(tiny_mpt)
    if form == "training":
        state = {
            "epoch": 3,
            "model_state_dict": {f"module.{k}": v for k, v in state.items()},
            "optimizer_state_dict": {},
        }
    elif form == "other names":
        layers = [(f"transformer.blocks.{i}.gated_cross_attn_layer", f"gated_cross_attn_layers.{i}") for i in range(4)]
        for one, other in layers:
            state = {key.replace(one, other): value for key, value in state.items()}
        assert any("gated_cross_attn_layers.1." in key for key in state)
    else:
        state["lang_encoder.old_decoder_blocks.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    torch.save(state, checkpoint_folder / "checkpoint.pt")
    assert score_of(load("mpt", checkpoint_folder), tmp_path) == score_of(tiny_mpt.loaded, tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("perceiver.latents", "perceiver.latents missing"),
        ("lang_encoder.transformer.blocks.1.gated_cross_attn_layer.attn_gate", "attn_gate missing"),
        ("lang_encoder.transformer.wte.weight", "wte.weight missing"),
    ],
)
def test_what_was_trained_must_be_in_the_checkpoint(
    tiny_mpt: Tiny, checkpoint_folder: Path, name: str, message: str
) -> None:
    from tiny_flamingo import load

    state = checkpoint_of(tiny_mpt)
    del state[name]
    torch.save(state, checkpoint_folder / "checkpoint.pt")
    with pytest.raises(ConfigError, match=message):
        load("mpt", checkpoint_folder)


def test_unknown_and_misshapen_weights_are_errors(tiny_mpt: Tiny, checkpoint_folder: Path) -> None:
    from tiny_flamingo import load

    file = checkpoint_folder / "checkpoint.pt"
    torch.save({**checkpoint_of(tiny_mpt), "perceiver.more": torch.ones(2)}, file)
    with pytest.raises(ConfigError, match=r"perceiver\.more unexpected"):
        load("mpt", checkpoint_folder)
    torch.save({**checkpoint_of(tiny_mpt), "perceiver.latents": torch.ones(2, 2)}, file)
    with pytest.raises(ConfigError, match=r"perceiver\.latents of another shape"):
        load("mpt", checkpoint_folder)


def test_another_interval_of_cross_attention_does_not_fit(tiny_mpt: Tiny) -> None:
    from tiny_flamingo import load

    with pytest.raises(ConfigError, match="missing"):
        load("mpt", tiny_mpt.folder, cross_attention_interval=1)
    with pytest.raises(ConfigError, match="unexpected"):
        load("mpt", tiny_mpt.folder, cross_attention_interval=4)


def test_a_damaged_checkpoint_and_one_with_code_are_refused(tiny_mpt: Tiny, checkpoint_folder: Path) -> None:
    from tiny_flamingo import load

    file = checkpoint_folder / "checkpoint.pt"
    file.write_bytes((tiny_mpt.folder / "checkpoint.pt").read_bytes()[:5000])
    with pytest.raises(ConfigError, match="cannot be read"):
        load("mpt", checkpoint_folder)
    torch.save({"perceiver.latents": Path("x")}, file)  # an object, whose class would be imported and called
    with pytest.raises(ConfigError, match="cannot be read"):
        load("mpt", checkpoint_folder)


def test_the_tokenizer_must_be_that_of_the_checkpoint(tiny_mpt: Tiny, checkpoint_folder: Path) -> None:
    from tiny_flamingo import load

    state = checkpoint_of(tiny_mpt)
    key = "lang_encoder.transformer.wte.weight"
    torch.save({**state, key: torch.cat([state[key], state[key]])}, checkpoint_folder / "checkpoint.pt")
    with pytest.raises(ConfigError, match="93 tokens, the checkpoint embeddings for 186"):
        load("mpt", checkpoint_folder)


def test_the_tokens_stand_where_training_put_them(tiny: Tiny) -> None:
    tokenizer = tiny.loaded.tokenizer
    names = ["<|endofchunk|>", "<image>", "<PAD>"]
    assert tokenizer.convert_tokens_to_ids(names) == [90, 91, 92]
    assert tokenizer.pad_token == "<PAD>"
    assert tiny.loaded.prompt("caption", [], make_query()).target.endswith(f"<|endofchunk|>{tokenizer.eos_token}")


def make_query() -> Any:
    from icltool import Example

    return Example(1, "x.jpg", 1, "red bar", "red bar", ("red bar",))


def test_a_folder_without_a_checkpoint_says_so(tmp_path: Path) -> None:
    from icltool_openflamingo.model import OpenFlamingoModel

    with pytest.raises(ConfigError, match=r"contains no checkpoint\.pt"):
        OpenFlamingoModel(OpenFlamingoOptions(name="mine", path=str(tmp_path)))
    with pytest.raises(ConfigError, match="neither a folder nor a hub id"):
        OpenFlamingoModel(OpenFlamingoOptions(name="mine", path=str(tmp_path / "no" / "such")))


def test_missing_parts_are_named(tiny_mpt: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from icltool_openflamingo.model import OpenFlamingoModel

    monkeypatch.delenv("MODEL_CPK_DIR", raising=False)
    with pytest.raises(ConfigError, match=r"the checkpoint of mine \(nobody/nothing\) is not on this machine"):
        OpenFlamingoModel(OpenFlamingoOptions(name="mine", checkpoint="nobody/nothing"))
    shutil.copy(tiny_mpt.folder / "checkpoint.pt", tmp_path)
    with pytest.raises(ConfigError, match=r"the CLIP of mine \(nobody/clip\) is not on this machine") as caught:
        OpenFlamingoModel(OpenFlamingoOptions(name="mine", path=str(tmp_path), clip="nobody/clip"))
    assert "language_model/ and clip/" in str(caught.value.hint)
    (tmp_path / "clip").symlink_to(tiny_mpt.folder / "clip")
    with pytest.raises(ConfigError, match=r"the language model of mine \(nobody/llm\) is not on this machine"):
        OpenFlamingoModel(OpenFlamingoOptions(name="mine", path=str(tmp_path), language_model="nobody/llm"))


def test_parts_are_found_in_the_checkpoint_folder_of_the_environment(
    tiny_mpt: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the owner's folder around them, or without."""
    from icltool_openflamingo.model import OpenFlamingoModel

    (tmp_path / "flamingos").mkdir()
    (tmp_path / "flamingos" / "OF").mkdir()
    (tmp_path / "flamingos" / "OF" / "checkpoint.pt").symlink_to(tiny_mpt.folder / "checkpoint.pt")
    (tmp_path / "llm").symlink_to(tiny_mpt.folder / "language_model")
    (tmp_path / "tower").symlink_to(tiny_mpt.folder / "clip")
    monkeypatch.setenv("MODEL_CPK_DIR", str(tmp_path))
    actual = OpenFlamingoModel(OpenFlamingoOptions(
        name="mine", checkpoint="flamingos/OF", language_model="people/llm", clip="people/tower", cross_attention_interval=2,
        device="cpu",
    ))  # fmt: skip
    assert score_of(actual, tmp_path) == score_of(tiny_mpt.loaded, tmp_path)


def test_parts_are_found_in_the_hub_cache(tiny_mpt: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from icltool_openflamingo.places import PartFinder

    monkeypatch.delenv("MODEL_CPK_DIR", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    parts = {"flamingos--OF": tiny_mpt.folder, "people--llm": tiny_mpt.folder / "language_model",
             "people--tower": tiny_mpt.folder / "clip"}  # fmt: skip
    for name, source in parts.items():
        repository = tmp_path / f"models--{name}"
        (repository / "refs").mkdir(parents=True)
        (repository / "refs" / "main").write_text("abc")
        (repository / "snapshots" / "abc").mkdir(parents=True)
        for file in source.iterdir():
            if file.is_file():
                (repository / "snapshots" / "abc" / file.name).symlink_to(file)
    actual = PartFinder("mine", None).find("flamingos/OF", "people/llm", "people/tower")
    assert actual.checkpoint == tmp_path / "models--flamingos--OF" / "snapshots" / "abc" / "checkpoint.pt"
    assert actual.clip == tmp_path / "models--people--tower" / "snapshots" / "abc"
    assert actual.language_model.source == str(tmp_path / "models--people--llm" / "snapshots" / "abc")
    assert actual.language_model.local_only
    assert actual.identities == ("flamingos/OF", "people/llm", "people/tower")


def test_the_fingerprint_tells_parts_and_precision_apart(tiny_mpt: Tiny, checkpoint_folder: Path) -> None:
    from tiny_flamingo import load

    state = checkpoint_of(tiny_mpt)
    state["perceiver.latents"] += 1
    torch.save(state, checkpoint_folder / "checkpoint.pt")
    marks = [
        tiny_mpt.loaded.fingerprint(),
        load("mpt", tiny_mpt.folder, dtype="bfloat16").fingerprint(),
        load("mpt", tiny_mpt.folder, start="<|endoftext|>").fingerprint(),
        load("mpt", checkpoint_folder).fingerprint(),
    ]
    assert len(set(marks)) == 4
    assert load("mpt", tiny_mpt.folder).fingerprint() == marks[0]


def test_half_precision_scores_alike(tiny: Tiny, tmp_path: Path) -> None:
    from tiny_flamingo import load

    half = load(tiny.kind, tiny.folder, dtype="bfloat16")
    assert {p.dtype for p in half.model.parameters()} == {torch.bfloat16}
    assert score_of(half, tmp_path) == pytest.approx(score_of(tiny.loaded, tmp_path), abs=2.0)


def test_defaults_of_the_language_model_do_not_change_answers(
    tiny_mpt: Tiny, checkpoint_folder: Path, tmp_path: Path
) -> None:
    from tiny_flamingo import load

    from icltool import GenerationOptions

    shutil.copy(tiny_mpt.folder / "checkpoint.pt", checkpoint_folder)
    (checkpoint_folder / "language_model").unlink()
    shutil.copytree(tiny_mpt.folder / "language_model", checkpoint_folder / "language_model")
    defaults = {"repetition_penalty": 9.0, "no_repeat_ngram_size": 1, "eos_token_id": 5, "do_sample": True}
    (checkpoint_folder / "language_model" / "generation_config.json").write_text(json.dumps(defaults))
    examples = make_examples(tmp_path / "images", 4)
    prompts = [tiny_mpt.loaded.prompt("caption", examples[1 : 1 + k], examples[0]) for k in (0, 1, 3)]
    options = GenerationOptions(8, 2)
    expected = tiny_mpt.loaded.generate(prompts, options, 3)
    assert load("mpt", checkpoint_folder).generate(prompts, options, 3) == expected


def test_rows_of_an_untied_output_layer_are_not_left_to_chance(tmp_path: Path, open_flamingo: None) -> None:
    from tiny_flamingo import build, load

    tiny = build("llama", tmp_path)
    again = load("llama", tiny.folder)
    heads = [m.model.lang_encoder.lm_head.weight for m in (tiny.loaded, again)]
    torch.testing.assert_close(heads[0], heads[1], atol=0, rtol=0)
    torch.testing.assert_close(heads[0][90], heads[0][:90].mean(0))


def test_another_clip_is_refused(tiny_mpt: Tiny, checkpoint_folder: Path) -> None:
    from tiny_flamingo import load

    shutil.copy(tiny_mpt.folder / "checkpoint.pt", checkpoint_folder)
    (checkpoint_folder / "clip").unlink()
    shutil.copytree(tiny_mpt.folder / "clip", checkpoint_folder / "clip")
    file = checkpoint_folder / "clip" / "open_clip_config.json"
    config = json.loads(file.read_text())
    config["model_cfg"]["vision_cfg"]["pool_type"] = "avg"
    file.write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="no vision transformer with a class token"):
        load("mpt", checkpoint_folder)
    (checkpoint_folder / "clip" / "open_clip_model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"the CLIP in .* cannot be loaded"):
        load("mpt", checkpoint_folder)
