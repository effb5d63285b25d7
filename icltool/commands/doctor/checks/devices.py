"""The processor, what torch can compute on, and the drivers behind it, as torch's own collectors tell."""

from __future__ import annotations

import os
import platform
import re
from types import ModuleType

from icltool.commands.doctor.checks.rows import Row, row, run
from icltool.commands.doctor.checks.system import cpu_quota, usable_cores
from icltool.config.amounts import size_text


def devices() -> list[Row]:
    """CPU cores and GPUs, how torch was built, and the driver."""
    try:
        import torch
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
        return [_cpu(None), row("torch", problem, "problem", "reinstall torch: https://pytorch.org")]
    built = {"cuda": torch.version.cuda, "hip": torch.version.hip, "configuration": torch.__config__.show()}
    rows = [_cpu(torch), row("torch", torch.__version__, data=built)]
    driver = _collected("nvidia_driver_version") or "of unknown version"
    gpus = "" if torch.version.hip else _collected("gpu_info")
    if torch.cuda.is_available():
        rows += _cuda(torch)
    elif gpus and torch.version.cuda is None:
        note = "install torch for CUDA: https://pytorch.org"
        rows.append(row("cuda", "torch was built without CUDA", "problem", note))
    elif gpus:
        told = f"torch for CUDA {torch.version.cuda} finds no device, the driver {driver} does"
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        note = f"CUDA_VISIBLE_DEVICES is {hidden!r}" if hidden is not None else "is the driver new enough for it?"
        rows.append(row("cuda", told, "-" if hidden is not None else "problem", note))
    else:
        rows.append(row("cuda", "no device" if torch.version.cuda else "torch was built without CUDA", "-"))
    if torch.backends.mps.is_available():
        rows.append(row("mps", "Apple GPU, shares the main memory"))
    if gpus:
        rows.append(row("NVIDIA driver", f"{driver} sees {', '.join(gpus.splitlines())}"))
    return rows


def _collected(what: str) -> str:
    """What torch's collector of this name tells; "" for nothing."""
    from torch.utils import collect_env

    return getattr(collect_env, f"get_{what}")(run) or ""


def _cpu(torch: ModuleType | None) -> Row:
    """The processor, its cores, and how many of them this process may use and torch does."""
    cores, usable, quota = os.cpu_count() or 0, usable_cores(), cpu_quota()
    named = re.search(r"^(?:Model name|Name): *(\S.*)", _collected("cpu_info"), re.MULTILINE) if torch else None
    name = named[1] if named else platform.processor() or platform.machine()
    told = f"{name}, {cores} cores, {platform.machine()}"
    told += f", {usable} of them usable" if usable != cores else ""
    told += f", the time of {quota:g} of them allowed" if quota is not None else ""
    data = {"name": name, "cores": cores, "usable": usable, "quota": quota}
    if torch is None:
        return row("cpu", told, data=data)
    threads = torch.get_num_threads()
    told += f", torch uses {threads} threads"
    data |= {"threads": threads, "interop_threads": torch.get_num_interop_threads()}
    allowed = min(usable, quota or usable)
    if threads <= max(1, allowed):
        return row("cpu", told, data=data)
    note = f"only {allowed:g} cores may be used: set OMP_NUM_THREADS={max(1, int(allowed))}"
    return row("cpu", told, "problem", note, data)


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
    told = f"{name}, {size_text(free)} free of {size_text(total)}, compute capability {capability}"
    return row(f"cuda:{index}", told, data=data)
