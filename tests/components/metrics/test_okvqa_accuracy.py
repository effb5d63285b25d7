"""OK-VQA's accuracy: stemming through NLTK, and what is said where NLTK's data are missing."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from icltool.components.metrics.okvqa_accuracy import OKVQAAccuracy, RawVQAAccuracy
from icltool.components.metrics.okvqa_stemming import Stemmer
from icltool.components.metrics.okvqa_tables import EXCEPTIONS
from icltool.contracts import Metric
from icltool.errors import ConfigError
from icltool.plugin.manager import component
from icltool.testing import check_metric
from tests.components.metrics.nltk_data import nltk_path, write_nltk_data

DOWNLOAD = "python -m nltk.downloader wordnet averaged_perceptron_tagger_eng"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_nltk_data(tmp_path_factory.mktemp("nltk"))


@pytest.fixture
def data(folder: Path) -> Iterator[Path]:
    """NLTK has these data and no others."""
    with nltk_path(folder):
        yield folder


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("riding", "ride"),  # the table stands before WordNet, which has no such verb here
        ("jeans", "jean"),
        ("christmas", "christmas"),
        ("skiing", "ski"),  # a rule: -ing falls
        ("skating", "skate"),  # a rule: -ing becomes -e
        ("running", "run"),  # an irregular form
        ("swimming", "swimming"),  # no verb that WordNet has
        ("dogs", "dog"),
        ("two dogs", "two dog"),
        ("glasses and berries", "glass and berry"),
        ("Alps", "Alp"),  # NNPS
        ("bus", "bus"),  # a noun in -s that is no plural
        ("dog", "dog"),
        ("two  dogs riding skiing", "two dog ride ski"),
        ("Skiing", "Skiing"),  # as it is written: WordNet's verbs and the table have no capitals
        ("bus.", "bus ."),
        ("boy's", "boy 's"),  # split by the tokenizer, so that the table's entry is not met
        ("", ""),
    ],
)
def test_words_are_stemmed_one_by_one(data: Path, answer: str, expected: str) -> None:
    assert Stemmer().stem(answer) == expected


def test_an_answer_is_stemmed_once(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stemmer = Stemmer()
    tagged: list[list[str]] = []
    assert stemmer.stem("dogs") == "dog"
    tag = stemmer._tagger.tag
    monkeypatch.setattr(stemmer._tagger, "tag", lambda words: tagged.append(words) or tag(words))
    assert [stemmer.stem(answer) for answer in ("dogs", "two dogs", "two dogs", "dogs")] == [
        "dog",
        *["two dog"] * 2,
        "dog",
    ]
    assert tagged == [["two", "dogs"]]


def test_exceptions() -> None:
    assert len(EXCEPTIONS) == 168
    assert {word: EXCEPTIONS[word] for word in ("leaves", "morning", "urinating", "yes", "kid's")} == {
        "leaves": "leaf",
        "morning": "morn",
        "urinating": "urine",
        "yes": "yes",
        "kid's": "kid",
    }
    assert all(word == word.lower() and stem for word, stem in EXCEPTIONS.items())


def test_the_prediction_is_stemmed_and_the_references_are_not(data: Path) -> None:
    """Leaving out one of ten: with 2 who agree, (2 x 1/3 + 8 x 2/3) / 10 = 0.6; with 3, (3 x 2/3 + 7 x 1) / 10 = 0.9."""
    metric = component("metrics", "okvqa-accuracy")
    assert isinstance(metric, Metric)
    metric.fit([["unused"]])
    references = ["ski"] * 5 + ["snowboard"] * 3 + ["dog"] * 2
    answers = ["skiing", "snowboard", "dogs", "Two Dogs", "jump", "skiing"]
    truth = [references] * 4 + [[], ["skiing"] * 10]
    assert metric.score(answers, truth).tolist() == pytest.approx([1.0, 0.9, 0.6, 0.0, 0.0, 0.0])
    assert metric.score([], []).tolist() == []


def test_raw_answers_are_compared_as_they_were_typed() -> None:
    metric = component("metrics", "vqa-accuracy-raw")
    assert (metric.name, metric.reads, metric.tasks) == ("vqa-accuracy-raw", "raw_references", ("vqa",))
    assert metric.score(["skiing", "ski"], [["Skiing"] * 9 + ["ski"]] * 2).tolist() == pytest.approx([1.0, 0.3])


def test_it_conforms(data: Path) -> None:
    references = [(f"{word} {n}", f"{word} {n}", "dog") for word in ("ski", "run", "cat") for n in range(4)]
    check_metric(OKVQAAccuracy, references=references)
    check_metric(OKVQAAccuracy)
    check_metric(RawVQAAccuracy)


@pytest.mark.parametrize(
    ("missing", "named"),
    [
        (("corpora",), "wordnet is missing"),
        (("taggers",), "averaged_perceptron_tagger_eng is missing"),
        (("corpora", "taggers"), "wordnet is missing; averaged_perceptron_tagger_eng is missing"),
    ],
)
def test_missing_data_are_named(folder: Path, tmp_path: Path, missing: tuple[str, ...], named: str) -> None:
    shutil.copytree(folder, tmp_path / "nltk")
    for part in missing:
        shutil.rmtree(tmp_path / "nltk" / part)
    with nltk_path(tmp_path / "nltk"):
        for run in (OKVQAAccuracy().check, lambda: OKVQAAccuracy().score(["dogs"], [["dog"]])):
            with pytest.raises(ConfigError) as caught:
                run()
            assert caught.value.message == f"stemming OK-VQA's answers needs NLTK's data: {named}"
            assert caught.value.hint == f"`{DOWNLOAD}`"


@pytest.mark.parametrize("file", ["averaged_perceptron_tagger_eng.weights.json", "index.verb"])
def test_damaged_data_are_named(folder: Path, tmp_path: Path, file: str) -> None:
    shutil.copytree(folder, tmp_path / "nltk")
    (damaged,) = (tmp_path / "nltk").rglob(file)
    damaged.write_text('ski v 1 0 {"')
    resource = damaged.parent.name
    with nltk_path(tmp_path / "nltk"), pytest.raises(ConfigError, match=f"{resource} cannot be read") as caught:
        OKVQAAccuracy().check()
    assert "\n" not in caught.value.message


def test_data_may_come_later(folder: Path, tmp_path: Path) -> None:
    metric = OKVQAAccuracy()
    with nltk_path(tmp_path / "nltk"):
        with pytest.raises(ConfigError):
            metric.check()
        shutil.copytree(folder, tmp_path / "nltk")
        metric.check()
        assert metric.score(["dogs"], [["dog"] * 10]).tolist() == [1.0]


@pytest.mark.parametrize(
    ("missing", "named"),
    [(("nltk",), "the package nltk"), (("nltk", "inflection"), "the packages nltk and inflection")],
)
def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch, missing: tuple[str, ...], named: str) -> None:
    find = importlib.util.find_spec

    def find_spec(name: str, *rest: Any) -> Any:
        return None if name in missing else find(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    with pytest.raises(ConfigError) as caught:
        OKVQAAccuracy().check()
    assert caught.value.message == f"stemming OK-VQA's answers needs {named}"
    assert caught.value.hint == f"pip install 'icltool[okvqa]', then `{DOWNLOAD}` for NLTK's data"


def test_the_metric_is_built_without_nltk() -> None:
    code = (
        "import sys; from icltool.plugin.manager import component; component('metrics', 'okvqa-accuracy')\n"
        "assert not {'nltk', 'inflection'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
