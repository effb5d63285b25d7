"""Loads plugins from entry points, each in isolation: one that fails is reported, never fatal."""

from __future__ import annotations

import functools
import importlib.metadata
from typing import Any

import pluggy

from icltool.plugin import hookspecs
from icltool.plugin.registration import KINDS, Registration
from icltool.plugin.registry import Broken, Found, Registry

GROUP = "icltool"


def build_manager() -> tuple[pluggy.PluginManager, dict[str, tuple[str, str]], list[Broken]]:
    """(manager with all plugins registered, plugin name -> (distribution, version), plugins that would not import)."""
    from icltool.plugin import builtins

    manager = pluggy.PluginManager("icltool")
    manager.add_hookspecs(hookspecs)
    owners = {"builtins": ("icltool", _own_version())}
    broken: list[Broken] = []
    manager.register(builtins, name="builtins")
    seen: set[tuple[str, str]] = set()
    for distribution in importlib.metadata.distributions():
        for entry in distribution.entry_points:
            if entry.group != GROUP or (entry.name, entry.value) in seen:
                continue
            seen.add((entry.name, entry.value))
            owner = (distribution.metadata["Name"] or "?", distribution.version)
            key = f"{owner[0]}:{entry.name}"
            try:
                manager.register(entry.load(), name=key)
            except Exception as error:  # a third party's code: anything may happen
                broken.append(Broken(entry.name, *owner, f"{type(error).__name__}: {error}"))
            else:
                owners[key] = owner
    return manager, owners, broken


@functools.cache
def load_registry() -> Registry:
    """The registry of this process, built once."""
    manager, owners, broken = build_manager()
    found: list[Found] = []
    for kind in KINDS:
        for implementation in getattr(manager.hook, f"icltool_{kind}").get_hookimpls():
            owner = owners[implementation.plugin_name]
            try:
                registrations = list(implementation.function())
                if not all(isinstance(r, Registration) for r in registrations):
                    raise TypeError(f"icltool_{kind} must return Registration objects")
            except Exception as error:
                broken.append(Broken(implementation.plugin_name, *owner, f"{type(error).__name__}: {error}"))
            else:
                found += [Found(kind, r, *owner) for r in registrations]
    return Registry(found, broken)


def component(kind: str, name: str, **options: Any) -> Any:
    """Builds the component `name` of `kind`; see Registry.create."""
    return load_registry().create(kind, name, **options)


def _own_version() -> str:
    from icltool import __version__

    return __version__
