"""METEOR: an alignment of an answer with its references by exact words, stems, synonyms and paraphrases.

Denkowski and Lavie: Meteor universal (2014). The program is the Java one inside pycocoevalcap, which the COCO caption
evaluation runs. It takes seconds to start, so one process serves the whole run.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Iterable, Sequence

import numpy as np

from icltool.components.metrics.captions import tokenized
from icltool.components.metrics.java import JavaProcess, ProcessEndedError, packaged_file
from icltool.components.metrics.ptb import PTBTokenizer, shared_tokenizer
from icltool.components.tasks import caption_tasks
from icltool.contracts import Float64Array, Judgement, Options
from icltool.errors import ConfigError

_JAR = "meteor-1.5.jar"
MOST_WORDS = 3000
_BATCH = 500
_SILENCE = 300.0
_CACHE = 200_000
#: Columns of the program's statistics: words of the answer and of the best reference; chunks; matched words of both.
_LENGTHS, _CHUNKS, _MATCHED = slice(0, 2), -3, slice(-2, None)


class Meteor:
    """METEOR 1.5 for English with the evaluation's settings, between 0 and 1.

    An answer's score is METEOR of that answer alone. The corpus figure is the program's own: the statistics of all
    answers (matches, chunks, lengths) are summed, and the score is computed from the sums; it is no mean of the answers'
    scores. The program scores sums from outside like its own, so figures under other weightings are exact.
    """

    options_model = Options
    name = "meteor"
    scale = 100.0
    #: The tasks that this metric is meant for; on others a remark says so.
    tasks = caption_tasks()

    def __init__(self, tokenizer: PTBTokenizer | None = None, program: MeteorProgram | None = None) -> None:
        self._tokenizer = tokenizer or shared_tokenizer()
        self._program = program or shared_program()

    def fit(self, corpus: Iterable[Sequence[str]]) -> None:
        """Nothing: METEOR has no corpus statistics."""

    def check(self) -> None:
        """Raises ConfigError where Java or pycocoevalcap is missing."""
        self._tokenizer.check()
        packaged_file("meteor", _JAR)

    def score(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Float64Array:
        """float64 [n]; 0 for an answer without references. ConfigError where Java is missing or the program fails."""
        return self._program.scores(self._statistics(predictions, references))

    def figures(self, judgements: Sequence[Judgement], weights: Float64Array) -> Float64Array:
        """METEOR of all answers together under each weighting, float64 [R]; see CorpusMetric. An answer without
        references counts with its length and no match."""
        statistics = self._statistics([j.answer for j in judgements], [j.references for j in judgements])
        if not len(statistics):
            return np.zeros(len(weights))
        # The program leaves the one chunk of a perfect match out of its sums.
        perfect = (statistics[:, _LENGTHS] == statistics[:, _MATCHED]).all(axis=1) & (statistics[:, _CHUNKS] == 1)
        statistics[perfect, _CHUNKS] = 0.0
        return self._program.scores(weights @ statistics)

    def _statistics(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Float64Array:
        answers, known = tokenized(self._tokenizer, predictions, references)
        # An empty reference has no match. A bar would end a text in the program's protocol.
        return self._program.statistics(
            [
                " ||| ".join(["SCORE", *(_plain(t) for t in texts or [""]), _plain(answer)])
                for answer, texts in zip(answers, known, strict=True)
            ]
        )


class MeteorProgram:
    """The Java program behind two pipes. Safe to call from several threads; a forked child starts one of its own."""

    def __init__(self, cache_size: int = _CACHE) -> None:
        self._cache_size = cache_size
        self._cache: dict[str, Float64Array] = {}
        self._process: JavaProcess | None = None
        self._owner = 0
        self._lock = threading.Lock()

    def statistics(self, requests: Sequence[str]) -> Float64Array:
        """The alignment statistics of each request ("SCORE ||| reference ||| … ||| answer"), float64 [n, S]; requests
        made before are answered from memory. ConfigError where Java is missing or the program fails."""
        with self._locked():
            known = {r: self._cache[r] for r in requests if r in self._cache}
            unseen = [r for r in dict.fromkeys(requests) if r not in known]
            for start in range(0, len(unseen), _BATCH):
                batch = unseen[start : start + _BATCH]
                lines = self._ask("".join(f"{request}\n" for request in batch), len(batch))
                known.update(zip(batch, (np.array(line.split(), dtype=np.float64) for line in lines), strict=True))
            for request in unseen[-self._cache_size :]:
                self._cache[request] = known[request]
            while len(self._cache) > self._cache_size:
                self._cache.pop(next(iter(self._cache)))
        return np.stack([known[request] for request in requests]) if requests else np.zeros((0, 0))

    def scores(self, statistics: Float64Array) -> Float64Array:
        """METEOR of each row of statistics, float64 [n]. ConfigError as `statistics`."""
        scores: list[str] = []
        with self._locked():
            for start in range(0, len(statistics), _BATCH):
                rows = [" ".join(map(repr, row)) for row in statistics[start : start + _BATCH].tolist()]
                # The last line is the score of all rows together.
                scores += self._ask(" ||| ".join(["EVAL", *rows]) + "\n", len(rows) + 1)[:-1]
        return np.array(scores, dtype=np.float64)

    def close(self) -> None:
        """Ends the Java process, but not that of a parent; the next call starts a new one."""
        if self._process is not None:
            self._process.stop()
        self._process = None

    def _locked(self) -> threading.Lock:
        if self._owner != os.getpid():  # a forked child must share neither pipe nor lock with its parent
            self._owner, self._process, self._lock = os.getpid(), None, threading.Lock()
        return self._lock

    def _ask(self, data: str, lines: int) -> list[str]:
        """The program's answer. One that ended (for example, killed by the kernel for its memory) is worth another
        attempt."""
        for last in (False, True):
            try:
                return self._attempt(data.encode("utf-8", "replace"), lines)
            except ProcessEndedError as error:
                if last:
                    raise ConfigError(
                        f"METEOR stopped: {error}", "see what `icltool doctor` says about Java"
                    ) from error
        raise AssertionError

    def _attempt(self, data: bytes, lines: int) -> list[str]:
        if self._process is None:
            jar = packaged_file("meteor", _JAR)
            options = ["-XX:+UseSerialGC", "-Xmx2G", "-Dfile.encoding=UTF-8", "-jar", str(jar)]
            self._process = JavaProcess([*options, "-", "-", "-stdio", "-l", "en", "-norm"], jar.parent)
        try:
            with self._process.sent(data, _SILENCE):
                return [self._process.line() for _ in range(lines)]
        except BaseException:  # Ctrl-C too: what is still in the pipes would be taken for the next answer
            self._process.stop()
            self._process = None
            raise


@functools.cache
def shared_program() -> MeteorProgram:
    """The program of this process, so that a run uses one Java process for METEOR."""
    return MeteorProgram()


def _plain(text: str) -> str:
    """The text on one line, without the protocol's bars. What is beyond MOST_WORDS is cut: the program's memory grows with the
    square of an answer that runs on."""
    return " ".join(text.replace("|||", "").split()[:MOST_WORDS])
