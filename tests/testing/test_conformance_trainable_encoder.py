from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from icltool.components.encoders.open_clip import OpenClipEncoder, OpenClipOptions
from icltool.testing.trainable_encoders import check_trainable_encoder


def build(kind: type[OpenClipEncoder], **options: object) -> OpenClipEncoder:
    """The tiny CLIP, with other options where they are given."""
    return kind(
        OpenClipOptions.model_validate({"name": "tiny-clip", "packaged": "tiny-clip", "device": "cpu"} | options)
    )


def test_the_built_in_encoder_passes(tmp_path: Path) -> None:
    check_trainable_encoder(partial(build, OpenClipEncoder), tmp_path)


class Normalised(OpenClipEncoder):
    def tower(self, modality: str) -> nn.Module:
        plain = super().tower(modality)
        tower = type("Tower", (nn.Module,), {"forward": lambda self, x: nn.functional.normalize(plain(x), dim=-1)})()
        tower.plain = plain
        return tower


class OwnWeights(OpenClipEncoder):
    def tower(self, modality: str) -> nn.Module:
        import copy

        self._copies = getattr(self, "_copies", {})
        return self._copies.setdefault(modality, copy.deepcopy(super().tower(modality)))


class Hanger(OpenClipEncoder):
    def tower(self, modality: str) -> nn.Module:
        tower = super().tower(modality)
        tower.unused = nn.Parameter(torch.zeros(1), requires_grad=False)
        return tower


class Tuples(OpenClipEncoder):
    def architecture(self) -> dict[str, Any]:
        return {"size": (32, 32)}


class Forgetful(OpenClipEncoder):
    def architecture(self) -> dict[str, Any]:
        return {"made": id(self)}


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Normalised, "the image tower gives other features than the encoder"),
        (OwnWeights, "the image tower does not share the encoder's weights"),
        (Hanger, r"holds parameters that its features do not depend on: \['unused'\]"),
        (Tuples, "must come back from JSON"),
        (Forgetful, "has another architecture"),
    ],
)
def test_what_is_broken_is_said(kind: type[OpenClipEncoder], said: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=said):
        check_trainable_encoder(partial(build, kind), tmp_path)


def test_an_encoder_without_towers_is_no_trainable_one(tmp_path: Path) -> None:
    class Plain:
        name, dim = "plain", 3

    with pytest.raises(AssertionError, match="Plain lacks a part"):
        check_trainable_encoder(Plain, tmp_path)  # type: ignore[arg-type]
