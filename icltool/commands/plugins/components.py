"""The registry as `icltool plugins` shows it."""

from __future__ import annotations

import inspect
from collections import Counter
from importlib.resources import files
from typing import Any

from icltool.config.names import suggestion
from icltool.errors import ConfigError, PluginError
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
    claims = Counter((item.kind, item.name) for item in registry.found)
    rows = []
    for item in sorted(registry.found, key=lambda i: (KINDS.index(i.kind), i.name)):
        owners = [i.distribution for i in registry.found if (i.kind, i.name) == (item.kind, item.name)]
        twice = claims[item.kind, item.name] > 1
        status = f"duplicate: {' and '.join(owners)}" if twice else "ok"
        rows.append(_row(item.kind, item.name, item.distribution, item.version, status, item.registration.summary))
    rows = [row for row in rows if kind in (None, row["kind"])]
    # What a broken plugin would have registered is not known, so it is listed under every kind.
    return rows + [
        _row("plugin", b.name, b.distribution, b.version, f"broken: {' '.join(b.error.split())}", "")
        for b in registry.broken
    ]


def describe(kind: str, name: str) -> dict[str, Any]:
    """Everything about one component. PluginError for an unknown name.

    A component whose module cannot be imported is described all the same; its status holds the error.
    """
    registry = load_registry()
    item = registry.get(kind, name)
    found: dict[str, Any] = {
        "kind": kind,
        "name": name,
        "summary": item.registration.summary,
        "distribution": item.distribution,
        "version": item.version,
        "target": item.registration.target,
        "options": dict(item.registration.options),
        "status": "ok",
        "signature": "",
        "documentation": "",
    }
    try:
        factory = registry.load(kind, name)
    except PluginError as error:
        found["status"] = f"broken: {error.message}"
        return found
    if kind == "tasks" and {"package", "file"} <= set(item.registration.options):
        place = item.registration.options
        found["documentation"] = (files(place["package"]) / place["file"]).read_text("utf-8")
        return found
    found["signature"] = f"{getattr(factory, '__name__', name)}{_signature(factory)}"
    found["documentation"] = "\n".join([inspect.getdoc(factory) or "", *_described(factory)])
    return found


def _described(factory: Any) -> list[str]:
    """A line for each option of a class that has a model of them (pydantic) as `option_model`."""
    model = getattr(factory, "option_model", None)
    if model is None:
        return []
    lines = ["", "Options:"]
    for name, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True)
        lines.append(f"  {name} ({'none' if default is None else default}): {field.description or ''}")
    return lines


def _signature(factory: Any) -> str:
    try:
        return str(inspect.signature(factory))
    except (TypeError, ValueError):  # a class written in C says nothing of its arguments
        return "(…)"


def _row(kind: str, name: str, distribution: str, version: str, status: str, summary: str) -> dict[str, str]:
    return {
        "kind": kind,
        "name": name,
        "distribution": distribution,
        "version": version,
        "status": status,
        "summary": summary,
    }
