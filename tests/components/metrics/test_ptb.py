"""PTB tokenization: equal to the published evaluation's, one process, nothing left behind."""

from __future__ import annotations

import multiprocessing
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from icltool.components.metrics import ptb
from icltool.components.metrics.ptb import PTBTokenizer, shared_tokenizer
from icltool.errors import ConfigError
from tests.components.metrics.captions import caption, hard_caption
from tests.processes import PATIENCE, is_running, until


@pytest.fixture(scope="module")
def tokenizer() -> Iterator[PTBTokenizer]:
    """One Java process for all tests that leave it alone."""
    own = PTBTokenizer()
    yield own
    own.close()


def test_equals_the_published_tokenizer(tokenizer: PTBTokenizer, official_tokenizer: Callable) -> None:
    rng = random.Random(0)
    texts = [caption(rng) for _ in range(3000)]
    texts += ["A café’s “crème brûlée”", 'A "Stop" sign (left) [right] {both}', "A 1 1/2 inch dog; it's 5 p.m.", "A"]
    assert tokenizer.tokenize(texts) == [line for (line,) in official_tokenizer([[text] for text in texts])]


@pytest.mark.external
def test_equals_the_published_tokenizer_on_a_large_corpus(
    tokenizer: PTBTokenizer, official_tokenizer: Callable
) -> None:
    """Tens of thousands of distinct captions, plain and hard, in one published call.

    The published call reads all captions as one text, so it looks at the caption that follows to tell an abbreviation
    ("with J. R. R.") from the end of a sentence: there it keeps or drops a final period by what happens to come next.
    Ours is what it says of the caption when one that begins with "A" follows; nothing else may differ.
    """
    rng = random.Random(1)
    texts = [caption(rng) for _ in range(40_000)] + [hard_caption(rng) for _ in range(90_000)]
    marks = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
    codes = [c for c in (*range(32, 0x3000), *range(0x1F300, 0x1FA00)) if chr(c) not in marks]
    texts += [f"a {chr(code)} {chr(rng.choice(codes))}{chr(code)}dog{chr(code)}" for code in codes]
    texts = [text for text in dict.fromkeys(texts) if text]
    rng.shuffle(texts)
    assert len(texts) > 100_000
    ours = tokenizer.tokenize(texts)
    published = [line for (line,) in official_tokenizer([[text] for text in texts])]
    differing = [i for i, (one, other) in enumerate(zip(ours, published, strict=True)) if one != other]
    assert all(f"{ours[i]}." == published[i] or ours[i] == f"{published[i]}." for i in differing)
    assert len(differing) < len(texts) / 200
    followed = official_tokenizer([[texts[i], "A dog"] for i in differing])
    assert [line for line, _ in followed] == [ours[i] for i in differing]


def test_known_examples(tokenizer: PTBTokenizer) -> None:
    texts = ["A man's dog, isn't it?", "", "Two (red) dogs -- near the U.S. flag."]
    assert tokenizer.tokenize(texts) == ["a man 's dog is n't it", "", "two -lrb- red -rrb- dogs near the u.s. flag"]


def test_order_repetition_and_cache(tokenizer: PTBTokenizer) -> None:
    first = tokenizer.tokenize(["B b.", "A a.", "B b."])
    assert first == ["b b", "a a", "b b"]
    process = tokenizer._process
    assert process is not None
    calls = process._count
    assert tokenizer.tokenize(["A a.", "B b."]) == ["a a", "b b"]
    assert process._count == calls, "known strings must not be tokenized again"


def test_cache_stays_within_its_size() -> None:
    small = PTBTokenizer(cache_size=10)
    texts = [f"Dog {i}" for i in range(35)]
    assert small.tokenize(texts) == [f"dog {i}" for i in range(35)]
    assert len(small._cache) == 10
    assert small.tokenize(["Dog 0", "Dog 34"]) == ["dog 0", "dog 34"]
    small.close()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(max_size=30), max_size=8))
def test_any_text_keeps_its_line(texts: list[str]) -> None:
    """Whatever is in a text (line ends, control characters, half surrogates), its neighbours are answered rightly."""
    framed = ["First dog", *texts, "Last dog"]
    lines = shared_tokenizer().tokenize(framed)
    assert (lines[0], lines[-1]) == ("first dog", "last dog")
    assert len(lines) == len(framed)


def test_every_code_point_keeps_its_line(tokenizer: PTBTokenizer) -> None:
    texts = [f"dog {chr(code)} cat" for code in range(0x3100)] + ["the end"]
    lines = tokenizer.tokenize(texts)
    assert all(line.startswith("dog") and line.endswith("cat") for line in lines[:-1])
    assert lines[-1] == "the end"


def test_tokens_do_not_depend_on_neighbours(tokenizer: PTBTokenizer) -> None:
    """The Java program itself looks past the end of a line; we must not."""
    rng = random.Random(3)
    ends = ["no.", "x.", "art.", "U.S.", "co.", "Jr.", "5", "He", "the", "-", "<a", "b>"]
    texts = sorted({" ".join(rng.choices(ends, k=rng.randint(1, 4))) for _ in range(2000)})
    shuffled = texts[:]
    rng.shuffle(shuffled)
    one, other = PTBTokenizer(), tokenizer
    assert dict(zip(texts, one.tokenize(texts), strict=True)) == dict(
        zip(shuffled, other.tokenize(shuffled), strict=True)
    )
    one.close()


def test_threads_share_one_process(tokenizer: PTBTokenizer) -> None:
    answers: dict[int, list[str]] = {}

    def work(number: int) -> None:
        answers[number] = tokenizer.tokenize([f"Dog {number} {i}." for i in range(200)])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {n: [f"dog {n} {i}" for i in range(200)] for n in range(8)}


def test_goes_on_when_java_is_killed_between_calls(tokenizer: PTBTokenizer) -> None:
    tokenizer.tokenize(["A dog that is not asked about again."])
    assert tokenizer._process is not None
    tokenizer._process._child.kill()
    assert tokenizer.tokenize(["A cat that is new."]) == ["a cat that is new"]


def test_a_java_that_fails_is_one_clear_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    java = tmp_path / "bin" / "java"
    java.write_text("#!/bin/sh\necho 'Error: could not create the Java Virtual Machine.' >&2\nexit 1\n")
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(ConfigError, match="could not create the Java Virtual Machine"):
        PTBTokenizer().tokenize(["A dog."])


def test_a_missing_jar_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ptb, "_JAR", "absent.jar")
    with pytest.raises(ConfigError, match=r"absent\.jar"):
        PTBTokenizer().tokenize(["A dog."])


def _tokenize_in_child(queue: multiprocessing.Queue) -> None:  # type: ignore[type-arg]
    queue.put(shared_tokenizer().tokenize(["In the child."]))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_its_own_process() -> None:
    shared_tokenizer().tokenize(["In the parent."])
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_tokenize_in_child, args=(queue,))
    child.start()
    assert queue.get(timeout=PATIENCE) == ["in the child"]
    child.join()
    assert shared_tokenizer().tokenize(["Back in the parent."]) == ["back in the parent"]


_ENDLESS = """
from icltool.components.metrics.ptb import shared_tokenizer
shared_tokenizer().tokenize(["A dog."])
print(shared_tokenizer()._process._child.pid, flush=True)
number = 0
while True:
    number += 1
    shared_tokenizer().tokenize([f"Dog {number} {i}" for i in range(1000)])
"""


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL])
def test_java_ends_with_us(sign: signal.Signals) -> None:
    """At Ctrl-C as at a kill that leaves us no time for anything."""
    run = subprocess.Popen([sys.executable, "-c", _ENDLESS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert run.stdout is not None
    java = int(run.stdout.readline())
    time.sleep(0.3)
    run.send_signal(sign)
    _, errors = run.communicate(timeout=PATIENCE)
    assert "KeyboardInterrupt" in errors or sign is signal.SIGKILL
    until(lambda: not is_running(java))
