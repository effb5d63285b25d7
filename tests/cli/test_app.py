"""The command as users start it: quick help, exit codes, one-line errors."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from icltool.cli.app import run
from icltool.plugin.commands import commands
from tests.processes import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
#: Help needs no more than part of the time that importing Typer takes.
FACTOR = 0.8
HEAVY = ("typer", "torch", "transformers", "lightning", "h5py", "pydantic", "numpy", "datasets", "jinja2")


def icltool(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs `python -m icltool` with PYTHONPATH set to this checkout."""
    return started(sys.executable, "-m", "icltool", *arguments)


def started(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def output_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a call that succeeds prints, in this process."""
    capsys.readouterr()
    assert run(arguments) == 0
    return capsys.readouterr().out


def test_help_lists_the_commands_in_pipeline_order() -> None:
    answer = icltool("--help")
    assert answer.returncode == 0
    assert answer.stderr == ""
    listed = [line.split()[0] for line in answer.stdout.partition("Commands:")[2].splitlines() if line.strip()]
    stages = ["prepare", "embed", "generate", "train", "prompts", "evaluate", "caption", "export", "report", "app"]
    assert listed == [*stages, "guide", "demo", "plugins", "doctor", "clean"]


def test_no_command_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert output_of(capsys) == output_of(capsys, "--help")


QUICK = [[], ["--help"], ["evaluate", "-h"], ["evaluate", "--help-all"], ["plugins", "list", "--help"]]


@pytest.mark.parametrize("words", QUICK)
def test_help_leaves_heavy_packages_out(words: list[str]) -> None:
    code = (
        f"import sys; from icltool.cli.app import run; code = run({words});"
        f"print('LOADED', [m for m in {HEAVY} if m in sys.modules], code)"
    )
    assert started(sys.executable, "-c", code).stdout.splitlines()[-1] == "LOADED [] 0"


@pytest.mark.parametrize("words", [["--help"], ["evaluate", "--help-all"]])
def test_help_takes_less_than_importing_typer(words: list[str]) -> None:
    """Processor time, the least of five of each, taken in turns: whatever the machine, and whatever else it does."""

    def seconds(*arguments: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert started(sys.executable, *arguments).returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    rounds = [(seconds("-m", "icltool", *words), seconds("-c", "import typer")) for _ in range(5)]
    help_, typer = (min(column) for column in zip(*rounds, strict=True))
    assert help_ < FACTOR * typer


@pytest.mark.parametrize("name", commands())
def test_every_command_has_a_help_of_its_own(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = output_of(capsys, name, "--help")
    assert out.startswith(f"Usage: icltool {name} ")
    assert "--help" in out


@pytest.mark.parametrize("stage", ["prepare", "embed", "generate", "train", "evaluate", "export", "report"])
def test_every_option_of_a_stage_is_explained(stage: str) -> None:
    """A description for each field."""
    from icltool.cli.options import parameters_of
    from icltool.plugin.commands import stage_model

    for parameter in parameters_of(stage_model(stage)):
        text = parameter.default.help
        assert len(text.partition(" (")[0]) > 5, f"{stage}: {parameter.name} has no description"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    from icltool import __version__

    assert output_of(capsys, "--version") == f"icltool {__version__}\n"


@pytest.mark.parametrize(("arguments", "code"), [(["--version"], 0), (["--verson"], 2), (["plugins"], 2)])
def test_the_process_ends_with_the_code_of_the_call(arguments: list[str], code: int) -> None:
    assert icltool(*arguments).returncode == code


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["generat"], "error: no such command 'generat'; did you mean 'generate'?", "hint: see `icltool --help`"),
        (["xyz"], "error: no such command 'xyz'", "hint: see `icltool --help`"),
        (["--verson"], "error: no such option: --verson; did you mean --version?", "hint: see `icltool --help`"),
        (
            ["generate", "--anchor", "3"],
            "error: no such option: --anchor; did you mean --anchors",
            "hint: see `icltool generate --help`",
        ),
        (["generate", "--xyz"], "error: no such option: --xyz", "hint: see `icltool generate --help-all`"),
        (["evaluate", "--pretrained"], "error: no such option: --pretrained; did you mean --model-path?", "hint: see"),
        (
            ["evaluate", "--model_args"],
            "error: no such option: --model-args; did you mean --model-option?",
            "hint: see",
        ),
        (["generate", "--anchors"], "error: option '--anchors' requires an argument", ""),
        (["generate", "--anchors", "many"], "error: --anchors must be an integer, got 'many'", "hint: anchors: "),
        (["generate", "--anchors", "0"], "error: --anchors must be at least 1, got 0", "hint: anchors: "),
        (["generate", "--beam-score", "best"], "error: --beam-score must be increment or cumulative, got 'best'", ""),
        (["plugins"], "error: missing command", "hint: see `icltool plugins --help`"),
    ],
)
def test_usage_errors_are_one_line_and_exit_code_2(
    arguments: list[str], message: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert lines[0].startswith(message)
    assert len(lines) == (2 if hint else 1)
    assert not hint or lines[1].startswith(hint)


def test_a_missing_data_set_says_which_command_makes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["generate", "--workspace", str(tmp_path / "none")]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert "icltool prepare" in err
    assert "Traceback" not in err


def test_a_closed_pipe_is_quiet() -> None:
    command = f"{sys.executable} -m icltool plugins list --json | head -n 1"
    answer = started("bash", "-c", command)
    assert answer.stdout == "[\n"
    assert answer.stderr == ""


@pytest.fixture
def complete(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What bash is answered when it asks a question about `words`."""

    def ask(question: str, words: str = "") -> str:
        variables = {"COMP_WORDS": words, "_TYPER_COMPLETE_ARGS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
        for name, value in {**variables, "_ICLTOOL_COMPLETE": question}.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as end:
            run([])
        out, err = capsys.readouterr()
        assert end.value.code == 0, err
        return out

    return ask


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("icltool ge", {"generate"}),
        ("icltool e", {"embed", "evaluate", "export"}),
        ("icltool generate --anch", {"--anchors"}),
        ("icltool generate --beam-score ", {"increment", "cumulative"}),
        ("icltool generate --model tiny", {"tiny-idefics"}),
        ("icltool generate --sampler ", {"random", "image-sim", "text-sim", "mix"}),
        ("icltool generate --scorer inf", {"infoscore"}),
        ("icltool generate --dataset coco2", {"coco2017"}),
        ("icltool generate --encoder tiny", {"tiny-clip"}),
        ("icltool evaluate --method i2", {"i2i", "i2t"}),
        ("icltool evaluate --method random,t2", {"random,t2t", "random,t2i"}),
        ("icltool evaluate --method l", {"lever-lm", "live"}),
        ("icltool generate --profile leverlm-coco", {"leverlm-coco2017-idefics-9b"}),
        ("icltool plugins s", {"show"}),
        ("icltool plugins list --kind me", {"metrics"}),
    ],
)
def test_completion_in_bash(words: str, offered: set[str], complete: Callable[..., str]) -> None:
    completions = complete("complete_bash", words).split()
    assert offered <= set(completions)
    assert all(word.startswith(words.split(" ")[-1]) for word in completions)


def test_completion_script_for_bash_asks_the_command(complete: Callable[..., str]) -> None:
    assert "_ICLTOOL_COMPLETE=complete_bash" in complete("source_bash")


def test_json_of_the_plugin_list_is_all_that_stdout_holds(capsys: pytest.CaptureFixture[str]) -> None:
    rows = json.loads(output_of(capsys, "plugins", "list", "--json"))
    assert {"kind", "name", "distribution", "version", "status", "summary"} == set(rows[0])
