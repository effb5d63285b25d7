"""Checkpoint folders in both layouts, and what is said about those that do not fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from icltool_ofa.loading import load_config, load_network
from icltool_ofa.network import OFAForConditionalGeneration
from icltool_ofa.positions import token_buckets
from tiny_ofa import RECORD, build
from torch import Tensor

from icltool.errors import ConfigError, DataError

EMBEDDINGS = ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "decoder.output_projection.weight"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(
        json.dumps(RECORD["config"] | {"model_type": "ofa", "architectures": ["OFAModel"]})
    )
    return tmp_path


def save(folder: Path, state: dict[str, Tensor]) -> None:
    torch.save(state, folder / "pytorch_model.bin")


def check_equal(actual: OFAForConditionalGeneration, expected: OFAForConditionalGeneration) -> None:
    assert not actual.training
    weights = actual.state_dict()
    for name, tensor in expected.state_dict().items():
        assert torch.equal(weights[name], tensor), name
    assert torch.equal(actual.decoder.token_rp_bucket, token_buckets(16))
    assert actual.decoder.output_projection.weight is actual.encoder.embed_tokens.weight
    assert actual.decoder.embed_tokens.weight is actual.encoder.embed_tokens.weight
    assert not actual.decoder.embed_image_positions.weight.requires_grad


def test_a_saved_network_is_loaded_again(tiny: OFAForConditionalGeneration, tmp_path: Path) -> None:
    tiny.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").is_file()
    check_equal(load_network(tmp_path), tiny)
    assert load_network(tmp_path, dtype=torch.bfloat16).dtype == torch.bfloat16


def test_weights_in_several_files_are_loaded(tiny: OFAForConditionalGeneration, tmp_path: Path) -> None:
    tiny.save_pretrained(tmp_path, max_shard_size="1MB")
    assert (tmp_path / "model.safetensors.index.json").is_file()
    check_equal(load_network(tmp_path), tiny)


def as_published(state: dict[str, Tensor]) -> dict[str, Tensor]:
    buffers = {
        "encoder.token_rp_bucket": torch.zeros(1024, 1024, dtype=torch.long),
        "decoder.image_rp_bucket": torch.zeros(65, 65, dtype=torch.long),
        "decoder.image_position_idx": torch.zeros(17, dtype=torch.long),
        "encoder.version": torch.tensor([3.0]),
    }
    return state | buffers


def without(*names: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda state: {name: tensor for name, tensor in state.items() if not name.endswith(names)}


@pytest.mark.parametrize(
    "change",
    [as_published, without("num_batches_tracked"), *(without(*set(EMBEDDINGS) - {kept}) for kept in EMBEDDINGS)],
    ids=["buffers", "no counters", *EMBEDDINGS],
)
def test_public_layouts_are_loaded(
    tiny: OFAForConditionalGeneration, folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]
) -> None:
    save(folder, change(tiny.state_dict()))
    check_equal(load_network(folder), tiny)
    _, loading = OFAForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    assert (set(loading["missing_keys"]), set(loading["unexpected_keys"])) == (set(), set())


@pytest.mark.parametrize("name", ["encoder.pos_ln.weight", "decoder.layers.1.cross_attn.c_attn"])
def test_a_missing_weight_is_told(tiny: OFAForConditionalGeneration, folder: Path, name: str) -> None:
    save(folder, without(name)(tiny.state_dict()))
    with pytest.raises(DataError, match=f"lack {name} "):
        load_network(folder)
    _, loading = OFAForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    assert set(loading["missing_keys"]) == {name}


def one_line(folder: Path, kind: type[Exception] = DataError) -> str:
    with pytest.raises(kind) as caught:
        load_network(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_does_not_fit_is_told_in_one_line(tiny: OFAForConditionalGeneration, folder: Path) -> None:
    state = tiny.state_dict()
    assert "has no weights" in one_line(folder)
    save(folder, without(*EMBEDDINGS)(state))
    assert "lack decoder.embed_tokens.weight and 2 more" in one_line(folder)
    save(folder, state | {"encoder.layers.0.w_resid": torch.ones(3)})
    assert "have encoder.layers.0.w_resid, which" in one_line(folder)
    (folder / "pytorch_model.bin").write_bytes(b"not a checkpoint")
    assert "pytorch_model.bin cannot be read" in one_line(folder)
    (folder / "model.safetensors").write_bytes(b"nor this")
    assert "model.safetensors cannot be read" in one_line(folder)


def test_weights_of_another_size_are_told_in_one_line(tiny: OFAForConditionalGeneration, folder: Path) -> None:
    save(folder, tiny.state_dict())
    fields = RECORD["config"] | {"model_type": "ofa"}
    (folder / "config.json").write_text(json.dumps(fields | {"d_model": 64}))
    assert "has the shape [32], but the configuration needs [64]" in one_line(folder)
    (folder / "config.json").write_text(json.dumps(fields | {"encoder_layers": 3}))
    assert "lack encoder.image_rel_pos_table_list.2.weight and" in one_line(folder)


def test_a_configuration_that_is_not_ofa_s_is_refused(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({"model_type": "bart"}))
    assert "'bart'" in one_line(folder, ConfigError)
    path.write_text(json.dumps({"model_type": "ofa", "use_ofasys": True}))
    assert "use_ofasys" in one_line(folder, ConfigError)
    path.write_text(json.dumps({"model_type": "ofa", "d_model": "wide"}))
    assert "config.json is malformed" in one_line(folder)
    path.write_text("{")
    assert "config.json is not JSON" in one_line(folder)
    path.unlink()
    assert "config.json does not exist" in one_line(folder)


def test_another_configuration_sets_what_training_needs(tiny: OFAForConditionalGeneration, folder: Path) -> None:
    save(folder, tiny.state_dict())
    config = load_config(folder)
    config.dropout, config.encoder_drop_path_rate = 0.3, 0.2
    network = load_network(folder, config=config)
    assert network.encoder.layers[1].dropout.p == 0.3
    assert network.encoder.layers[1].drop_path.p == pytest.approx(0.2)


def test_an_output_of_its_own_is_loaded_untied(tmp_path: Path) -> None:
    network = build(share_decoder_input_output_embed=False)
    assert network.decoder.output_projection.weight is not network.encoder.embed_tokens.weight
    network.save_pretrained(tmp_path)
    actual = load_network(tmp_path)
    assert torch.equal(actual.decoder.output_projection.weight, network.decoder.output_projection.weight)
    assert not torch.equal(actual.decoder.output_projection.weight, actual.encoder.embed_tokens.weight)
    assert actual.decoder.embed_tokens.weight is actual.encoder.embed_tokens.weight


def test_new_weights_are_drawn_as_for_training() -> None:
    network = OFAForConditionalGeneration(build().config)
    assert not network.encoder.token_rel_pos_table_list[0].weight.any()
    assert not network.encoder.embed_tokens.weight[1].any()
    assert network.encoder.layers[0].self_attn.c_attn.eq(1).all()
    assert network.encoder.layers[0].fc1.weight.std().item() == pytest.approx(0.02, rel=0.1)
