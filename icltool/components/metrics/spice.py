"""SPICE: agreement of the objects, attributes and relations that an answer and its references speak of.

Anderson et al.: SPICE, semantic propositional image caption evaluation (2016). The program is the Java one inside
pycocoevalcap; the parser models that it needs are not part of that package.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from icltool.components.metrics.captions import tokenized
from icltool.components.metrics.java import last_words, packaged_file, require_java
from icltool.components.metrics.ptb import PTBTokenizer, shared_tokenizer
from icltool.components.tasks import caption_tasks
from icltool.contracts import Float64Array, Options
from icltool.errors import ConfigError, DataError

#: Folder of the parser and its models, where they are not in pycocoevalcap's own.
MODELS_VARIABLE = "ICLTOOL_SPICE_MODELS"
MODELS = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")
_ARCHIVE = "stanford-corenlp-full-2015-12-09.zip"
_JAR = "spice-1.0.jar"
_PROGRAM = "edu.anu.spice.SpiceScorer"
_MEMORY = "8G"


class SpiceOptions(Options):
    """Where the parser is."""

    models: Path | None = Field(
        None,
        description=f"folder of the parser and its models; default: that of {MODELS_VARIABLE}, else of pycocoevalcap",
    )


class Spice:
    """SPICE's F score, tokenized as the COCO evaluation does, between 0 and 1; the corpus figure is the mean.

    What the program keeps of texts that it has parsed lies in a temporary folder for as long as the metric is used.
    """

    options_model = SpiceOptions
    name = "spice"
    scale = 100.0
    #: The tasks that this metric is meant for; on others a remark says so.
    tasks = caption_tasks()

    def __init__(self, options: SpiceOptions, tokenizer: PTBTokenizer | None = None) -> None:
        self._models = options.models
        self._tokenizer = tokenizer or shared_tokenizer()
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def fit(self, corpus: Iterable[Sequence[str]]) -> None:
        """Nothing: SPICE has no corpus statistics."""

    def score(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Float64Array:
        """float64 [n]; 0 for an answer without references, and where neither side says anything that can be compared.

        Raises DataError where the parser or its models are missing, ConfigError where Java is or the program fails.
        """
        scores = np.zeros(len(predictions))
        if not any(references):
            return scores
        self._tokenizer.check()
        jars = [packaged_file("spice", _JAR), *self._parser()]
        answers, known = tokenized(self._tokenizer, predictions, references)
        entries = [
            {"image_id": position, "test": answer, "refs": texts}
            for position, (answer, texts) in enumerate(zip(answers, known, strict=True))
            if texts
        ]
        for entry in self._run(jars, entries):
            value = entry["scores"]["All"]["f"]
            scores[int(entry["image_id"])] = 0.0 if value is None or math.isnan(float(value)) else float(value)
        return scores

    def check(self) -> None:
        """Raises ConfigError where Java is missing, DataError when the parser or its models are."""
        self._tokenizer.check()  # first: with the parser alone nothing would run
        self._parser()

    def _parser(self) -> list[Path]:
        """The parser and its models. DataError that names what is missing, where, and how to get it."""
        folder = self._models
        if folder is None:
            named = os.environ.get(MODELS_VARIABLE, "")
            folder = Path(named) if named else packaged_file("spice", _JAR).parent / "lib"
        missing = [name for name in MODELS if not (folder / name).is_file()]
        if missing:
            raise DataError(
                f"SPICE needs {' and '.join(missing)} in {folder}",
                f"take them from {_ARCHIVE} of the Stanford CoreNLP releases, and set {MODELS_VARIABLE} to their folder",
            )
        return [folder / name for name in MODELS]

    def _run(self, jars: list[Path], entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="icltool-spice-")
        folder = Path(self._folder.name)
        (folder / "cache").mkdir(exist_ok=True)
        input_file, output_file = folder / "captions.json", folder / "scores.json"
        input_file.write_text(json.dumps(entries), encoding="utf-8")
        output_file.unlink(missing_ok=True)
        libraries = str(jars[0].parent / "lib" / "*")
        # The program's cache reaches into java.lang, which Java 17 and later forbid; Java 8 knows no such option.
        command = [
            str(require_java()),
            "-XX:+IgnoreUnrecognizedVMOptions",
            "--add-opens=java.base/java.lang=ALL-UNNAMED",
        ]
        command += [f"-Xmx{_MEMORY}", "-Dfile.encoding=UTF-8", "-cp", os.pathsep.join([*map(str, jars), libraries])]
        command += [
            _PROGRAM,
            str(input_file),
            "-cache",
            str(folder / "cache"),
            "-out",
            str(output_file),
            "-subset",
            "-silent",
        ]
        with tempfile.TemporaryFile() as errors:
            code = subprocess.call(command, stdout=errors, stderr=errors, stdin=subprocess.DEVNULL, cwd=folder)
            if code or not output_file.is_file():
                errors.seek(0)
                raise ConfigError(
                    f"SPICE stopped: {last_words(errors, code)}", "see what `icltool doctor` says about Java and memory"
                )
        results: list[dict[str, Any]] = json.loads(output_file.read_text(encoding="utf-8"))
        return results
