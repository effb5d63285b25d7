"""The scripts for clusters that the README shows: shells and YAML read them, and their commands exist."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

README = Path(__file__).parents[1] / "README.md"
HEADING = "## Several devices, several machines\n"


def section() -> str:
    text = README.read_text(encoding="utf-8")
    if HEADING not in text:
        pytest.skip("the README has no such section yet")
    return re.split(r"^## ", text.split(HEADING, 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", section(), flags=re.MULTILINE | re.DOTALL)


def test_the_shell_reads_the_scripts() -> None:
    found = blocks("bash")
    assert sum("#SBATCH" in script for script in found) == 2
    for script in found:
        done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def commands() -> list[list[str]]:
    """The words of every command of icltool, without what starts it."""
    lines = [line for script in blocks("bash") for line in script.replace("\\\n", " ").splitlines()]
    words = [shlex.split(line, comments=True) for line in lines]
    return [line[line.index("icltool") + 1 :] for line in words if "icltool" in line]


def test_the_command_line_knows_every_option() -> None:
    import typer

    from icltool.cli.app import app

    group: Any = typer.main.get_command(app)
    found = commands()
    assert {given[0] for given in found} == {"train", "generate"}
    for given in found:
        with group.make_context("icltool", list(given)) as context:
            name, command, rest = group.resolve_command(context, list(given))
            with command.make_context(name, rest, parent=context) as parsed:
                assert not parsed.resilient_parsing


def test_the_job_has_as_many_processes_as_the_trainer_expects() -> None:
    (script,) = [script for script in blocks("bash") if "--trainer" in script]
    for told, expected in (("--nodes", "num_nodes"), ("--ntasks-per-node", "devices"), ("--gpus-per-node", "devices")):
        job = re.search(rf"^#SBATCH {told}=(\d+)$", script, flags=re.MULTILINE)
        trainer = re.search(rf"--trainer {expected}=(\d+)", script)
        assert job is not None
        assert trainer is not None
        assert job[1] == trainer[1]


def test_the_cluster_has_a_gpu_for_each_worker() -> None:
    (text,) = blocks("yaml")
    cluster = yaml.safe_load(text)
    nodes = 1 + len(cluster["provider"]["worker_ips"])
    assert cluster["max_workers"] == nodes - 1
    started = [*cluster["head_start_ray_commands"], *cluster["worker_start_ray_commands"]]
    (gpus,) = {int(found[1]) for line in started if (found := re.search(r"--num-gpus=(\d+)", line))}
    for given in commands():
        if given[0] == "generate":
            workers = int(given[given.index("--workers") + 1])
            assert workers * float(given[given.index("--gpus-per-worker") + 1]) == nodes * gpus
