"""Throw-away distributions: folders with a module and its installed metadata, put on the path of another process."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from icltool.plugin.manager import load_registry
from tests.processes import Child

CHECKOUT = Path(__file__).parents[2]

#: Options of a pytest inside another.
OWN = ("-q", "-rs", "-n", "0", "-p", "no:cacheprovider")
IMPORTS = "import json, sys\nfrom icltool.plugin.manager import load_registry"

HOOKS = """
from icltool import Registration, hookimpl

@hookimpl
def icltool_samplers():
    return [{registrations}]
"""


def registering(*names: str, target: str = "icltool.components.samplers.random:RandomSampler") -> str:
    """Source of a plugin that registers samplers of these names."""
    lines = ", ".join(f"Registration({name!r}, {target!r}, 'from a test')" for name in names)
    return HOOKS.format(registrations=lines)


def distribution(
    folder: Path, name: str, source: str, *, version: str = "1.0", entries: Mapping[str, str] | None = None
) -> Path:
    """Writes the distribution `name` with a module of its name and returns the folder to put on the path.

    Its entry points are `entries`, by default one named as the module.
    """
    module = name.replace("-", "_")
    root = folder / f"{module}-{version}"
    root.mkdir(parents=True)
    (root / f"{module}.py").write_text(source)
    info = root / f"{module}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = [f"{key} = {value}" for key, value in (entries or {module: module}).items()]
    (info / "entry_points.txt").write_text("\n".join(["[icltool]", *lines, ""]))
    return root


def ask(code: str, *paths: Path) -> Any:
    """Runs `code` where `paths` are on the path and no plugin is loaded yet, and returns what it put into `answer`."""

    def work() -> None:
        put_first(paths)
        scope: dict[str, Any] = {}
        exec(f"{IMPORTS}\n{code}", scope)
        print(json.dumps(scope["answer"]))

    with Child(work) as child:
        assert child.wait() == 0, child.err
    return json.loads(child.out.splitlines()[-1])


def ask_anew(code: str, *paths: Path) -> Any:
    """The same in a new interpreter, in which nothing is imported yet."""
    done = subprocess.run(
        [sys.executable, "-c", f"{IMPORTS}\n{code}\nprint(json.dumps(answer))"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": joined(paths)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def put_first(paths: Iterable[Path]) -> None:
    """On the path of this process and of those that it starts; plugins are looked for again."""
    sys.path[:0] = map(str, paths)
    os.environ["PYTHONPATH"] = joined(paths)
    load_registry.cache_clear()


def joined(paths: Iterable[Path]) -> str:
    return os.pathsep.join(map(str, [*paths, CHECKOUT]))


#: Code for `ask`: what the registry found beside the built-ins and this project's own plugins, which may be installed, and
#: what is broken.
SURVEY = """
registry = load_registry()
own = ("icltool", "icltool-ofa", "icltool-openflamingo")
answer = {
    "found": [[f.kind, f.name, f.distribution, f.version] for f in registry.components if f.distribution not in own],
    "broken": [[b.name, b.distribution, b.version, b.kind, b.error] for b in registry.broken],
    "builtins": len([f for f in registry.components if f.distribution == "icltool"]),
    "random": type(registry.create("samplers", "random")).__name__,
}
"""

#: Code for `ask`: the error of selecting a sampler, as [kind of error, message, hint].
SELECT = """
from icltool.errors import IclError
try:
    load_registry().create("samplers", {name!r}, **{options!r})
    answer = None
except IclError as error:
    answer = [type(error).__name__, error.message, error.hint or ""]
"""


def select(name: str, *paths: Path, **options: Any) -> Any:
    """[kind of error, message, hint] of building the sampler `name`; None when it works."""
    return ask(SELECT.format(name=name, options=options), *paths)


def plugin_metadata(source: Path, folder: Path) -> Path:
    """What an installation of one of this project's plugins leaves beside the package, written into `folder` from its
    pyproject.toml."""
    name = source.name.replace("-", "_")
    entry = re.search(
        r"^\[project\.entry-points\.icltool\]\n(.*)", (source / "pyproject.toml").read_text(), flags=re.MULTILINE
    )
    assert entry is not None
    info = folder / f"{name}-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {source.name}\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("[icltool]\n" + entry.group(1).replace('"', "") + "\n")
    return folder


def own_tests(folder: Path, *paths: Path) -> str:
    """What pytest says of the tests in `folder / "tests"`, with `paths` on the path. AssertionError where one fails."""

    def work() -> int:
        put_first(paths)
        os.chdir(folder)
        for name in [name for name in sys.modules if name.startswith("test_") or name == "conftest"]:
            del sys.modules[name]  # of another folder of tests
        return int(pytest.main([*OWN, "--rootdir", str(folder), "tests"]))

    with Child(work) as child:
        assert child.wait() == 0, child.out + child.err
    return child.out


def own_tests_anew(source: Path) -> str:
    """The same of a plugin's checkout, in a new interpreter."""
    run = [sys.executable, "-m", "pytest", *OWN, "--rootdir", str(source), "tests"]
    environment = {**os.environ, "PYTHONPATH": joined([source])}
    done = subprocess.run(run, capture_output=True, text=True, env=environment, cwd=source, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def installed(name: str) -> bool:
    """Whether a distribution of this name is there. A module that is imported already says nothing of it."""
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


@contextmanager
def ofa_registered(folder: Path) -> Iterator[Path]:
    """Within it icltool-ofa can be imported and its models are registered in this process, installed or not; its checkout.
    `folder` is an empty one."""
    plugin = CHECKOUT / "plugins" / "icltool-ofa"
    with pytest.MonkeyPatch.context() as patch:
        if not installed(plugin.name):
            patch.syspath_prepend(str(plugin))
            patch.syspath_prepend(str(plugin_metadata(plugin, folder)))
            load_registry.cache_clear()
        yield plugin
    load_registry.cache_clear()
