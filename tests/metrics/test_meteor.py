"""METEOR against pycocoevalcap's: scores, corpus figure, one process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from icltool.contracts import CorpusMetric, Judgement
from icltool.errors import ConfigError
from icltool.metrics import meteor
from icltool.metrics.meteor import Meteor, MeteorProgram, shared_program
from icltool.testing import check_metric
from tests.metrics.captions import corpus

pytestmark = pytest.mark.slow


def judgements(predictions: list[str], references: list[list[str]]) -> list[Judgement]:
    return [Judgement(p, tuple(r)) for p, r in zip(predictions, references, strict=True)]


@pytest.fixture(scope="module", autouse=True)
def _no_process_left() -> Iterator[None]:
    yield
    shared_program().close()


def test_equals_pycocoevalcap(official_tokens: Callable) -> None:
    from pycocoevalcap.meteor.meteor import Meteor as Official

    predictions, references = corpus(4, 150)
    answers = dict(enumerate(official_tokens([[text] for text in predictions])))
    figure, expected = Official().compute_score(dict(enumerate(official_tokens(references))), answers)
    metric = Meteor()
    scores = metric.score(predictions, references)
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-12)
    # The figure itself, one in which ten answers count twice, and one that is all weights times 1.5.
    weights = np.ones((3, 150))
    weights[1, :10], weights[2] = 2.0, 1.5
    figures = metric.figures(judgements(predictions, references), weights)
    np.testing.assert_allclose(figures[[0, 2]], figure, rtol=0, atol=1e-12)
    assert abs(figure - scores.mean()) > 0.001, "the corpus figure is no mean"
    again = metric.figures(judgements(predictions + predictions[:10], references + references[:10]), np.ones((1, 160)))
    assert figures[1] == pytest.approx(again[0], abs=1e-12)
    assert isinstance(metric, CorpusMetric)


def test_conforms() -> None:
    check_metric(Meteor)


def test_answers_without_references_count_with_their_length() -> None:
    metric = Meteor()
    scores = metric.score(["a red dog", "a red dog", ""], [["a red dog"], [], []])
    assert scores[0] > 0.9
    assert scores[1:].tolist() == [0.0, 0.0]
    alone, both = metric.figures(
        judgements(["a red dog", "two boats"], [["a red dog"], []]), np.array([[1.0, 0.0], [1.0, 1.0]])
    )
    assert both < alone


def test_bars_and_line_ends_stay_within_their_text() -> None:
    metric = Meteor()
    plain = metric.score(["two boats"], [["two boats at sea"]])
    texts = ["a red ||| dog", "two\nboats", "|||", "two boats"]
    scores = metric.score(texts, [["a |||red dog", "|||"], ["two boats\r\nat sea"], ["x"], ["two boats at sea"]])
    assert scores[[1, 3]].tolist() == [plain[0], plain[0]]


def test_a_killed_process_is_started_again() -> None:
    metric = Meteor()
    before = metric.score(["a red dog"], [["a dog"]])
    process = shared_program()._process
    assert process is not None
    process._child.kill()
    assert metric.score(["a red dog", "a cat sat"], [["a dog"], ["the cat"]])[0] == before[0]


def test_nothing_needs_no_process() -> None:
    program = MeteorProgram()
    metric = Meteor(program=program)
    assert metric.score([], []).shape == (0,)
    assert metric.figures([], np.ones((2, 0))).tolist() == [0.0, 0.0]
    assert program._process is None


def test_a_missing_jar_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meteor, "_JAR", "absent.jar")
    with pytest.raises(ConfigError, match=r"absent\.jar"):
        Meteor(program=MeteorProgram()).score(["a dog"], [["a dog"]])


def test_a_java_that_fails_is_one_clear_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    metric = Meteor(program=MeteorProgram())
    metric._tokenizer.tokenize(["A dog.", "A cat."])  # its process is another one, and runs already
    (tmp_path / "bin").mkdir()
    java = tmp_path / "bin" / "java"
    java.write_text("#!/bin/sh\necho 'Error: could not reserve enough space' >&2\nexit 1\n")
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(ConfigError, match="METEOR stopped: Error: could not reserve enough space"):
        metric.score(["A dog."], [["A cat."]])
