"""What torch can compute on, and the drivers behind it, as torch's own collectors tell."""

from __future__ import annotations

import os
import platform
import re
from types import ModuleType

from icltool.commands.doctor.checks.rows import Row, collected, row
from icltool.commands.doctor.checks.system import cpu_quota
from icltool.config.amounts import size_text
from icltool.engine.devices import usable_cores


def devices() -> list[Row]:
    """CPU cores and GPUs, how torch was built, and the driver."""
    try:
        import torch
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
        return [_cpu(None), row("torch", problem, "problem", "reinstall torch: https://pytorch.org")]
    built = {"cuda": torch.version.cuda, "hip": torch.version.hip, "configuration": torch.__config__.show()}
    rows = [_cpu(torch), row("torch", torch.__version__, data=built)]
    driver = collected("nvidia_driver_version") or "of unknown version"
    gpus = "" if torch.version.hip else collected("gpu_info")
    if torch.cuda.is_available():
        rows += _cuda(torch)
    elif gpus and torch.version.cuda is None:
        note = "install torch for CUDA: https://pytorch.org"
        rows.append(row("cuda", "torch was built without CUDA", "problem", note))
    elif gpus:
        summary = f"torch for CUDA {torch.version.cuda} finds no device, the driver {driver} does"
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        note = f"CUDA_VISIBLE_DEVICES is {hidden!r}" if hidden is not None else "is the driver new enough for it?"
        rows.append(row("cuda", summary, "-" if hidden is not None else "problem", note))
    else:
        rows.append(row("cuda", "no device" if torch.version.cuda else "torch was built without CUDA", "-"))
    if torch.backends.mps.is_available():
        rows.append(row("mps", "Apple GPU, shares the main memory"))
    if gpus:
        listed = [{"index": i, "name": name, "driver": driver} for i, name in re.findall(r"GPU (\d+): (.*\S)", gpus)]
        rows.append(row("NVIDIA driver", f"{driver} sees {', '.join(gpus.splitlines())}", data={"gpus": listed}))
    return rows


def _cpu(torch: ModuleType | None) -> Row:
    """The cores, and how many of them torch uses."""
    summary = f"{os.cpu_count()} cores, {platform.machine()}"
    if torch is None:
        return row("cpu", summary)
    threads, usable = torch.get_num_threads(), usable_cores()
    allowed = min(usable, cpu_quota() or usable)
    data = {"threads": threads, "interop_threads": torch.get_num_interop_threads()}
    summary += f", torch uses {threads} threads"
    if threads <= max(1, allowed):
        return row("cpu", summary, data=data)
    note = f"only {allowed:g} cores may be used: set OMP_NUM_THREADS={max(1, int(allowed))}"
    return row("cpu", summary, "problem", note, data)


def _cuda(torch: ModuleType) -> list[Row]:
    """What is known of CUDA where there is a device."""
    with_nccl = torch.distributed.is_available() and torch.distributed.is_nccl_available()
    nccl = ".".join(map(str, torch.cuda.nccl.version())) if with_nccl else ""
    cuda, cudnn = torch.version.cuda, torch.backends.cudnn.version()
    built = {"cuda": cuda, "cudnn": cudnn, "nccl": nccl, "architectures": torch.cuda.get_arch_list()}
    rows = [row("cuda", f"{cuda}, cuDNN {cudnn}, NCCL {nccl or 'none'}", data=built)]
    for index in range(torch.cuda.device_count()):
        try:
            rows.append(_gpu(torch, index))
        except RuntimeError as error:  # a GPU that has fallen off the bus, or is used by others alone
            rows.append(row(f"cuda:{index}", str(error).splitlines()[0], "problem", "see nvidia-smi"))
    return rows


def _gpu(torch: ModuleType, index: int) -> Row:
    free, total = torch.cuda.mem_get_info(index)
    name, capability = torch.cuda.get_device_name(index), ".".join(map(str, torch.cuda.get_device_capability(index)))
    data = {"name": name, "total": total, "free": free, "compute_capability": capability}
    data["bfloat16"] = bool(torch.cuda.is_bf16_supported())
    summary = f"{name}, {size_text(free)} free of {size_text(total)}, compute capability {capability}"
    return row(f"cuda:{index}", summary, data=data)
