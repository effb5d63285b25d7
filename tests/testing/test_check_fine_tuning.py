"""check_fine_tuning finds what is wrong with an adapter."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from icltool.components.models.blip.blip2 import Blip2Model
from icltool.components.models.shared.captioner import CaptionerOptions
from icltool.testing import check_fine_tuning, make_examples
from tests.components.models import tiny_captioners as tiny


class UncutTargets(Blip2Model):
    def fine_tuning_batch(
        self, prompts: Any, pixels: Any, max_target_tokens: Any = None, *rest: Any, **more: Any
    ) -> Any:
        return super().fine_tuning_batch(prompts, pixels, None, *rest, **more)


class OtherImage(Blip2Model):
    def fine_tuning_batch(self, prompts: Any, pixels: Any, *rest: Any, **more: Any) -> Any:
        return super().fine_tuning_batch(prompts, pixels[:1].expand_as(pixels), *rest, **more)


class UnsharedImages(Blip2Model):
    def fine_tuning_batch(self, prompts: Any, pixels: Any, *rest: Any, images: Any = None, **more: Any) -> Any:
        selected = pixels if images is None else pixels[[k % len(pixels) for k in range(len(prompts))]]
        return super().fine_tuning_batch(prompts, selected, *rest, **more)


class WorstFirst(Blip2Model):
    def sample_beams(self, prompts: Any, pixels: Any, options: Any) -> Any:
        return [part[::-1] for part in super().sample_beams(prompts, pixels, options)]


class UnendedBeams(Blip2Model):
    def sample_beams(self, prompts: Any, pixels: Any, options: Any) -> Any:
        actual = super().sample_beams(prompts, pixels, options)
        return [[replace(b, ids=b.ids[:-1] or b.ids) for b in part] for part in actual]


class EvalForever(Blip2Model):
    def sample_beams(self, prompts: Any, pixels: Any, options: Any) -> Any:
        self.network.eval()
        return super().sample_beams(prompts, pixels, options)


class HalfSaved(Blip2Model):
    def save_fine_tuned(self, file: Path, names: Sequence[str], about: Mapping[str, Any]) -> None:
        super().save_fine_tuned(file, [name for name in names if "qformer" not in name], about)


class Undrawn(Blip2Model):
    def pixel_reader(self, augmentation: Any) -> Any:
        return super().pixel_reader(replace(augmentation, crop="none", flip=False))


class Detached(Blip2Model):
    def answer_logits(self, batch: Any) -> Any:
        return super().answer_logits(batch).detach().requires_grad_(True)


class NamesNothing(Blip2Model):
    def fine_tuning_parts(self) -> Mapping[str, Sequence[str]]:
        return {**super().fine_tuning_parts(), "adapter": ("adapter.",)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny.blip2_opt(tmp_path_factory.mktemp("blip2"))


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        (UncutTargets, "must leave each target its first token"),
        (OtherImage, "do not sum up to `Model.score`"),
        (UnsharedImages, "`images` gives other logits"),
        (WorstFirst, "the best of `sample_beams` with 3 beams"),
        (UnendedBeams, "are not those of `answer_logits`"),
        (EvalForever, "changes which parts are in training mode"),
        (HalfSaved, "what `save_fine_tuned` wrote has other scores"),
        (Undrawn, "other draws give the same pixels"),
        (Detached, "no gradient reaches the network"),
        (NamesNothing, "the part 'adapter' names 'adapter.', and no parameter begins so"),
    ],
)
def test_what_is_wrong_is_said(kind: Callable[..., Any], sentence: str, folder: str, tmp_path: Path) -> None:
    examples = make_examples(tmp_path / "images", 6)

    def load(path: object) -> Any:
        return kind(CaptionerOptions(path=str(path), device="cpu"))

    with pytest.raises(AssertionError) as caught:
        check_fine_tuning(load(folder), examples, tmp_path, load)
    assert sentence in str(caught.value)
