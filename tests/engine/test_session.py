"""Sessions over a real tiny model whose memory ends: the same figures, in smaller batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from icltool.components.interventions.shift import ShiftVectors
from icltool.components.interventions.stored import StoredOptions
from icltool.components.models.idefics.idefics import IdeficsModel
from icltool.contracts import Example, GenerationOptions, ScoringRequest
from icltool.engine.batching import BatchSize
from icltool.engine.opening import open_session
from icltool.engine.session import Session
from icltool.engine.work import Work
from icltool.errors import ConfigError, IclError
from tests.commands.evaluate.vectors import vectors
from tests.conftest import Scenery

OPTIONS = GenerationOptions(4, 2)


class SmallMemory:
    """The model, on a machine where `limit` prompts at once are the most, and `images` images."""

    def __init__(self, model: IdeficsModel, limit: int, images: int = 1000) -> None:
        self._model, self._limit, self._images = model, limit, images
        self.device = model.device
        self.name = model.name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def score(self, prompts: Sequence[Any], batch_size: int, features: Any = None) -> Any:
        self._fits(min(len(prompts), batch_size), self._limit)
        return self._model.score(prompts, batch_size, features)

    def generate(self, prompts: Sequence[Any], options: Any, batch_size: int, features: Any = None) -> Any:
        self._fits(min(len(prompts), batch_size), self._limit)
        return self._model.generate(prompts, options, batch_size, features)

    def extend_prefix(self, spans: Sequence[Any], past: Any, features: Any, keep: bool) -> Any:
        self._fits(len(spans), self._limit)
        return self._model.extend_prefix(spans, past, features, keep)

    def generate_from_prefix(self, prompts: Sequence[Any], past: Any, options: Any, features: Any) -> Any:
        self._fits(len(prompts), self._limit)
        return self._model.generate_from_prefix(prompts, past, options, features)

    def encode_images(self, prepared: Sequence[Any]) -> Any:
        self._fits(len(prepared), self._images)
        return self._model.encode_images(prepared)

    def image_features(self, paths: Sequence[str], batch_size: int) -> Any:
        self._fits(min(len(paths), batch_size), self._images)
        return self._model.image_features(paths, batch_size)

    def _fits(self, count: int, limit: int) -> None:
        if count > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.fixture(scope="module")
def requests(scenery: Scenery) -> list[ScoringRequest]:
    examples: list[Example] = scenery.mixed(8, seed=2)
    return [ScoringRequest(examples[i % 8], tuple(examples[(i + 1) % 8 : (i + 1) % 8 + i % 3])) for i in range(22)]


def opened(model: Any, size: BatchSize, cache: int = 2**20, prefixes: int = 2**26) -> Session:
    return open_session("caption", model, OPTIONS, size, cache, prefix_bytes=prefixes)


Figures = tuple[list[float], list[str]]


@pytest.fixture(scope="module")
def expected_figures(small_idefics: IdeficsModel, requests: list[ScoringRequest]) -> Figures:
    """Log-probabilities and answers where memory suffices and prompts are computed whole."""
    return figures(opened(small_idefics, 5, prefixes=0), requests)


def figures(session: Session, requests: list[ScoringRequest]) -> Figures:
    return [s.log_prob for s in session.target_scores(requests)], session.answers(requests)


@pytest.mark.parametrize("size", ["auto", 64, 3])
@pytest.mark.parametrize("prefixes", [0, 2**26])
def test_results_do_not_depend_on_memory(
    small_idefics: IdeficsModel,
    requests: list[ScoringRequest],
    expected_figures: Figures,
    size: BatchSize,
    prefixes: int,
) -> None:
    short = opened(SmallMemory(small_idefics, 6, images=3), size, prefixes=prefixes)
    scores, answers = figures(short, requests)
    assert scores == pytest.approx(expected_figures[0], abs=1e-4)
    assert answers == expected_figures[1]
    assert short.batch_size == {"auto": 4, 64: 3 if prefixes else 5, 3: 3}[size]
    assert bool(short.notes) == (size != 3)


def test_one_note_tells_what_happened(small_idefics: IdeficsModel, requests: list[ScoringRequest]) -> None:
    session = opened(SmallMemory(small_idefics, 4), 16, prefixes=0)
    assert session.notes == []
    session.target_scores(requests)
    assert session.notes == ["8 prompts at once did not fit in memory: batch size now 4"]


def test_an_image_that_cannot_be_encoded_is_named(small_idefics: IdeficsModel, requests: list[ScoringRequest]) -> None:
    with pytest.raises(ConfigError, match=r"while encoding the image .*\.jpg") as caught:
        opened(SmallMemory(small_idefics, 4, images=0), 4).target_scores(requests)
    assert "--image-cache-mb 0" in str(caught.value.hint)


def test_a_plain_session_scores_prompts_one_by_one(small_idefics: IdeficsModel, requests: list[ScoringRequest]) -> None:
    session = opened(SmallMemory(small_idefics, 1), 8)
    plain = session.plain()
    assert (plain.batch_size, plain.cache) == (1, None)
    assert len(plain.target_scores(requests[:3])) == 3
    assert plain.done == Work(prompts=3), "nothing is shared, and no image is kept"


@pytest.fixture(scope="module")
def strong(small_idefics: IdeficsModel, tmp_path_factory: pytest.TempPathFactory) -> ShiftVectors:
    return ShiftVectors(
        StoredOptions(
            method="live", file=vectors(tmp_path_factory.mktemp("vectors") / "strong.safetensors", small_idefics, 1.0)
        )
    )


def test_what_is_shared_under_an_intervention_is_its_own(
    small_idefics: IdeficsModel, requests: list[ScoringRequest], strong: ShiftVectors
) -> None:
    session = opened(small_idefics, 8)
    session.keeps_prefixes = True
    before = figures(session, requests)
    with session.applying(strong):
        under = figures(session, requests)
        expected = figures(opened(small_idefics, 8, prefixes=0), requests)
    assert under[0] == pytest.approx(expected[0], abs=1e-4)
    assert under[1] == expected[1]
    assert max(abs(a - b) for a, b in zip(before[0], under[0], strict=True)) > 0.1
    assert figures(session, requests) == before


def test_nothing_is_shared_where_the_intervention_looks_at_a_tokens_place(
    small_idefics: IdeficsModel, requests: list[ScoringRequest], strong: ShiftVectors
) -> None:
    class OfTheLast(ShiftVectors):
        everywhere = False

    session = opened(small_idefics, 8)
    session.answers(requests[:4])
    computed = session.tokens_computed
    with session.applying(OfTheLast(StoredOptions(method="live", file=strong.file))):
        steered = session.answers(requests)
        assert session.tokens_computed is None, "each prompt whole"
    assert session.tokens_computed == computed
    damaged = ScoringRequest(replace(requests[0].query, image="nowhere.jpg"), ())
    with (
        session.applying(OfTheLast(StoredOptions(method="live", file=strong.file))),
        pytest.raises(IclError, match="nowhere"),
    ):
        session.answers([damaged])
    assert session.answers(requests) == opened(small_idefics, 8).answers(requests) != steered
