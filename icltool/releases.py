"""icltool's own release, and those of other packages that it is tested with: the one place that names them.

On the newest the whole default suite ran, on the lowest the tests of engine, learners and some models. The lower end is the
lower bound in pyproject.toml. Outside of the range `icltool doctor` says so, and for `DECISIVE`
packages, which compute what a model says, a model's caches are checked when it is loaded (`icltool.engine.parity`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

__version__ = "0.1.0"

#: Distribution -> (lowest, newest).
TESTED: dict[str, tuple[str, str]] = {
    "torch": ("2.11.0", "2.14.1"),
    "torchvision": ("0.26.0", "0.29.1"),
    "transformers": ("5.17.0", "5.24.0"),
}
DECISIVE = ("transformers", "torch")


def untested(versions: Mapping[str, str] | None = None) -> dict[str, str]:
    """What is installed outside of its tested range: distribution -> release. `versions` replaces what is installed."""
    installed = {}
    for name, (lowest, newest) in TESTED.items():
        version = _installed(name) if versions is None else versions.get(name)
        if version is not None and not _key(lowest) <= _key(version) <= _key(newest):
            installed[name] = version
    return installed


def tested_range(name: str) -> str:
    """In words: "5.17.0 to 5.24.0"."""
    return " to ".join(TESTED[name])


def _key(version: str) -> tuple[int, ...]:
    """The numbers of a release: a patch release counts, what follows ("rc1", "+cu128", ".dev0") does not."""
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in match.group().split(".")) if match else ()


def _installed(name: str) -> str | None:
    import importlib.metadata  # takes half as long to import as all else that `icltool --help` needs

    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
