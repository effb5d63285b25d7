"""icltool itself, how it was installed, and the packages that it uses or could use."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import re
import sys
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from icltool.commands.doctor.checks.rows import Row, row, run
from icltool.releases import __version__, tested_range, untested

#: Packages that icltool can do without: what for, and the extra of icltool that installs them or the command that does.
OPTIONAL: dict[str, tuple[str, str]] = {
    "ray": ("several GPUs or machines: --executor ray", "ray"),
    "gradio": ("the page of icltool app", "app"),
    "accelerate": ("models spread over several GPUs, and quantized ones", "large"),
    "bitsandbytes": ("8-bit and 4-bit weights, for large models on small GPUs", "quantization"),
    "peft": ("low-rank adapters: icltool train lora", "lora"),
    "nltk": ("OK-VQA's accuracy as its authors count it", "okvqa"),
    "inflection": ("OK-VQA's accuracy as its authors count it", "okvqa"),
    "tensorboard": ("training curves in TensorBoard", "tensorboard"),
    "wandb": ("training curves in Weights & Biases", "wandb"),
    "flash-attn": ("faster attention on NVIDIA GPUs", "pip install flash-attn --no-build-isolation"),
    "open_flamingo": (
        "plugins for OpenFlamingo models",
        "pip install --no-deps open_flamingo==2.0.1 && pip install einops einops-exts",
    ),
}
#: Distributions of which either gives the same module.
_ALTERNATIVES = {"faiss-gpu": "faiss-cpu", "faiss-cpu": "faiss-gpu"}
#: Packages behind the dependencies whose versions change what models compute or how data is read.
_BEHIND = (
    "tokenizers", "huggingface_hub", "triton", "scipy", "timm", "fsspec", "pandas", "torchmetrics", "pytorch-lightning",
    "pydantic_core", "click",
)  # fmt: skip
_NVIDIA = re.compile(r"nvidia-(cudnn|nccl|cublas|cuda-runtime)\b")


def versions() -> list[Row]:
    """icltool and how it was installed, Python, the platform, every package that icltool depends on, and what is behind
    those."""
    rows = [row("icltool", __version__), _installation(), *_checkout()]
    interpreter = {
        "version": platform.python_version(),
        "implementation": platform.python_implementation(),
        "compiler": platform.python_compiler(),
        "virtual_environment": sys.prefix if sys.prefix != sys.base_prefix else "",
        "executable": sys.executable,
    }
    rows.append(row("python", f"{platform.python_version()} ({sys.executable})", data=interpreter))
    machine = {name: getattr(platform, name)() for name in ("system", "release", "machine")}
    machine |= {"libc": " ".join(platform.libc_ver()).strip(), "macos": platform.mac_ver()[0]}
    rows.append(row("platform", platform.platform(), data=machine))
    try:
        needed = importlib.metadata.requires("icltool") or []
    except importlib.metadata.PackageNotFoundError:
        note = "run `pip install .` in its folder"
        return [*rows, row("dependencies", "icltool is not installed as a package", "problem", note)]
    rows += [line for requirement in needed if (line := dependency(requirement)) is not None]
    installed = {
        _normal(d.metadata["Name"]): d.version for d in importlib.metadata.distributions() if d.metadata["Name"]
    }
    behind = [name for name in _BEHIND if _normal(name) in installed] + sorted(filter(_NVIDIA.match, installed))
    rows += [row(name, installed[_normal(name)]) for name in behind]
    return [
        *rows,
        row(
            "all packages in use",
            len(installed),
            "-",
            "their versions: icltool doctor --json",
            dict(sorted(installed.items())),
        ),
    ]


def _installation() -> Row:
    """Where the code that runs lies, and how it came there."""
    import icltool

    place = Path(icltool.__file__).resolve().parent
    try:
        distribution = importlib.metadata.distribution("icltool")
    except importlib.metadata.PackageNotFoundError:
        return row("installed", f"not as a package; runs from {place.parent}", "-")
    url = json.loads(distribution.read_text("direct_url.json") or "{}")
    editable = bool(url.get("dir_info", {}).get("editable"))
    how = (
        "editable"
        if editable
        else f"from {_without_password(url['url'])}"
        if url
        else "from a package index or archive"
    )
    commit = url.get("vcs_info", {}).get("commit_id", "")
    data = {
        "how": how,
        "place": str(place),
        "commit": commit,
        "by": (distribution.read_text("INSTALLER") or "").strip(),
    }
    source = _local(str(url["url"])) if editable else Path(str(distribution.locate_file("")))
    if source.resolve() != place.parent:
        note = f"the installed package is in {source}"
        return row("installed", f"{how}, but this command runs from {place}", "problem", note, data)
    return row("installed", f"{how} ({place})" + (f", commit {commit[:12]}" if commit else ""), data=data)


def _checkout() -> list[Row]:
    """The commit of the checkout that the code lies in, if it does."""
    import icltool

    root = Path(icltool.__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return []
    code, output, error = run(["git", "-C", str(root), "status", "--porcelain=2", "--branch", "--untracked-files=no"])
    lines = output.splitlines()
    if code or len(lines) < 2:
        return [row("checkout", f"git does not show its commit ({error})", "-")]
    (commit, branch), changed = (
        (line.split()[-1] for line in lines[:2]),
        sum(not line.startswith("#") for line in lines),
    )
    text = f"{commit[:12]}" + (f", {changed} changed file{'s' * (changed != 1)}" if changed else "")
    return [row("checkout", text, data={"commit": commit, "branch": branch, "changed_files": changed})]


def _local(url: str) -> Path:
    """The folder that a file: address names."""
    return Path(url2pathname(urlsplit(url).path))


def _without_password(url: str) -> str:
    return re.sub(r"//[^/@]*@", "//", url)


def dependency(requirement: str, extra: str = "") -> Row | None:
    """The row of one requirement; None where it does not apply (an extra, another platform)."""
    from packaging.requirements import Requirement

    required = Requirement(requirement)
    if required.marker is not None and not required.marker.evaluate({"extra": extra}):
        return None
    for name in filter(None, (required.name, _ALTERNATIVES.get(required.name))):
        version = _version(name)
        if version is None:
            continue
        if required.specifier.contains(version, prereleases=True) or name != required.name:
            if name in untested():
                return row(name, version, "-", f"not tested with icltool, which was with {tested_range(name)}")
            return row(name, version)
        return row(name, version, "problem", f"pip install '{required.name}{required.specifier}'")
    return row(required.name, "missing", "missing", f"pip install '{required.name}{required.specifier}'")


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _normal(distribution: str) -> str:
    """The name as package indexes write it."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def optional_packages() -> list[Row]:
    """Packages that add something, what, and how to get those that are missing or too old."""
    from packaging.requirements import Requirement

    needed = importlib.metadata.requires("icltool") if _version("icltool") else []
    of_extras = [Requirement(text) for text in needed or [] if "extra ==" in text]
    ranges = {r.name: r.specifier for r in of_extras if not re.search("extra == ['\"]dev['\"]", str(r.marker))}
    rows = []
    for name, (purpose, source) in OPTIONAL.items():
        command = source if source.startswith("pip ") else f"pip install 'icltool[{source}]'"
        version = _version(name)
        if version is None:
            rows.append(row(name, "not installed", "-", f"{purpose}: {command}"))
        elif name in ranges and not ranges[name].contains(version, prereleases=True):
            rows.append(row(name, version, "problem", f"{ranges[name]} is needed: {command}"))
        else:
            rows.append(row(name, version, "ok", purpose))
    return rows
