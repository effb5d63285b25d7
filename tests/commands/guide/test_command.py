"""`icltool guide`: the topics in order, a topic on a terminal and in a pipe, and quickly."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

import pytest

from icltool.cli.app import run
from icltool.commands.guide.topics import FOLDER, ORDER, Topic, names, topic, topics
from tests.cli.test_app import HEAVY, started

ROWS, COLUMNS = 50, 80


def test_the_list_has_every_topic_in_order_with_its_first_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["guide"]) == 0
    output = capsys.readouterr().out
    listed = re.findall(r"^  (\S+)", output, flags=re.MULTILINE)
    assert listed == [name for name in ORDER if (FOLDER / f"{name}.md").is_file()]
    text = " ".join(output.split())
    assert "start Getting started. Install icltool, check the machine, " in text
    for page in topics():
        assert f" {page.name} {page.title}. {page.first_sentence}" in f" {text}"


def test_every_topic_begins_with_a_title_and_a_sentence() -> None:
    assert set(names()) == {path.stem for path in FOLDER.glob("*.md")} <= set(ORDER)
    for page in topics():
        assert page.text.startswith(f"# {page.title}\n\n"), page.name
        assert re.fullmatch(r"(icltool|[A-Z]).{10,160}\.", page.first_sentence), page.name


def test_a_pipe_gets_the_file_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["guide", "start"]) == 0
    assert capsys.readouterr().out == (FOLDER / "start.md").read_text(encoding="utf-8")


def on_a_terminal(*arguments: str) -> str:
    """What a terminal of 80 columns gets."""
    own, other = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(COLUMNS), "LINES": str(ROWS), "TERM": "xterm-256color"}
    process = subprocess.Popen(
        [sys.executable, "-m", "icltool", *arguments], stdout=other, stdin=other, env=environment
    )
    os.close(other)
    chunks = []
    while True:
        try:
            chunk = os.read(own, 65536)
        except OSError:  # the other end is closed
            break
        if not chunk:
            break
        chunks.append(chunk)
    os.close(own)
    assert process.wait() == 0
    return b"".join(chunks).decode()


def test_a_terminal_gets_it_formatted_and_whole() -> None:
    output = on_a_terminal("guide", "start")
    assert "\x1b[" in output
    plain = re.sub(r"\x1b\[[\d;]*m", "", output)
    assert "```" not in plain
    assert "# Getting started" not in plain
    assert "Getting started" in plain
    assert max(map(len, plain.splitlines())) <= COLUMNS
    assert len(plain.splitlines()) > ROWS, "no pager waited at the end of the screen"


def test_a_terminal_gets_code_that_can_be_copied() -> None:
    plain = re.sub(r"\x1b\[[\d;]*m", "", on_a_terminal("guide", "own-data")).replace("\r\n", "\n")
    blocks = re.findall(r"^```[^\n]*\n(.*?)^```", topic("own-data").text, flags=re.MULTILINE | re.DOTALL)
    assert max(len(line) for block in blocks for line in block.splitlines()) > COLUMNS
    for block in blocks:
        assert block in plain


def test_links_within_a_topic_name_their_headings() -> None:
    page = Topic("a", "# A\n\nSee [Use a real model](#use-a-real-model).\n")
    assert page.for_terminal() == '# A\n\nSee "Use a real model".\n'


def test_a_wrong_topic_gets_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["guide", "strat"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: unknown topic 'strat'\nhint: did you mean 'start'?")


def test_links_between_topics_become_commands() -> None:
    page = Topic(
        "x", "# X\n\nSee [start](start.md), [your own data](own-data.md#columns) and [a paper](https://a.b/c.md)."
    )
    assert page.for_terminal().endswith(
        "See `icltool guide start`, your own data (`icltool guide own-data`) and [a paper](https://a.b/c.md)."
    )
    assert page.first_sentence == "See start, your own data and [a paper](https://a.b/c.md)."


@pytest.mark.parametrize("arguments", [[], ["start"]])
def test_it_leaves_heavy_packages_out(arguments: list[str]) -> None:
    heavy = [name for name in HEAVY if name not in ("typer", "pydantic")]  # Typer imports pydantic if it is there
    code = (
        f"import sys; from icltool.cli.app import run; code = run(['guide', *{arguments}]);"
        f"print('LOADED', [m for m in {heavy} if m in sys.modules], code)"
    )
    assert started(sys.executable, "-c", code).stdout.splitlines()[-1] == "LOADED [] 0"
