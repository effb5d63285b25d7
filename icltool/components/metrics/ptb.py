"""Penn Treebank tokenization of captions, as the COCO caption evaluation has it.

The tokenizer is the Java program inside pycocoevalcap. Starting Java costs more than tokenizing thousands of captions,
so one Java process is kept for the run and answers line by line, and strings seen before are answered from a cache.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from icltool.components.metrics.java import JavaProcess, ProcessEndedError, packaged_file, require_java
from icltool.errors import ConfigError

#: Tokens that the evaluation drops.
PUNCTUATION = frozenset(
    ["''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", ".", "?", "!", ",", ":", "-", "--", "...", ";"]
)

_JAR = "stanford-corenlp-3.4.1.jar"
_PROGRAM = "edu.stanford.nlp.process.PTBTokenizer"
#: What the Java program reads as the end of a line; within a caption each becomes a space.
_LINE_ENDS = str.maketrans(dict.fromkeys("\n\r\x0b\x0c\u2028\u2029", " "))
#: The tokenizer looks past the end of a line to decide whether a final "x." or "no." is an abbreviation. A fixed line
#: after each caption makes its tokens independent of which caption happens to follow; this is how most captions begin.
_FOLLOWING = "A"
#: Java writes its output in blocks of up to three buffers of 8 KiB; this much padding pushes a batch's last line out.
_PADDING = ("p" * 1023 + "\n") * 32
_BATCH = 5_000
_SILENCE = 120.0
#: Strings kept with their tokens. The training captions of COCO are 566,747: the references of its queries are still
#: there when the queries come. About 0.3 GB when full.
_CACHE = 1_000_000


class PTBTokenizer:
    """Tokenizes captions: lower case, punctuation dropped, words joined by single spaces.

    Safe to call from several threads; a forked child starts a Java process of its own.
    """

    def __init__(self, cache_size: int = _CACHE) -> None:
        self._cache_size = cache_size
        self._cache: dict[str, str] = {}
        self._process: _TokenizerProcess | None = None
        self._owner = 0
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """Pickles as a tokenizer that starts a Java process of its own when needed."""
        return {"cache_size": self._cache_size}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def tokenize(self, texts: Sequence[str]) -> list[str]:
        """One tokenized string per text, in order; a text's tokens depend on no other text.

        Raises ConfigError where Java or pycocoevalcap is missing, or where the Java program fails.
        """
        if self._owner != os.getpid():  # a forked child must share neither pipe nor lock with its parent
            self._owner, self._process, self._lock = os.getpid(), None, threading.Lock()
        with self._lock:
            known = {text: self._cache[text] for text in texts if text in self._cache}
            unseen = [text for text in dict.fromkeys(texts) if text not in known]
            for start in range(0, len(unseen), _BATCH):
                batch = unseen[start : start + _BATCH]
                known.update(zip(batch, self._run(batch), strict=True))
            self._remember(unseen, known)
        return [known[text] for text in texts]

    def check(self) -> None:
        """Raises ConfigError where Java or pycocoevalcap is missing; nothing is started."""
        require_java()
        packaged_file("tokenizer", _JAR)

    def close(self) -> None:
        """Ends the Java process; the next call starts a new one."""
        if self._process is not None and self._owner == os.getpid():
            self._process.stop()
        self._process = None

    def _run(self, texts: list[str]) -> list[str]:
        try:
            return self._attempt(texts)
        except ProcessEndedError:  # killed from outside, by the kernel's memory guard say: worth one more try
            try:
                return self._attempt(texts)
            except ProcessEndedError as error:
                raise ConfigError(
                    f"the PTB tokenizer stopped: {error}", "see what `icltool doctor` says about Java"
                ) from error

    def _attempt(self, texts: list[str]) -> list[str]:
        if self._process is None:
            self._process = _TokenizerProcess(packaged_file("tokenizer", _JAR))
        try:
            return [_words(line) for line in self._process.lines([text.translate(_LINE_ENDS) for text in texts])]
        except BaseException:  # Ctrl-C too: what is still in the pipes would be taken for the next answer
            self._process.stop()
            self._process = None
            raise

    def _remember(self, unseen: list[str], known: dict[str, str]) -> None:
        for text in unseen[-self._cache_size :]:
            self._cache[text] = known[text]
        while len(self._cache) > self._cache_size:
            self._cache.pop(next(iter(self._cache)))


@functools.cache
def shared_tokenizer() -> PTBTokenizer:
    """The tokenizer of this process, so that all metrics and scorers of a run use one Java process."""
    return PTBTokenizer()


class _TokenizerProcess(JavaProcess):
    """The Java tokenizer. One batch is: a numbered opening line, each text followed by a fixed line, a numbered closing
    line, padding."""

    def __init__(self, jar: Path) -> None:
        command = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx512m", "-cp", str(jar), _PROGRAM]
        command += ["-preserveLines", "-lowerCase", "-encoding", "UTF-8", "-options", "untokenizable=noneDelete"]
        super().__init__(command)
        self._count = 0

    def lines(self, texts: list[str]) -> list[str]:
        """The tokenizer's line for each text (no line ends in it). Raises ProcessEndedError."""
        self._count += 1
        opening, closing = f"opening{self._count}", f"closing{self._count}"
        body = "".join(f"{text}\n{_FOLLOWING}\n" for text in texts)
        data = f"{opening}\n{body}{closing}\n{_PADDING}".encode("utf-8", "replace")
        with self.sent(data, _SILENCE + len(texts) / 100):
            while self.line() != opening:  # the padding of the batch before
                pass
            answers = [self.line() for _ in range(2 * len(texts))][::2]
            if self.line() != closing:
                raise ProcessEndedError("its output does not have one line per input line")
        return answers


def _words(line: str) -> str:
    return " ".join(word for word in line.rstrip().split(" ") if word not in PUNCTUATION)
