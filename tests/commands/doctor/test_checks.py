"""What `icltool doctor --json` tells a maintainer, and what it keeps to itself."""

from __future__ import annotations

import getpass
import importlib.metadata
import json
import os
import re
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from icltool.cli.app import run
from icltool.commands.doctor import checks
from icltool.commands.doctor.checks import devices, environment as surroundings, packages, system
from icltool.commands.doctor.checks.rows import run as run_program
from icltool.results import privacy

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[3]


def report(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert run(["doctor", "--json", *arguments]) == 0
    return json.loads(capsys.readouterr().out)


def items(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["item"]: row for row in rows}


def test_the_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = report(capsys, "--workspace", str(tmp_path))
    assert list(content) == ["schema", "version", "created", "sections", "problems"]
    assert (content["schema"], content["version"]) == ("icltool.doctor", 1)
    for rows in content["sections"].values():
        for row in rows:
            assert {"item", "value", "status", "note"} <= set(row) <= {"item", "value", "status", "note", "data"}
            assert row["status"] in ("ok", "missing", "problem", "-")
            assert all(isinstance(row[key], str) for key in ("item", "value", "status", "note"))
            assert isinstance(row.get("data", {}), dict)


def test_every_section_that_fails_is_a_row_and_the_others_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise SystemExit("no way\nat all")

    for title, place in checks._CHECKS.items():
        module, _, name = place.partition(":")
        with monkeypatch.context() as patch:
            patch.setattr(f"icltool.commands.doctor.checks.{module}.{name}", broken)
            rows = checks.guarded(lambda title=title: checks._run(title, tmp_path))
            assert [(r["item"], r["value"], r["status"]) for r in rows] == [("check", "SystemExit: no way", "problem")]
    monkeypatch.setitem(checks._CHECKS, "java", "no_such_module:java")
    content = report(capsys, "--workspace", str(tmp_path))
    assert list(content["sections"]) == list(checks._CHECKS)
    assert "ModuleNotFoundError" in content["sections"]["java"][0]["value"]
    assert any("no_such_module" in line for line in content["problems"])


def test_a_broken_env_file_is_a_problem_among_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("this is no assignment\n")
    content = report(capsys)
    assert items(content["sections"]["environment"])[".env"]["status"] == "problem"
    assert any("NAME=value" in line for line in content["problems"])


def test_every_extra_is_covered() -> None:
    from packaging.requirements import Requirement

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for extra, requirements in extras.items():
        if extra == "dev":
            continue
        named = {Requirement(text).name for text in requirements}
        assert named <= set(packages.OPTIONAL), f"icltool[{extra}] has packages that doctor does not know"
        assert any(packages.OPTIONAL[name][1] == extra or len(named) > 1 for name in named)
    sources = {source for _, source in packages.OPTIONAL.values() if not source.startswith("pip ")}
    assert sources - {"ray"} <= set(extras)
    for row in packages.optional_packages():
        assert row["status"] == "ok" or "pip install" in row["note"]


def test_how_it_was_installed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    installation = items(report(capsys, "--workspace", str(tmp_path), "--full-paths")["sections"]["versions"])
    assert installation["installed"]["data"]["place"] == str(Path(packages.__file__).parents[3])
    if (ROOT / ".git").exists():
        assert re.fullmatch("[0-9a-f]{40}", installation["checkout"]["data"]["commit"])
    everything = installation["all packages in use"]["data"]
    for name in ("numpy", "tokenizers", "huggingface-hub", "torch", "pluggy"):
        assert everything[name] == importlib.metadata.version(name)
    assert installation["tokenizers"]["value"] == importlib.metadata.version("tokenizers")


def test_a_copy_that_runs_in_place_of_the_installed_one_is_a_problem(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = tmp_path / "other one"
    direct_url = json.dumps({"dir_info": {"editable": True}, "url": other.as_uri()})
    read = importlib.metadata.PathDistribution.read_text
    monkeypatch.setattr(
        importlib.metadata.PathDistribution,
        "read_text",
        lambda self, name: direct_url if name == "direct_url.json" else read(self, name),
    )
    installation = packages._installation()
    assert (installation["status"], str(other) in installation["note"]) == ("problem", True)
    monkeypatch.setattr(packages, "_local", lambda url: Path(packages.__file__).parents[4])
    assert packages._installation()["status"] == "ok"


def test_names_and_secrets_stay_at_home(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "people" / "ada.l"
    workspace = home / "ws"
    (workspace / "exports").mkdir(parents=True)
    monkeypatch.setattr(socket, "gethostname", lambda: "gpu17.example.org")
    values = {
        "HOME": str(home),
        "USER": "ada.l",
        "LOGNAME": "ada.l",
        "COCO_PATH": "/data/ada.l/coco",
        "HF_TOKEN": "hf_abcdef",
        "WANDB_API_KEY": "0123456789",
        "SLURM_JOB_USER": "ada.l",
        "SLURM_JOB_ACCOUNT": "grant-77",
        "MASTER_ADDR": "gpu17.example.org",
        "HTTPS_PROXY": "http://ada:sesame@proxy:80",
        "TOKENIZERS_PARALLELISM": "false",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    text = json.dumps(report(capsys, "--workspace", str(workspace)))
    for hidden in (str(home), "ada.l", "hf_abcdef", "0123456789", "grant-77", "sesame", "gpu17"):
        assert hidden not in text
    content = json.loads(text)["sections"]
    variables = items(content["variables"])
    assert variables["HF_TOKEN"]["value"] == variables["WANDB_API_KEY"]["value"] == "set"
    assert variables["HTTPS_PROXY"]["value"] == "http://proxy:80"
    assert variables["TOKENIZERS_PARALLELISM"]["value"] == "false"
    assert variables["MASTER_ADDR"]["value"] == "HOST"
    assert items(content["environment"])["COCO_PATH"]["value"] == "/data/~/coco"
    assert items(content["workspace"])["folder"]["value"] == "~/ws"
    full_text = json.dumps(report(capsys, "--workspace", str(workspace), "--full-paths"))
    assert str(workspace) in full_text
    assert "hf_abcdef" not in full_text


def test_hiding_leaves_other_texts_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/al")
    monkeypatch.setattr(getpass, "getuser", lambda: "al")
    for name in ("USER", "LOGNAME", "SUDO_USER", "SLURM_JOB_USER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(socket, "gethostname", lambda: "h")
    hidden = privacy.without_names(
        {"a": ["/home/al/x", "/home/albert", "/data/al", "/al/b", "al", "also all of al"], "n": 3}
    )
    assert hidden == {"a": ["~/x", "/home/albert", "/data/~", "/~/b", "~", "also all of al"], "n": 3}
    assert privacy.without_names("odd \udcff") == "odd \\udcff"


def test_limits_of_control_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = tmp_path / "pod" / "job"
    inner.mkdir(parents=True)
    (tmp_path / "pod" / "cpu.max").write_text("150000 100000\n")
    (inner / "cpu.max").write_text("max 100000\n")
    (inner / "memory.max").write_text("2000000000\n")
    (tmp_path / "pod" / "memory.max").write_text("max\n")
    monkeypatch.setattr(system, "_groups", lambda controller: iter([inner, tmp_path / "pod"]))
    assert (system.cpu_quota(), system.memory_limit()) == (1.5, 2_000_000_000)
    entries = items(system.memory(tmp_path))
    assert entries["memory limit"]["data"] == {"limit": 2_000_000_000}
    (inner / "memory.max").write_text(str(2**63 - 4096))
    assert system.memory_limit() is None


def test_more_threads_than_cores_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    monkeypatch.setattr(devices, "usable_cores", lambda: 2)
    cpu = items(devices.devices())["cpu"]
    assert (cpu["status"], "OMP_NUM_THREADS=2" in cpu["note"]) == ("problem", True)


def nvidia_smi(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """A program of this name, first on the path."""
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_the_driver_s_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    gpu, version = (
        "GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-4f1)",
        "| Driver Version: 550.54.15      CUDA Version: 12.4 |",
    )
    nvidia_smi(tmp_path, monkeypatch, f"[ \"$1\" = -L ] && echo '{gpu}' || echo '{version}'")
    assert items(devices.devices())["NVIDIA driver"]["value"] == "550.54.15 sees GPU 0: NVIDIA H100 80GB HBM3"
    nvidia_smi(tmp_path, monkeypatch, "exec sleep 60")
    assert run_program("nvidia-smi", patience=0.2) == (1, "", "TimeoutExpired")


def test_a_driver_without_a_torch_for_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    nvidia_smi(tmp_path, monkeypatch, "echo 'GPU 0: Tesla T4 (UUID: GPU-4f1)'")
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.version, "cuda", None)
    entries = items(devices.devices())
    assert entries["cuda"]["status"] == "problem"
    assert "Tesla T4" in entries["NVIDIA driver"]["value"]


def test_a_cluster_that_answers_and_one_that_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
        assert items(surroundings.ray())["cluster"]["data"] == {"address": f"127.0.0.1:{port}", "answers": True}
    cluster = items(surroundings.ray())["cluster"]
    assert (cluster["status"], cluster["data"]["answers"]) == ("problem", False)
    monkeypatch.setenv("RAY_ADDRESS", "ray://nonsense:port")
    assert "is no HOST:PORT" in items(surroundings.ray())["cluster"]["value"]


def test_caches_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = tmp_path / "models--HuggingFaceM4--idefics-9b" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "a").write_bytes(b"x" * 1500)
    (blobs / "b").symlink_to(blobs / "a")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    caches = items(surroundings.caches())["Hugging Face hub"]["data"]
    assert caches == {"path": str(tmp_path), "bytes": 1500, "whole": True, "models": ["HuggingFaceM4/idefics-9b"]}
    assert surroundings.measured(tmp_path, -1.0) == (0, False)
