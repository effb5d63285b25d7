"""The scripts for clusters in the topic several-machines: shells and YAML read them, and their commands exist."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import yaml

PAGE = Path(__file__).parents[2] / "icltool" / "guide" / "several-machines.md"


def blocks(language: str) -> list[str]:
    text = PAGE.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def test_the_shell_reads_the_scripts() -> None:
    scripts = blocks("sh cluster")
    assert sum("#SBATCH" in script for script in scripts) == 2
    for script in scripts:
        done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def commands() -> list[list[str]]:
    """The words of every command of icltool, without what starts it."""
    lines = [line for script in blocks("sh cluster") for line in script.replace("\\\n", " ").splitlines()]
    words = [shlex.split(line, comments=True) for line in lines]
    return [line[line.index("icltool") + 1 :] for line in words if "icltool" in line]


def test_the_command_line_knows_every_option() -> None:
    from icltool.cli.group import command_line

    group: Any = command_line()
    calls = commands()
    assert {call[0] for call in calls} == {"train", "generate"}
    for call in calls:
        with group.make_context("icltool", list(call)) as context:
            name, command, rest = group.resolve_command(context, list(call))
            with command.make_context(name, rest, parent=context) as parsed:
                assert not parsed.resilient_parsing


def test_the_job_has_as_many_processes_as_the_trainer_expects() -> None:
    (script,) = [script for script in blocks("sh cluster") if "--trainer" in script]
    for option, expected in (
        ("--nodes", "num_nodes"),
        ("--ntasks-per-node", "devices"),
        ("--gpus-per-node", "devices"),
    ):
        job = re.search(rf"^#SBATCH {option}=(\d+)$", script, flags=re.MULTILINE)
        trainer = re.search(rf"--trainer {expected}=(\d+)", script)
        assert job is not None
        assert trainer is not None
        assert job[1] == trainer[1]


def test_the_cluster_has_a_gpu_for_each_worker() -> None:
    (text,) = blocks("yaml")
    cluster = yaml.safe_load(text)
    nodes = 1 + len(cluster["provider"]["worker_ips"])
    assert cluster["max_workers"] == nodes - 1
    starts = [*cluster["head_start_ray_commands"], *cluster["worker_start_ray_commands"]]
    (gpus,) = {int(match[1]) for line in starts if (match := re.search(r"--num-gpus=(\d+)", line))}
    for call in commands():
        if call[0] == "generate":
            workers = int(call[call.index("--workers") + 1])
            assert workers * float(call[call.index("--gpus-per-worker") + 1]) == nodes * gpus
