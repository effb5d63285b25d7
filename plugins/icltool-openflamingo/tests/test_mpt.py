"""MPT with layer-normalised queries and keys (MPT-1B), against its arithmetic written out head by head."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.nn.functional import gelu, layer_norm, linear

from icltool import ConfigError, Weights

SIZES = {"d_model": 32, "n_heads": 3, "n_layers": 2, "max_seq_len": 64, "vocab_size": 40}


def mosaic_config(**changes: object) -> dict[str, object]:
    return {
        "model_type": "mosaic_gpt",
        "alibi": True,
        "attn_qk_ln": True,
        "mlp_ratio": 4,
        "no_bias": True,
        **SIZES,
        **changes,
    }


def write_mosaic(folder: Path, **changes: object) -> dict[str, torch.Tensor]:
    """A MosaicGPT folder with random weights, which are returned."""
    generator = torch.Generator().manual_seed(3)
    config = mosaic_config(d_model=24, **changes)
    width, vocabulary = 24, 40

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * 0.4

    state = {"transformer.wte.weight": random(vocabulary, width), "transformer.ln_f.weight": 1 + random(width)}
    for layer in range(2):
        prefix = f"transformer.blocks.{layer}"
        for norm in ("ln_1", "ln_2", "attn.q_ln", "attn.k_ln"):
            state[f"{prefix}.{norm}.weight"] = 1 + random(width)
        state[f"{prefix}.attn.Wqkv.weight"] = random(3 * width, width)
        state[f"{prefix}.attn.out_proj.weight"] = random(width, width)
        state[f"{prefix}.mlp.mlp_up.weight"] = random(4 * width, width)
        state[f"{prefix}.mlp.mlp_down.weight"] = random(width, 4 * width)
    torch.save(state, folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps(config))
    return state


def plain_logits(state: dict[str, torch.Tensor], ids: list[int], heads: int) -> torch.Tensor:
    """[T, vocabulary]. ALiBi (Press et al. 2022): a key d tokens back costs slope * d; the slopes of a number of heads that
    is no power of two are every second one of the next power of two, then the others."""
    above = 1
    while above < heads:
        above *= 2
    slopes = [2.0 ** (-8 * (k + 1) / above) for k in range(above)]
    slopes = (slopes[1::2] + slopes[::2])[:heads] if above != heads else slopes
    x = state["transformer.wte.weight"][ids]
    length, width = x.shape
    size = width // heads
    for layer in range(2):
        w = {key.split(f"blocks.{layer}.")[1]: v for key, v in state.items() if f"blocks.{layer}." in key}
        q, k, v = linear(layer_norm(x, (width,), w["ln_1.weight"]), w["attn.Wqkv.weight"]).chunk(3, -1)
        q, k = (layer_norm(y, (width,), w[f"attn.{n}_ln.weight"]) for y, n in ((q, "q"), (k, "k")))
        mixed = torch.zeros(length, width)
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            for i in range(length):
                costs = torch.tensor([slopes[head] * (i - j) for j in range(i + 1)])
                scores = k[: i + 1, part] @ q[i, part] / size**0.5 - costs
                mixed[i, part] = scores.softmax(-1) @ v[: i + 1, part]
        x = x + linear(mixed, w["attn.out_proj.weight"])
        inner = gelu(linear(layer_norm(x, (width,), w["ln_2.weight"]), w["mlp.mlp_up.weight"]))
        x = x + linear(inner, w["mlp.mlp_down.weight"])
    return linear(layer_norm(x, (width,), state["transformer.ln_f.weight"]), state["transformer.wte.weight"])


@pytest.mark.parametrize("heads", [4, 3])
def test_mosaic_gpt_equals_its_arithmetic_written_out(tmp_path: Path, heads: int) -> None:
    from icltool_openflamingo.language import load_language_model

    state = write_mosaic(tmp_path, n_heads=heads)
    model = load_language_model(Weights(str(tmp_path), local_only=True), torch.float32, None)
    ids = [3, 17, 5, 5, 39, 0, 8]
    with torch.no_grad():
        actual = model(torch.tensor([ids])).logits[0]
    torch.testing.assert_close(actual, plain_logits(state, ids, heads), atol=2e-5, rtol=0)
    assert model.lm_head.weight is model.transformer.wte.weight


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alibi": False}, "alibi is False"),
        ({"alibi_bias_max": 16}, "alibi_bias_max is 16"),
        ({"mlp_ratio": 2}, "feed-forward ratio is 2"),
        ({"attn_clip_qkv": 6.0}, "clip_qkv"),
        ({"logit_scale": 0.5}, "logit_scale"),
    ],
)
def test_settings_that_would_be_passed_over_are_refused(changes: dict[str, object], message: str) -> None:
    from icltool_openflamingo.mpt import mpt_class_and_config

    with pytest.raises(ConfigError, match=message):
        mpt_class_and_config(mosaic_config(**changes), "somewhere")


def test_the_7b_has_transformers_own_class() -> None:
    from icltool_openflamingo.mpt import mpt_class_and_config
    from transformers import MptForCausalLM

    attention = {"alibi": True, "alibi_bias_max": 8, "attn_impl": "torch", "attn_pdrop": 0, "qk_ln": False,
                 "attn_type": "multihead_attention", "prefix_lm": False, "clip_qkv": None, "softmax_scale": None}  # fmt: skip
    raw = {"model_type": "mpt", "attn_config": attention, "expansion_ratio": 4, "no_bias": True, **SIZES}
    kind, config = mpt_class_and_config(raw, "somewhere")
    assert kind is MptForCausalLM
    assert (config.d_model, config.max_seq_len) == (32, 64)


def test_missing_weights_are_named(tmp_path: Path) -> None:
    from icltool_openflamingo.language import load_language_model

    state = write_mosaic(tmp_path, n_heads=4)
    del state["transformer.blocks.1.attn.k_ln.weight"]
    torch.save(state, tmp_path / "pytorch_model.bin")
    with pytest.raises(ConfigError, match=r"missing_keys transformer\.blocks\.1\.attn\.Wqkv\.k_ln\.weight"):
        load_language_model(Weights(str(tmp_path), local_only=True), torch.float32, None)


def test_code_of_a_repository_is_never_run(tmp_path: Path) -> None:
    from icltool_openflamingo.language import load_language_model

    marker = tmp_path / "was-run"
    (tmp_path / "other.py").write_text(f"open({str(marker)!r}, 'w')\n")
    config = {"model_type": "unheard-of", "auto_map": {"AutoConfig": "other.C", "AutoModelForCausalLM": "other.M"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="cannot be loaded"):
        load_language_model(Weights(str(tmp_path), local_only=True), torch.float32, None)
    assert not marker.exists()
