"""The registry as `icltool plugins` shows it."""

from __future__ import annotations

import inspect
from collections import Counter
from dataclasses import dataclass, field, replace
from importlib.resources import files

from icltool.contracts.dataset import HasSource, Source
from icltool.contracts.options import Option, options_of
from icltool.errors import ConfigError, PluginError, suggestion
from icltool.plugin import KINDS
from icltool.plugin.manager import load_registry


def kind_named(text: str) -> str:
    """The kind of this name, singular or plural. ConfigError with a suggestion for any other."""
    for candidate in (text, f"{text}s"):
        if candidate in KINDS:
            return candidate
    raise ConfigError(f"unknown kind of component {text!r}", suggestion(text, KINDS))


def listing(kind: str | None = None) -> list[dict[str, str]]:
    """One row per component, then one per broken plugin: kind, name, distribution, version, status, summary.

    Status is "ok", "duplicate: …" (with the distributions that claim the name), or "broken: …" with the error.
    """
    registry = load_registry()
    claims = Counter((item.kind, item.name) for item in registry.components)
    rows = []
    for item in sorted(registry.components, key=lambda i: (KINDS.index(i.kind), i.name)):
        owners = [i.distribution for i in registry.components if (i.kind, i.name) == (item.kind, item.name)]
        twice = claims[item.kind, item.name] > 1
        status = f"duplicate: {' and '.join(owners)}" if twice else "ok"
        rows.append(_row(item.kind, item.name, item.distribution, item.version, status, item.registration.summary))
    rows = [row for row in rows if kind in (None, row["kind"])]
    # What a broken plugin would have registered is not known, so it is listed under every kind.
    return rows + [
        _row("plugin", b.name, b.distribution, b.version, f"broken: {' '.join(b.error.split())}", "")
        for b in registry.broken
    ]


@dataclass(frozen=True)
class Description:
    """One component as `icltool plugins show` prints it."""

    kind: str
    name: str
    summary: str
    distribution: str
    version: str
    target: str
    status: str = "ok"
    options: list[Option] = field(default_factory=list)
    documentation: str = ""
    source: Source | None = None


def describe(kind: str, name: str) -> Description:
    """Everything about one component. PluginError for an unknown name.

    A component whose module cannot be imported is described all the same; its status holds the error.
    """
    registry = load_registry()
    item = registry.get(kind, name)
    registration = item.registration
    component = Description(kind, name, registration.summary, item.distribution, item.version, registration.target)
    try:
        factory = registry.load(kind, name)
    except PluginError as error:
        return replace(component, status=f"broken: {error.message}")
    if kind == "tasks" and {"package", "file"} <= set(registration.options):
        package, file = str(registration.options["package"]), str(registration.options["file"])
        return replace(component, documentation=(files(package) / file).read_text("utf-8"))
    documentation = inspect.getdoc(factory) or ""
    return replace(
        component,
        options=options_of(factory, registration.options),
        documentation=documentation,
        source=factory.source if isinstance(factory, HasSource) else None,
    )


def _row(kind: str, name: str, distribution: str, version: str, status: str, summary: str) -> dict[str, str]:
    return {
        "kind": kind,
        "name": name,
        "distribution": distribution,
        "version": version,
        "status": status,
        "summary": summary,
    }
