"""What the shell offers behind an option: component names from the registry, choices, profiles."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from icltool.config.profiles import ProfileFolders
from icltool.plugin import KINDS

Completer = Callable[[str], list[tuple[str, str]]]


def complete_components(kinds: str, many: bool = False) -> Completer:
    """Names of the components of a kind ("models" …), or of several with commas between, each with its summary."""

    def complete(incomplete: str) -> list[tuple[str, str]]:
        from icltool.plugin.manager import load_registry

        components = [item for item in load_registry().components if item.kind in kinds.split(",")]
        summaries = {item.name: item.registration.summary for item in components}
        return _matching(sorted(summaries.items()), incomplete, many)

    return complete


def complete_choices(choices: Iterable[str], many: bool = False) -> Completer:
    """A fixed set of words."""
    entries = [(choice, "") for choice in choices]

    def complete(incomplete: str) -> list[tuple[str, str]]:
        return _matching(entries, incomplete, many)

    return complete


def complete_profiles(incomplete: str) -> list[tuple[str, str]]:
    """Names of the profiles in ./profiles and of those that come with icltool."""
    return _matching([(name, "") for name in ProfileFolders().names()], incomplete, many=False)


def complete_kinds(incomplete: str) -> list[tuple[str, str]]:
    """Kinds of components."""
    return _matching([(kind, "") for kind in KINDS], incomplete, many=False)


def _matching(entries: Iterable[tuple[str, str]], incomplete: str, many: bool) -> list[tuple[str, str]]:
    """Entries that begin as typed; in a comma list only the part behind the last comma counts."""
    before, comma, last = incomplete.rpartition(",") if many else ("", "", incomplete)
    return [(before + comma + name, summary) for name, summary in entries if name.startswith(last)]
