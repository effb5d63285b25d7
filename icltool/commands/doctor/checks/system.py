"""The machine: processors, limits, memory, disk, and how texts are written."""

from __future__ import annotations

import locale
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from icltool.commands.doctor.checks.rows import Row, collected, row
from icltool.config.amounts import size_text
from icltool.engine.devices import usable_cores

_CGROUPS = Path("/sys/fs/cgroup")
#: What kernels write in place of "no limit": more than any machine has.
_NO_LIMIT = 1 << 60


def system() -> list[Row]:
    """The processor and how many of its cores may be used, limits of the process, and how texts are encoded."""
    total, usable, quota = os.cpu_count() or 0, usable_cores(), cpu_quota()
    named = re.search(r"^(?:Model name|Name): *(.*\S)", collected("cpu_info"), re.MULTILINE)
    name = named[1] if named else platform.processor() or platform.machine()
    text = f"{name}, {total} cores"
    text += f", {usable} of them usable" if usable != total else ""
    text += f", the time of {quota:g} of them allowed" if quota is not None else ""
    rows = [row("processor", text, data={"name": name, "cores": total, "usable": usable, "quota": quota})]
    if sys.platform != "win32":
        import resource

        files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        few = files < 1024 and files != resource.RLIM_INFINITY
        note = "raise it with ulimit -n: data loaders and Ray open many files" if few else ""
        rows.append(row("open files", f"{files} (at most {most})", "problem" if few else "ok", note))
    container = next((p for p in ("/.dockerenv", "/run/.containerenv") if Path(p).exists()), "")
    rows.append(row("container", "yes" if container else "no sign of one", "-"))
    names = {
        "file names": sys.getfilesystemencoding(),
        "texts": locale.getpreferredencoding(False),
        "output": str(sys.__stdout__.encoding if sys.__stdout__ is not None else "none"),
        "locale": ".".join(filter(None, locale.getlocale())) or "C",
    }
    odd = [name for name in ("file names", "texts", "output") if names[name].lower().replace("-", "") != "utf8"]
    note = f"{' and '.join(odd)} are not UTF-8: set PYTHONUTF8=1" if odd else ""
    rows.append(
        row("encodings", ", ".join(f"{k} {v}" for k, v in names.items()), "problem" if odd else "ok", note, names)
    )
    kind = "a terminal" if sys.stdin is not None and sys.stdin.isatty() else "no terminal"
    size = shutil.get_terminal_size()
    rows.append(row("terminal", f"{kind}, TERM={os.environ.get('TERM', '')}, {size.columns} columns", "-"))
    return rows


def cpu_quota() -> float | None:
    """Cores whose time the control group of this process may use together (cgroup v2 and v1); None for all."""
    quotas = []
    for folder in _groups("cpu"):
        both = _numbers(folder / "cpu.max") or [
            *_numbers(folder / "cpu.cfs_quota_us"),
            *_numbers(folder / "cpu.cfs_period_us"),
        ]
        if len(both) == 2 and both[0] > 0 and both[1] > 0:
            quotas.append(both[0] / both[1])
    return min(quotas, default=None)


def memory_limit() -> int | None:
    """Bytes that the control group of this process may use; None for all there are."""
    names = ("memory.max", "memory.limit_in_bytes")
    limits = [n for f in _groups("memory") for name in names for n in _numbers(f / name) if 0 < n < _NO_LIMIT]
    return min(limits, default=None)


def _groups(controller: str) -> Iterator[Path]:
    """The folders of this process' control group and those around it."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controllers and controller not in controllers.split(","):
            continue
        root = _CGROUPS / controller if controllers else _CGROUPS
        folder = root / path.lstrip("/")
        while folder != root and root in folder.parents:
            yield folder
            folder = folder.parent
        yield root


def _numbers(file: Path) -> list[int]:
    """The whole numbers in a file; nothing where it is missing or says "max"."""
    try:
        return [int(word) for word in file.read_text().split()]
    except (OSError, ValueError):
        return []


def memory(workspace: Path) -> list[Row]:
    """Main memory and what of it may be used, shared memory, and the disk that the workspace lies on."""
    import psutil

    main, swap, limit = psutil.virtual_memory(), psutil.swap_memory(), memory_limit()
    data = {"total": main.total, "available": main.available, "swap": swap.total, "limit": limit}
    rows = [row("memory", f"{size_text(main.available)} free of {size_text(main.total)}", data=data)]
    if limit is not None and limit < main.total:
        rows.append(
            row("memory limit", f"{size_text(limit)}: the control group allows no more", "-", data={"limit": limit})
        )
    shared = Path("/dev/shm")
    if shared.is_dir():
        usage = shutil.disk_usage(shared)
        small = usage.total < 1 << 30
        note = "small for data loaders and Ray; containers: --shm-size=8g" if small else ""
        text = f"{size_text(usage.free)} free of {size_text(usage.total)}"
        rows.append(row("shared memory", text, "-", note, {"total": usage.total, "free": usage.free}))
    folder = next(f for f in (workspace.absolute(), *workspace.absolute().parents) if f.exists())
    disk = shutil.disk_usage(folder)
    low = disk.free < 1 << 30
    text = f"{size_text(disk.free)} free of {size_text(disk.total)} ({folder})"
    low_note = "less than 1 GB is left; `icltool clean` lists what can be removed" if low else ""
    rows.append(
        row(
            "disk of the workspace",
            text,
            "problem" if low else "ok",
            low_note,
            {"free": disk.free, "total": disk.total},
        )
    )
    writable = os.access(folder, os.W_OK)
    note = "" if writable else "choose another one with --workspace"
    return [*rows, row("workspace writable", "yes" if writable else "no", "ok" if writable else "problem", note)]
