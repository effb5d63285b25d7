"""The registry: which components there are, from which distribution, and how to build one."""

from __future__ import annotations

import difflib
import importlib
from dataclasses import dataclass
from typing import Any

from icltool.errors import ConfigError, IclError, PluginError
from icltool.plugin.registration import KINDS, Registration

SINGULAR = {kind: kind[:-1] for kind in KINDS} | {"retrievers": "retrieval method"}


@dataclass(frozen=True)
class Found:
    """One registered component and where it comes from."""

    kind: str
    registration: Registration
    distribution: str
    version: str

    @property
    def name(self) -> str:
        return self.registration.name


@dataclass(frozen=True)
class Broken:
    """A plugin, or one of its hooks, that failed; the rest of icltool goes on without it."""

    name: str
    distribution: str
    version: str
    error: str


class Registry:
    """Components by kind and name. Built by `icltool.plugin.manager.load_registry`."""

    def __init__(self, found: list[Found], broken: list[Broken]) -> None:
        self.broken = broken
        self.found = found
        self._by_name: dict[tuple[str, str], list[Found]] = {}
        for item in found:
            self._by_name.setdefault((item.kind, item.name), []).append(item)

    def names(self, kind: str) -> list[str]:
        return sorted(name for k, name in self._by_name if k == kind)

    def get(self, kind: str, name: str) -> Found:
        """The component of this name. PluginError for an unknown name (with a suggestion) or one that two claim."""
        items = self._by_name.get((kind, name), [])
        if len(items) > 1:
            owners = " and ".join(f"{i.distribution} {i.version}" for i in items)
            raise PluginError(f"{SINGULAR[kind]} {name!r} is registered by {owners}", "uninstall one of them")
        if not items:
            raise PluginError(f"unknown {SINGULAR[kind]} {name!r}", self._suggestion(kind, name))
        return items[0]

    def load(self, kind: str, name: str) -> Any:
        """Imports and returns the component's class or factory. PluginError when the import fails."""
        item = self.get(kind, name)
        module_name, _, attribute = item.registration.target.partition(":")
        try:
            return getattr(importlib.import_module(module_name), attribute)
        except IclError:
            raise
        except Exception as error:
            raise PluginError(
                f"{SINGULAR[kind]} {name!r} of {item.distribution} {item.version} cannot be loaded: "
                f"{type(error).__name__}: {error}",
                "see `icltool plugins list`; reinstall or update that distribution",
            ) from error

    def create(self, kind: str, name: str, **options: Any) -> Any:
        """Builds the component: its registration's options, then `options` on top.

        Raises PluginError as `load` does, and ConfigError when the component knows no such option.
        """
        factory = self.load(kind, name)
        bound = {**self.get(kind, name).registration.options, **options}
        try:
            return factory(**bound)
        except TypeError as error:
            if error.__traceback__ is not None and error.__traceback__.tb_next is None:  # the call itself did not fit
                raise ConfigError(f"{SINGULAR[kind]} {name!r}: {error}", "check the option's name") from error
            raise

    def _suggestion(self, kind: str, name: str) -> str:
        names = self.names(kind)
        close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        start = f"did you mean {close[0]!r}? " if close else ""
        broken = f"; broken plugins: {', '.join(b.name for b in self.broken)}" if self.broken else ""
        return f"{start}known: {', '.join(names)}{broken}"
