"""What torch can compute on, and the drivers behind it."""

from __future__ import annotations

import csv
import os
import platform
import shutil
import subprocess
from typing import Any

from icltool.commands.doctor.checks.rows import Row, row
from icltool.commands.doctor.checks.system import cpu_quota, usable_cores
from icltool.config.amounts import size_text

_QUERY = "index,name,memory.total,driver_version,compute_cap"


def devices() -> list[Row]:
    """CPU cores and GPUs, torch's builds of CUDA, cuDNN and NCCL, and the driver."""
    rows = [row("cpu", f"{os.cpu_count()} cores, {platform.machine()}")]
    driver = nvidia_gpus()
    try:
        import torch
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
        return [*rows, row("torch", problem, "problem", "reinstall torch: https://pytorch.org"), *_driver_rows(driver)]
    threads = torch.get_num_threads()
    rows[0]["value"] += f", torch uses {threads} threads"
    rows[0]["data"] = {"threads": threads, "interop_threads": torch.get_num_interop_threads()}
    usable = min(usable_cores(), cpu_quota() or usable_cores())
    if threads > max(1, usable):
        rows[0] |= {
            "status": "problem",
            "note": f"only {usable:g} cores may be used: set OMP_NUM_THREADS={max(1, int(usable))}",
        }
    rows.append(row("torch", torch.__version__, data={"cuda": torch.version.cuda, "hip": torch.version.hip}))
    if torch.cuda.is_available():
        rows += _cuda(torch)
    elif driver and torch.version.cuda is None:
        rows.append(
            row("cuda", "torch was built without CUDA", "problem", "install torch for CUDA: https://pytorch.org")
        )
    elif driver:
        told = f"torch for CUDA {torch.version.cuda} finds no device, the driver {driver[0]['driver']} does"
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        note = f"CUDA_VISIBLE_DEVICES is {hidden!r}" if hidden is not None else "is the driver new enough for it?"
        rows.append(row("cuda", told, "-" if hidden is not None else "problem", note))
    else:
        rows.append(row("cuda", "no device" if torch.version.cuda else "torch was built without CUDA", "-"))
    if torch.backends.mps.is_available():
        rows.append(row("mps", "Apple GPU, shares the main memory"))
    return [*rows, *_driver_rows(driver)]


def _cuda(torch: Any) -> list[Row]:
    """What is known of CUDA where there is a device."""
    rows = []
    nccl = (
        torch.cuda.nccl.version() if torch.distributed.is_available() and torch.distributed.is_nccl_available() else ()
    )
    built = {
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "nccl": ".".join(map(str, nccl)),
        "architectures": torch.cuda.get_arch_list(),
    }
    rows.append(row("cuda", f"{built['cuda']}, cuDNN {built['cudnn']}, NCCL {built['nccl'] or 'none'}", data=built))
    for index in range(torch.cuda.device_count()):
        try:
            rows.append(_gpu(torch, index))
        except RuntimeError as error:  # a GPU that has fallen off the bus, or is used by others alone
            rows.append(row(f"cuda:{index}", str(error).splitlines()[0], "problem", "see nvidia-smi"))
    return rows


def _gpu(torch: Any, index: int) -> Row:
    free, total = torch.cuda.mem_get_info(index)
    name, capability = torch.cuda.get_device_name(index), ".".join(map(str, torch.cuda.get_device_capability(index)))
    data = {"name": name, "total": total, "free": free, "compute_capability": capability}
    data["bfloat16"] = bool(torch.cuda.is_bf16_supported())
    told = f"{name}, {size_text(free)} free of {size_text(total)}, compute capability {capability}"
    return row(f"cuda:{index}", told, data=data)


def _driver_rows(found: list[dict[str, str]]) -> list[Row]:
    if not found:
        return []
    names = ", ".join(f"{gpu['index']}: {gpu['name']} ({gpu['memory']})" for gpu in found)
    return [row("NVIDIA driver", f"{found[0]['driver']} sees {names}", data={"gpus": found})]


def nvidia_gpus() -> list[dict[str, str]]:
    """What the driver's own program says of each GPU: index, name, memory, driver, compute capability. Nothing without it."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, f"--query-gpu={_QUERY}", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return []
    return parse_gpus(answer.stdout) if answer.returncode == 0 else []


def parse_gpus(text: str) -> list[dict[str, str]]:
    """The lines of nvidia-smi as mappings; lines of another shape are passed over."""
    keys = ("index", "name", "memory", "driver", "compute_capability")
    lines = csv.reader(text.splitlines(), skipinitialspace=True)
    return [dict(zip(keys, line, strict=True)) for line in lines if len(line) == len(keys)]
