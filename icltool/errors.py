"""The errors a user can mend, and the near misses that their hints name. Each prints as one line and a hint; anything else
that escapes is a bug."""

from __future__ import annotations

from collections.abc import Iterable


class IclError(Exception):
    """Something the user can put right.

    `message` is one line that names the file, option or component at fault; `hint` says the way out.
    """

    exit_code = 2

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message} ({self.hint})"


class IclWarning(UserWarning):
    """What a component noticed that its user should know, and that stops nothing: one line, which the commands print."""


class ConfigError(IclError):
    """An option, profile or configuration value is wrong."""


class MissingWeightsError(ConfigError):
    """The weights of a model are not on this machine; `hub_id` names the repository that has them."""

    def __init__(self, message: str, hint: str | None = None, hub_id: str = "") -> None:
        super().__init__(message, hint)
        self.hub_id = hub_id


class DataError(IclError):
    """A data set's files are missing, malformed or do not fit together."""


class OtherTaskError(DataError):
    """The files are not of the kind that this task needs. Where a data set serves several tasks, the faults of another one say
    more."""


class PluginError(IclError):
    """A component is unknown, broken or registered twice."""


class StoreError(IclError):
    """An artefact in the workspace is missing, unreadable, locked, or belongs to something else."""


class OtherVersionError(StoreError):
    """An artefact has a schema version that this icltool does not read."""


#: How alike two names are at least, of 1, for one to be suggested: two mistyped letters of six are enough.
_LIKENESS = 0.65


def closest(wrong: str, known: Iterable[str]) -> str | None:
    """The known name that is most like the wrong one, else the first that begins with it; None if there is no such name."""
    import difflib  # takes a tenth of the time of `icltool --help`

    names = list(known)
    beginning = (name for name in names if len(wrong) > 1 and name.startswith(wrong))
    return next(iter(difflib.get_close_matches(wrong, names, n=1, cutoff=_LIKENESS)), next(beginning, None))


#: The most names that a suggestion repeats.
_LISTED = 20


def suggestion(wrong: str, known: Iterable[str]) -> str:
    """A hint for a mistyped name: "did you mean 'x'? known: …", without the list if it is long."""
    names = list(known)
    close = closest(wrong, names)
    if close is None:
        return f"known: {', '.join(names)}"
    return f"did you mean {close!r}?" + (f" known: {', '.join(names)}" if len(names) <= _LISTED else "")
