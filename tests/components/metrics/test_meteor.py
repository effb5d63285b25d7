"""METEOR against pycocoevalcap's: scores, corpus figure, one process."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from icltool.components.metrics import meteor
from icltool.components.metrics.java import packaged_file
from icltool.components.metrics.meteor import Meteor, MeteorProgram, shared_program
from icltool.components.metrics.ptb import shared_tokenizer
from icltool.contracts import CorpusMetric, Judgement
from icltool.errors import ConfigError
from icltool.testing import check_metric
from tests.components.metrics.captions import corpus
from tests.processes import Child

HERE = Path(__file__).parent
RECORDING = HERE / "meteor.json"
#: Seed and size of the corpus that was recorded: the program's statistics, and pycocoevalcap's scores.
RECORDED = (4, 60)
#: The Java program takes ten seconds to start.
REAL = pytest.param("real", marks=pytest.mark.external)


@pytest.fixture(scope="module", params=["small", REAL])
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MeteorProgram]:
    """METEOR's Java program, and what stands in for it."""
    scorer = MeteorProgram()
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "small":
            shared_tokenizer().tokenize(["A dog."])  # the real Java is running before the other takes its place
            folder = tmp_path_factory.mktemp("java")
            script = f'exec "{sys.executable}" -S "{HERE / "small_meteor.py"}" "{RECORDING}"'
            stand_in(folder, script)
            patch.setenv("JAVA_HOME", str(folder))
        yield scorer
    scorer.close()


def stand_in(folder: Path, script: str) -> None:
    """`script` takes the place of Java where JAVA_HOME is `folder`."""
    (folder / "bin").mkdir()
    java = folder / "bin" / "java"
    java.write_text(f"#!/bin/sh\n{script}\n")
    java.chmod(0o755)


def judgements(predictions: list[str], references: list[list[str]]) -> list[Judgement]:
    return [Judgement(p, tuple(r)) for p, r in zip(predictions, references, strict=True)]


def check(program: MeteorProgram, size: int, seed: int, figure: float, expected: Sequence[float]) -> None:
    """Scores and figures are these, of answers that count once, that count twice, and with all weights times 1.5."""
    predictions, references = corpus(seed, size)
    metric = Meteor(program=program)
    scores = metric.score(predictions, references)
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-12)
    weights = np.ones((3, size))
    weights[1, :10], weights[2] = 2.0, 1.5
    figures = metric.figures(judgements(predictions, references), weights)
    np.testing.assert_allclose(figures[[0, 2]], figure, rtol=0, atol=1e-12)
    assert abs(figure - scores.mean()) > 0.001, "the corpus figure is no mean"
    again = metric.figures(
        judgements(predictions + predictions[:10], references + references[:10]), np.ones((1, size + 10))
    )
    assert figures[1] == pytest.approx(again[0], abs=1e-12)
    assert isinstance(metric, CorpusMetric)


def test_equals_what_pycocoevalcap_said(program: MeteorProgram) -> None:
    recorded = json.loads(RECORDING.read_text(encoding="utf-8"))
    check(program, RECORDED[1], RECORDED[0], recorded["figure"], recorded["scores"])


@pytest.mark.external
def test_the_program_says_what_was_recorded() -> None:
    recorded: dict[str, str] = json.loads(RECORDING.read_text(encoding="utf-8"))["statistics"]
    scorer = MeteorProgram()
    statistics = scorer.statistics(list(recorded))
    scorer.close()
    assert statistics.tolist() == [[float(n) for n in line.split()] for line in recorded.values()]


@pytest.mark.external
def test_equals_pycocoevalcap(official_tokenizer: Callable) -> None:
    from pycocoevalcap.meteor.meteor import Meteor as Official

    predictions, references = corpus(4, 150)
    answers = dict(enumerate(official_tokenizer([[text] for text in predictions])))
    figure, expected = Official().compute_score(dict(enumerate(official_tokenizer(references))), answers)
    scorer = MeteorProgram()
    check(scorer, 150, 4, figure, expected)
    scorer.close()


def test_conforms(program: MeteorProgram) -> None:
    check_metric(lambda: Meteor(program=program))


def test_all_metrics_of_a_run_share_a_program() -> None:
    assert Meteor()._program is Meteor()._program is shared_program()


def test_answers_without_references_count_with_their_length(program: MeteorProgram) -> None:
    metric = Meteor(program=program)
    scores = metric.score(["a red dog", "a red dog", ""], [["a red dog"], [], []])
    assert scores[0] > 0.9
    assert scores[1:].tolist() == [0.0, 0.0]
    alone, both = metric.figures(
        judgements(["a red dog", "two boats"], [["a red dog"], []]), np.array([[1.0, 0.0], [1.0, 1.0]])
    )
    assert both < alone


def test_bars_and_line_ends_stay_within_their_text(program: MeteorProgram) -> None:
    metric = Meteor(program=program)
    plain = metric.score(["two boats"], [["two boats at sea"]])
    texts = ["a red ||| dog", "two\nboats", "|||", "two boats"]
    scores = metric.score(texts, [["a |||red dog", "|||"], ["two boats\r\nat sea"], ["x"], ["two boats at sea"]])
    assert scores[[1, 3]].tolist() == [plain[0], plain[0]]


def test_a_killed_process_is_started_again(program: MeteorProgram) -> None:
    metric = Meteor(program=program)
    before = metric.score(["a red dog"], [["a dog"]])
    assert program._process is not None
    program._process._child.kill()
    assert metric.score(["a red dog", "a cat sat"], [["a dog"], ["the cat"]])[0] == before[0]


def test_a_forked_child_has_a_process_of_its_own(program: MeteorProgram) -> None:
    """One process serves all calls; a child shares neither its pipe nor its end."""
    metric = Meteor(program=program)
    expected = metric.score(["a dog"], [["a dog runs"]]).tolist()
    first = program._process
    assert first is not None

    def work() -> int:
        scores = metric.score(["a dog"], [["a dog runs"]]).tolist()
        shared = program._process is first
        program.close()
        return int(shared or scores != expected)

    with Child(work) as child:
        assert child.wait() == 0, child.err
    assert metric.score(["a dog"], [["a dog runs"]]).tolist() == expected
    assert program._process is first


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
    stand_in(tmp_path, "echo 'Error: could not reserve enough space' >&2\nexit 1")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(ConfigError, match="METEOR stopped: Error: could not reserve enough space"):
        metric.score(["A dog."], [["A cat."]])


@pytest.mark.parametrize("name", ["sp ace", "per%20cent", "plus+hash#x", "umläut"])
def test_a_jar_below_an_unusual_path_is_started_from_a_plain_one(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program decodes the place of its jar as if it were an address, and looks for its files there."""
    jar = moved_jar(name, tmp_path, monkeypatch)
    assert name not in str(jar)
    assert (jar.parent / "data" / "paraphrase-en.gz").is_file()


@pytest.mark.external
def test_it_runs_below_an_unusual_path_and_on_an_answer_that_runs_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved_jar("sp ace%20ü#", tmp_path, monkeypatch)
    program = MeteorProgram()
    try:
        metric = Meteor(program=program)
        metric.fit([["a cat sits on a mat"]])
        long, short = metric.score(["a cat " * 5000, "a cat sits"], [["a cat sits on a mat"]] * 2)
    finally:
        program.close()
    assert 0 < long < short


def moved_jar(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """METEOR's jar where pycocoevalcap lies below a folder of this name."""
    there = packaged_file("meteor", "meteor-1.5.jar").resolve().parents[1]
    (tmp_path / name).mkdir()
    (tmp_path / name / "pycocoevalcap").symlink_to(there, target_is_directory=True)
    monkeypatch.syspath_prepend(str(tmp_path / name))
    jar = packaged_file("meteor", "meteor-1.5.jar")
    assert jar.samefile(there / "meteor" / "meteor-1.5.jar")
    return jar
