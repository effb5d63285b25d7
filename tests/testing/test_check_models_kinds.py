"""The suite of models knows models of one image, and encoder-decoders."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from icltool.contracts import Example, Prompt, TargetScore
from icltool.testing import check_model, make_examples
from tests.testing.test_check_models import HashModel


class OneImage(HashModel):
    images_per_prompt = 1

    def prompt(self, task: str, demonstrations: Sequence[Example], query: Example) -> Prompt:
        prompt = super().prompt(task, demonstrations, query)
        return replace(prompt, images=(query.image,))


class ShowsDemonstrations(HashModel):
    images_per_prompt = 1


class OverlooksItsImage(OneImage):
    def seen(self, prompt: Prompt, features: Mapping[str, Any] | None) -> list[str]:
        super().seen(prompt, features)
        return []


class EncoderDecoder(HashModel):
    """A target's words know that they are no part of the text."""

    target_apart = True

    def target(self, prompt: Prompt, seen: list[str]) -> TargetScore:
        return super().target(replace(prompt, text=prompt.text and prompt.text + " | "), seen)


class CallsItselfADecoder(EncoderDecoder):
    target_apart = False


class MeansOfTargets(EncoderDecoder):
    def target(self, prompt: Prompt, seen: list[str]) -> TargetScore:
        actual = super().target(prompt, seen)
        return TargetScore(actual.log_prob / actual.tokens**2, actual.tokens)


class CountsTargetsAsOne(EncoderDecoder):
    def target(self, prompt: Prompt, seen: list[str]) -> TargetScore:
        return TargetScore(super().target(prompt, seen).log_prob, 1)


@pytest.mark.parametrize("kind", [OneImage, EncoderDecoder])
def test_right_ones_pass(kind: Callable[[], Any], tmp_path: Path) -> None:
    check_model(kind(), make_examples(tmp_path, 8))


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        (ShowsDemonstrations, "a prompt of 1 demonstrations has 1 images"),
        (OverlooksItsImage, "another image makes no difference"),
        (CallsItselfADecoder, "its parts do not add up"),
        (MeansOfTargets, "is more probable than its part"),
        (CountsTargetsAsOne, "has no more tokens than its part"),
    ],
)
def test_wrong_ones_are_told(kind: Callable[[], Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError) as caught:
        check_model(kind(), make_examples(tmp_path, 8))
    assert sentence in str(caught.value)
