"""The topics of the manual: the Markdown files of `icltool/guide`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from icltool.errors import ConfigError, suggestion

FOLDER = Path(__file__).resolve().parents[2] / "guide"
#: The order in which to read them.
ORDER = (
    "start", "own-data", "concepts", "data-sets", "benchmarks", "models", "prompts", "methods", "lever-lm", "live",
    "captioners", "report", "several-machines", "speed", "plugins", "python", "migrating-lever-lm", "migrating-live",
    "migrating-captioners", "world", "reference",
)  # fmt: skip

_LINK = re.compile(r"\[([^\]]+)\]\(([\w-]+)\.md(?:#[^)]*)?\)")
_LINK_WITHIN = re.compile(r"\[([^\]]+)\]\(#[^)]*\)")
_FIRST_SENTENCE = re.compile(r".*?[.!?](?=\s|$)")


@dataclass(frozen=True)
class Topic:
    """A page of the manual: its name, its text, and its title and first sentence."""

    name: str
    text: str

    @property
    def title(self) -> str:
        return self.text.partition("\n")[0].removeprefix("# ").strip()

    @property
    def first_sentence(self) -> str:
        """Without Markdown's marks; "" for a page without a paragraph under its title."""
        _, _, below = self.text.partition("\n")
        paragraph = " ".join(below.strip().partition("\n\n")[0].split())
        plain = re.sub(r"[`*]", "", _LINK.sub(r"\1", paragraph))
        sentence = _FIRST_SENTENCE.match(plain)
        return sentence[0] if sentence else plain

    def for_terminal(self) -> str:
        """The text with links between topics written as the commands that show them, and links within it as
        quoted headings."""
        return _LINK.sub(_as_command, _LINK_WITHIN.sub(r'"\1"', self.text))


def names() -> list[str]:
    """The names of all topics, in reading order."""
    return sorted((path.stem for path in FOLDER.glob("*.md")), key=_place)


def topics() -> list[Topic]:
    """All topics, in reading order."""
    return [_read(name) for name in names()]


def topic(name: str) -> Topic:
    """The topic of this name. ConfigError with a suggestion when there is none."""
    known = names()
    if name not in known:
        raise ConfigError(f"unknown topic {name!r}", suggestion(name, known))
    return _read(name)


def _read(name: str) -> Topic:
    return Topic(name, (FOLDER / f"{name}.md").read_text(encoding="utf-8"))


def _place(name: str) -> tuple[int, str]:
    return (ORDER.index(name) if name in ORDER else len(ORDER), name)


def _as_command(link: re.Match[str]) -> str:
    text, name = link.groups()
    command = f"`icltool guide {name}`"
    return command if text in (name, f"`{name}`") else f"{text} ({command})"
