"""Plugins and profiles: what each distribution gives, and what is broken."""

from __future__ import annotations

import importlib.metadata

from icltool.commands.doctor.checks.rows import Row, row
from icltool.config.profiles import ProfileFolders, load_profile
from icltool.errors import IclError
from icltool.plugin.manager import GROUP, load_registry


def plugins() -> list[Row]:
    """How many components each distribution gives, and which plugins are broken."""
    registry = load_registry()
    components: dict[tuple[str, str], dict[str, list[str]]] = {}
    for item in registry.components:
        components.setdefault((item.distribution, item.version), {}).setdefault(item.kind, []).append(item.name)
    rows = []
    for (distribution, version), kinds in sorted(components.items()):
        data: dict[str, object] = {"version": version, "components": kinds}
        data["entry_points"] = _entry_points(distribution, GROUP)
        count = sum(map(len, kinds.values()))
        rows.append(row(f"{distribution} {version}", f"{count} components", data=data))
    rows += [
        row(
            f"{broken.distribution} {broken.version}",
            f"{broken.name}: {broken.error}",
            "problem",
            "reinstall or update it",
            {"entry_points": _entry_points(broken.distribution, GROUP)},
        )
        for broken in registry.broken
    ]
    names = [(item.kind, item.name) for item in registry.components]
    for kind, name in sorted({pair for pair in names if names.count(pair) > 1}):
        rows.append(row(f"{kind}: {name}", "registered twice", "problem", "uninstall one of the distributions"))
    return rows


def _entry_points(distribution: str, group: str) -> dict[str, str]:
    """Name -> target of what a distribution announces."""
    try:
        entries = importlib.metadata.distribution(distribution).entry_points
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return {}
    return {entry.name: entry.value for entry in entries if entry.group == group}


def profiles() -> list[Row]:
    """The profiles that are known by name; those that cannot be read are problems."""
    names = ProfileFolders().names()
    rows = []
    for name in names:
        try:
            load_profile(name)
        except IclError as error:
            rows.append(row(name, error.message, "problem", error.hint or "correct it, or take it away"))
    known = row("profiles", f"{len(names)} known by name", "ok" if names else "problem", data={"names": names})
    if not names:
        known["note"] = "those that come with icltool are missing: install it again"
    return [known, *rows]
