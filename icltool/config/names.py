"""Near misses: which name somebody may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def closest(wrong: str, known: Iterable[str]) -> str | None:
    """The known name that is most like the wrong one, or None when none is like it."""
    return next(iter(difflib.get_close_matches(wrong, list(known), n=1, cutoff=0.5)), None)


def suggestion(wrong: str, known: Iterable[str]) -> str:
    """A hint for a mistyped name: "did you mean 'x'? known: …"."""
    names = list(known)
    close = closest(wrong, names)
    start = f"did you mean {close!r}? " if close else ""
    return f"{start}known: {', '.join(names)}"
