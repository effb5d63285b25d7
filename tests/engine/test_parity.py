"""Caches under releases that icltool was not tested with: used where they change nothing, left out and said where they do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import IdeficsForVisionText2Text
from transformers.models.idefics import modeling_idefics

from icltool import releases
from icltool.components.models.idefics.idefics import IdeficsModel
from icltool.components.models.idefics.options import IdeficsOptions
from icltool.components.models.shared.options import RemoteCodeOptions
from icltool.components.models.shared.transformers_cache import PrefixLayer
from icltool.components.models.text.text import TextModel
from icltool.contracts import GenerationOptions, ScoringRequest, TargetScore
from icltool.engine import parity
from icltool.engine.opening import open_session
from icltool.engine.session import Session
from tests.components.models import tiny
from tests.conftest import Scenery


@pytest.fixture(params=["tiny_model", "resampled"])
def model(request: pytest.FixtureRequest) -> IdeficsModel:
    return request.getfixturevalue(request.param)


@pytest.fixture
def unknown_release(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a transformers of tomorrow."""
    installed = {"transformers": "5.99.0", "torch": "2.14.1"}
    monkeypatch.setattr(releases, "_installed", installed.get)


def opened(model: Any, task: str = "caption") -> Session:
    return open_session(task, model, GenerationOptions(6, 2), 4, 2**20, prefix_bytes=2**26)


def wrapped(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, change: Callable[[Any, dict[str, Any]], None]
) -> None:
    """Has `change` spoil the keyword arguments of a method of transformers."""
    own = getattr(owner, name)

    def spoilt(self: Any, *args: Any, **kwargs: Any) -> Any:
        change(self.config, kwargs)
        return own(self, *args, **kwargs)

    spoilt.__wrapped__ = own  # type: ignore[attr-defined]  # the signature stays as it is
    monkeypatch.setattr(owner, name, spoilt)


def forgetful(config: Any, kwargs: dict[str, Any]) -> None:
    """A cache of ours that is swallowed."""
    for name in ("cache", "past_key_values"):
        if name in kwargs and isinstance(kwargs[name].layers[0], PrefixLayer):
            kwargs[name] = None


def muddled(config: Any, kwargs: dict[str, Any]) -> None:
    """A cache that is read in another order than it was written in."""
    for name in ("cache", "past_key_values"):
        for layer in kwargs[name].layers if name in kwargs else ():
            layer.values = layer.values.flip(2)


def rescaled(config: Any, kwargs: dict[str, Any]) -> None:
    """Embeddings of tokens, as the caches' forward passes hand them over, that are scaled once more."""
    if kwargs.get("inputs_embeds") is not None:
        kwargs["inputs_embeds"] = kwargs["inputs_embeds"] * 2


def unwilling(config: Any, kwargs: dict[str, Any]) -> None:
    """Image features that are no longer taken."""
    if not config.use_resampler and kwargs.get("image_encoder_embeddings") is not None:
        raise RuntimeError("shape '[4, 4]' is invalid\nfor input of size 3")


def test_a_tested_release_is_not_asked(model: IdeficsModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(releases, "_installed", lambda name: releases.TESTED[name][1])
    monkeypatch.setattr(parity, "_fault", lambda *_: pytest.fail("it was asked"))
    assert opened(model).notes == []


@pytest.mark.parametrize("task", ["caption", "vqa", "classification", "style"])
def test_caches_that_change_nothing_are_used(model: IdeficsModel, unknown_release: None, task: str) -> None:
    session = opened(model, task)
    assert session.notes == []
    assert session.cache is not None
    assert session.tokens_computed == 0


def test_models_that_read_no_images_are_asked_without(unknown_release: None, tmp_path: Path) -> None:
    session = opened(
        TextModel(RemoteCodeOptions(name="tiny", path=tiny.gpt2(tmp_path), device="cpu")), "classification"
    )
    assert session.notes == []
    assert session.tokens_computed == 0


@pytest.mark.parametrize(
    ("owner", "name", "change", "fault"),
    [
        (modeling_idefics.IdeficsModel, "forward", forgetful, "with caches the model fails ("),
        (modeling_idefics.IdeficsModel, "forward", rescaled, "with caches the log-probabilities of two targets are "),
        (
            modeling_idefics.IdeficsModel,
            "forward",
            unwilling,
            "with caches the model fails (RuntimeError: shape '[4, 4]' is invalid for input of size 3)",
        ),
        (IdeficsForVisionText2Text, "generate", muddled, "with caches the answers are ["),
    ],
)
def test_caches_that_change_what_the_model_says_are_switched_off(
    resampled: IdeficsModel,
    scenery: Scenery,
    unknown_release: None,
    monkeypatch: pytest.MonkeyPatch,
    owner: Any,
    name: str,
    change: Callable[[Any, dict[str, Any]], None],
    fault: str,
) -> None:
    examples = scenery.mixed(4, seed=6)
    requests = [ScoringRequest(query, (examples[0], examples[1])) for query in examples[2:]]
    plain = Session("caption", resampled, GenerationOptions(6, 2), 1)
    scores, answers = plain.target_scores(requests), plain.answers(requests)
    wrapped(monkeypatch, owner, name, change)
    session = opened(resampled)
    [note] = session.notes
    assert note.startswith(f"transformers 5.99.0 (tested: 5.17.0 to 5.24.0): {fault}")
    assert note.endswith("; caches are switched off, so that this runs more slowly, with the right values")
    assert (session.cache, session.tokens_computed) == (None, None)
    log_probs = [score.log_prob for score in session.target_scores(requests)]
    assert log_probs == pytest.approx([score.log_prob for score in scores], abs=2e-5)
    assert session.answers(requests) == answers


def test_half_precision_has_its_own_tolerance(resampled_folder: Path, unknown_release: None) -> None:
    half = IdeficsModel(IdeficsOptions(name="half", path=str(resampled_folder), device="cpu", dtype="bfloat16"))
    assert opened(half).notes == []


@pytest.mark.parametrize(
    ("versions", "by_name"),
    [
        ({"transformers": "5.17.0", "torch": "2.11.0+cu128"}, {}),
        ({"transformers": "5.24.0", "torch": "2.14.1"}, {}),
        ({"transformers": "5.24.1", "torch": "2.14.1"}, {"transformers": "5.24.1"}),
        ({"transformers": "5.16.1", "torch": "2.15.0.dev1"}, {"transformers": "5.16.1", "torch": "2.15.0.dev1"}),
        ({"torch": "2.9.1"}, {"torch": "2.9.1"}),
        ({"torch": "2.12.0rc1"}, {}),
    ],
)
def test_the_range_of_releases(versions: dict[str, str], by_name: dict[str, str]) -> None:
    assert releases.untested(versions) == by_name


@pytest.mark.parametrize(("half", "tolerated"), [(False, 1e-3 + 1e-4 * 20), (True, 0.1 + 2e-2 * 20)])
def test_what_is_tolerated_is_a_share_and_some_nats(half: bool, tolerated: float) -> None:
    expected = TargetScore(-20.0, 3)
    for sign in (-1, 1):
        difference = parity._difference(TargetScore(-20.0 + sign * tolerated / 2, 3), expected, half)
        assert difference == pytest.approx(0.5)
    assert parity._difference(TargetScore(-20.0, 4), expected, half) == float("inf")
    assert parity._difference(TargetScore(float("nan"), 3), expected, half) == float("inf")


@pytest.mark.parametrize(("units", "differs"), [(0.9, False), (1.1, True)])
@pytest.mark.usefixtures("unknown_release")
def test_more_than_is_tolerated_switches_the_caches_off(
    units: float, differs: bool, small_idefics: IdeficsModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity, "_difference", lambda *_: units)
    session = open_session("caption", small_idefics, GenerationOptions(4, 1), 4, 2**20)
    assert any("caches are switched off" in note for note in session.notes) == differs
