"""Loads plugins from entry points, each in isolation: a plugin that fails is reported and never stops icltool."""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Iterable, Iterator
from typing import Any

import pluggy

from icltool.errors import closest
from icltool.plugin import hookspecs
from icltool.plugin.registration import KINDS, Registration
from icltool.plugin.registry import Broken, RegisteredComponent, Registry
from icltool.releases import __version__

GROUP = "icltool"


class Plugins:
    """The plugins of this process: `manager` holds those that load, `broken` describes the others.

    `owners` maps a plugin's key in the manager to (entry point's name, distribution, version).
    """

    def __init__(self) -> None:
        from icltool.plugin import builtins

        self.manager = pluggy.PluginManager("icltool")
        self.manager.add_hookspecs(hookspecs)
        self.owners: dict[str, tuple[str, str, str]] = {}
        self.broken: list[Broken] = []
        self._register("builtins", builtins, "icltool", __version__)
        for entry, distribution, version in self._entries():
            try:
                plugin = entry.load()
            except (Exception, SystemExit) as error:  # a third party's code: anything may happen
                self.broken.append(Broken(entry.name, distribution, version, _reason(error)))
            else:
                self._register(entry.name, plugin, distribution, version)

    def _register(self, name: str, plugin: object, distribution: str, version: str) -> None:
        key = f"{distribution}:{name}"
        known = self.manager.get_name(plugin)
        if known is not None:
            _, other, _ = self.owners[known]
            self.broken.append(Broken(name, distribution, version, f"its plugin is already registered by {other}"))
            return
        self.owners[key] = (name, distribution, version)
        try:
            self.manager.register(plugin, name=key)
        except Exception as error:  # a hook that does not fit its specification leaves the plugin half registered
            if self.manager.is_registered(plugin):
                self.manager.unregister(plugin)
            self.broken.append(Broken(name, distribution, version, _reason(error)))
            return
        callers = self.manager.get_hookcallers(plugin) or []
        self.broken += [
            Broken(name, distribution, version, _unknown_hook(caller.name))
            for caller in callers
            if not caller.has_spec()
        ]
        if not callers:
            self.broken.append(
                Broken(name, distribution, version, "it implements no hook (functions marked with icltool.hookimpl)")
            )

    def _entries(self) -> Iterator[tuple[importlib.metadata.EntryPoint, str, str]]:
        """(entry point, distribution, version) of our group. Of a distribution that is on the path twice, the
        first counts, as for imports."""
        seen: set[str] = set()
        for distribution in importlib.metadata.distributions():
            name = version = "?"
            try:
                entries = [entry for entry in distribution.entry_points if entry.group == GROUP]
                if not entries:
                    continue
                metadata = distribution.metadata
                name, version = metadata["Name"] or "?", metadata["Version"] or "?"
            except Exception as error:  # metadata that cannot be parsed
                self.broken.append(
                    Broken(_folder(distribution), name, version, f"unreadable metadata: {_reason(error)}")
                )
                continue
            if name == "?":
                name = _folder(distribution)
            if name.lower() not in seen:
                seen.add(name.lower())
                yield from ((entry, name, version) for entry in entries)


@functools.cache
def load_registry() -> Registry:
    """The registry of this process, built once."""
    plugins = Plugins()
    components: list[RegisteredComponent] = []
    for kind in KINDS:
        for implementation in getattr(plugins.manager.hook, f"icltool_{kind}").get_hookimpls():
            name, distribution, version = plugins.owners[implementation.plugin_name]
            try:
                registrations = _registrations(kind, implementation.function())
            except (Exception, SystemExit) as error:
                plugins.broken.append(Broken(name, distribution, version, _reason(error), kind))
            else:
                components += [
                    RegisteredComponent(kind, registration, distribution, version) for registration in registrations
                ]
    return Registry(components, plugins.broken)


def component(kind: str, name: str, /, **options: object) -> Any:
    """Builds the component `name` of `kind`; see Registry.create."""
    return load_registry().create(kind, name, **options)


def _registrations(kind: str, answer: object) -> list[Registration]:
    """What a hook returned, as a list. Raises TypeError for anything but an iterable of Registration objects."""
    requirement = f"icltool_{kind} must return a list of Registration objects"
    if not isinstance(answer, Iterable):
        raise TypeError(f"{requirement}, got {type(answer).__name__}")
    registrations = list(answer)
    for item in registrations:
        if not isinstance(item, Registration):
            raise TypeError(f"{requirement}, got one with {type(item).__name__}")
    return registrations


def _unknown_hook(name: str) -> str:
    close = closest(name, [f"icltool_{kind}" for kind in KINDS])
    return f"icltool has no hook {name!r}" + (f"; did you mean {close!r}?" if close else "")


def _reason(error: BaseException) -> str:
    """One line: the kind of error and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _folder(distribution: importlib.metadata.Distribution) -> str:
    """The name of the folder with a distribution's metadata, for one whose name cannot be read."""
    return getattr(getattr(distribution, "_path", None), "name", "?")
