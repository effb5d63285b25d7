"""What is frozen, and how the rest is grouped."""

from __future__ import annotations

import torch

from icltool.components.learners.captioner.parts import TrainedParts
from tests.components.learners.captioner.model import TinyCaptioner

NORM = "encoder.embeddings.patch_embeddings.projection.norm"


def parts_of(*frozen: str) -> tuple[TinyCaptioner, TrainedParts]:
    model = TinyCaptioner()
    return model, TrainedParts(model.network, model.fine_tuning_parts(), frozen)


def test_a_frozen_part_is_whole_but_for_what_is_taken_out() -> None:
    model, parts = parts_of("vision")
    parts.prepare()
    parts.train()
    grads = {name for name, parameter in model.network.named_parameters() if parameter.requires_grad}
    assert grads == set(parts.trained)
    assert {name for name in grads if name.startswith("encoder.")} == {
        "encoder.layernorm.weight",
        "encoder.layernorm.bias",
    }
    for name, module in model.network.named_modules():
        frozen = name == "encoder" or (name.startswith("encoder.") and not name.startswith("encoder.layernorm"))
        assert module.training == (not frozen), name
    assert not any(name.startswith(NORM) for name in parts.names())


def test_statistics_of_batches_are_kept_where_they_change() -> None:
    _, parts = parts_of("language")
    assert {f"{NORM}.{own}" for own in ("running_mean", "running_var", "num_batches_tracked", "weight")} <= set(
        parts.names()
    )
    assert not any(name.startswith("decoder.") for name in parts.names())


def test_frozen_parts_keep_their_precision_and_trained_ones_get_theirs_back() -> None:
    model = TinyCaptioner()
    model.network.to(torch.bfloat16)
    parts = TrainedParts(model.network, model.fine_tuning_parts(), ["vision"])
    parts.prepare()
    for name, parameter in model.network.named_parameters():
        assert parameter.dtype == (torch.float32 if name in parts.trained else torch.bfloat16)
    parts.restore()
    assert {parameter.dtype for parameter in model.network.parameters()} == {torch.bfloat16}
    assert not any(parameter.requires_grad for parameter in model.network.parameters())
    assert not any(module.training for module in model.network.modules())


def test_groups_hold_each_parameter_once_with_its_decay_and_scale() -> None:
    model, parts = parts_of()
    groups = parts.groups(model.layer_ids(), layer_decay=0.5, weight_decay=0.05)
    names = {id(parameter): name for name, parameter in parts.trained.items()}
    seen = {}
    for group in groups:
        for parameter in group["params"]:
            seen[names.pop(id(parameter))] = (group["weight_decay"], group["scale"])
    assert not names
    assert seen["encoder.embeddings.position_embeddings"] == (0.05, 0.5**3)  # layer 0 of 2: d^(2 + 1 - 0)
    assert seen["encoder.layernorm.weight"] == (0.0, 1.0)
    assert seen["decoder.transformer.wte.weight"] == (0.05, 1.0)
    first = {scale for name, (_, scale) in seen.items() if ".0." in name and name.startswith("encoder.layer")}
    assert first == {0.5**2}
    for name, (decay, _) in seen.items():
        assert (decay == 0) == (parts.trained[name].ndim <= 1 or name.endswith("bias")), name
