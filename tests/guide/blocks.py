"""The fenced blocks of the guide, by what is done with them.

| info string | meaning |
|---|---|
| `sh` | is run, in order, in the topic's folder, which is empty at first |
| `sh slow` | the same, in the suite `training` only: it takes more than some seconds |
| `sh download`, `sh gpu`, `sh cluster` | cannot run here: the shell parses it, and icltool parses each of its commands |
| `python` | is run in the same folder; the names that a block defines are there in the topic's later blocks |
| `python download` | is compiled only |
| `LANGUAGE FILE`, such as `toml species.toml` | is written to this file in the folder |
| `console` | a session, to read: commands begin with `$ ` and are parsed |
| any other single word | text to read |

A statement of `sh` that begins with `icltool` runs in the test's own process, which is much faster; with a pipe or a
redirection it runs in the shell, as all others do. A variable lasts when a line `export NAME=VALUE` sets it.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "icltool" / "guide"
PAGES = [ROOT / "README.md", *sorted(GUIDE.glob("*.md"))]
ELSEWHERE = ("download", "gpu", "cluster")

_BLOCK = re.compile(r"^```(?P<language>\w*)(?: (?P<word>\S+))?\n(?P<text>.*?)^```$", flags=re.MULTILINE | re.DOTALL)
_OPERATORS = ("|", ">", "<", "&", ";")


@dataclass(frozen=True)
class Block:
    """A fenced block: the two words of its info string, its text, and where it stands ("own-data, line 12")."""

    place: str
    language: str
    word: str
    text: str

    @property
    def file(self) -> str:
        """The file that the text is written to, or ""."""
        return self.word if "." in self.word or "/" in self.word else ""

    @property
    def is_run(self) -> bool:
        """Whether it runs in the default suite."""
        return self.language in ("sh", "python") and not self.word

    @property
    def is_slow(self) -> bool:
        return (self.language, self.word) == ("sh", "slow")


def blocks(page: Path) -> list[Block]:
    """The blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            f"{page.stem}, line {text[: match.start()].count(chr(10)) + 1}",
            match["language"],
            match["word"] or "",
            match["text"],
        )
        for match in _BLOCK.finditer(text)
    ]


def statements(text: str) -> Iterator[str]:
    """The statements of a script: the shortest runs of lines that the shell parses, without blank lines and comments."""
    lines: list[str] = []
    for line in text.splitlines():
        if not lines and (not line.strip() or line.lstrip().startswith("#")):
            continue
        lines.append(line)
        if not line.endswith("\\") and syntax_error("\n".join(lines)) is None:
            yield "\n".join(lines)
            lines.clear()
    if lines:
        raise AssertionError(f"the shell cannot parse {lines}")


def syntax_error(script: str) -> str | None:
    """What the shell objects to, or None."""
    answer = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
    return answer.stderr if answer.returncode else None


def is_plain(statement: str) -> bool:
    """Whether this is one call of icltool, without pipe, redirection or a second command."""
    return statement.startswith("icltool ") and not any(token[0] in _OPERATORS for token in _tokens(statement))


def calls(script: str) -> Iterator[list[str]]:
    """The arguments of each call of icltool in a script, wherever it stands: behind `srun`, or within a loop."""
    for line in script.replace("\\\n", " ").splitlines():
        tokens = _tokens(line)
        for place, token in enumerate(tokens):
            if token == "icltool":
                rest = tokens[place + 1 :]
                end = next((i for i, other in enumerate(rest) if other[:1] in _OPERATORS), len(rest))
                yield rest[:end]


def _tokens(line: str) -> list[str]:
    """Words, and operators apart; quoted operators are in their words."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|<>&;")
    lexer.whitespace_split = True
    return list(lexer)
