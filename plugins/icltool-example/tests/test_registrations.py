"""The installed package is found through its entry point."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys

from icltool_example import plugin


def test_the_entry_point_names_the_plugin() -> None:
    (entry,) = [e for e in importlib.metadata.entry_points(group="icltool") if e.name == "example"]
    assert entry.load() is plugin


def test_every_registered_component_exists() -> None:
    hooks = [getattr(plugin, name) for name in dir(plugin) if name.startswith("icltool_")]
    assert len(hooks) == 8
    for hook in hooks:
        for registration in hook():
            module, _, name = registration.target.partition(":")
            assert hasattr(__import__(module, fromlist=[name]), name)


def test_listing_imports_no_component() -> None:
    code = (
        "import sys, icltool_example.plugin as p; [getattr(p, n)() for n in dir(p) if n.startswith('icltool_')]; "
        "print(sorted({'numpy', 'torch', 'PIL', 'typer', 'icltool_example.farthest'} & set(sys.modules)))"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "[]"
