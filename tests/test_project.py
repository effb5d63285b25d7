"""The project as a whole: the shape of the tree, and that README, CONTRIBUTING and CI promise what there is."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from icltool import testing
from icltool.plugin import Registration, manager
from icltool.plugin.registration import KINDS
from icltool.plugin.registry import RegisteredComponent, Registry
from icltool.releases import TESTED

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
SOURCES = [p for folder in ("icltool", "plugins", "tests") for p in (ROOT / folder).rglob("*.py")]
GITHUB = ROOT / ".github"
CONTRIBUTING = (GITHUB / "CONTRIBUTING.md").read_text(encoding="utf-8")
WORKFLOW = (GITHUB / "workflows" / "ci.yml").read_text(encoding="utf-8")
JOBS: dict[str, Any] = yaml.safe_load(WORKFLOW)["jobs"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
MARKERS = {line.partition(":")[0] for line in PROJECT["tool"]["pytest"]["ini_options"]["markers"]}
STATIC_CHECKS = "ruff check . && ruff format --check . && mypy && lint-imports"
*RECIPES, COMMAND = re.findall(r"```python\n(.*?)```", CONTRIBUTING, flags=re.DOTALL)


def test_there_is_no_utils() -> None:
    assert len(SOURCES) > 500
    assert not [p for p in SOURCES if p.name == "utils.py"]


def test_the_top_level_is_as_agreed() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    top = {name.split("/")[0] for name in tracked if not name.startswith(".")}
    if top:  # not in an unpacked archive
        agreed = {"icltool", "plugins", "profiles", "tests", "pyproject.toml", "CHANGELOG.md", "README.md", "LICENSE"}
        assert top <= agreed


def test_ci_runs_the_command_that_the_readme_gives() -> None:
    commands = re.findall(r"^ {4}(.+)$|^\$ (.+)$", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    lines = {a or b for a, b in commands}
    ci = (ROOT / ".ci" / "run").read_text().replace("--quiet ", "")
    assert 'pip install -e ".[dev]" && python -m pytest' in ci
    assert 'pip install -e ".[dev]" && python -m pytest' in lines
    assert "pip install . && icltool demo" in lines


def steps(job: dict[str, Any]) -> list[str]:
    """The commands of a job, in order."""
    return [step["run"] for step in job["steps"] if "run" in step]


def test_ci_covers_every_python_and_the_lowest_releases() -> None:
    versions = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["project"]["classifiers"]))
    assert JOBS["newest"]["strategy"]["matrix"]["python"] == versions
    assert steps(JOBS["newest"]) == ['pip install -e ".[dev]"', "python -m pytest"]
    setups = [step["with"] for step in JOBS["lowest"]["steps"] if "setup-python" in step.get("uses", "")]
    assert [setup["python-version"] for setup in setups] == versions[:1]
    install, tests = steps(JOBS["lowest"])[-2:]
    assert install == 'uv pip install --system --resolution lowest-direct -e ".[dev]"'
    *program, first, second, third = shlex.split(tests)
    assert program == shlex.split(
        "python -m pytest -W default -m 'not training and not reliability and not benchmark'"
    ), "external has the other architectures"
    assert [first, second, third] == ["tests/components/models", "tests/engine", "tests/components/learners"]
    assert all((ROOT / folder).is_dir() for folder in (first, second, third))


def test_the_tested_range_begins_at_the_lower_bounds() -> None:
    bounds = dict(re.findall(r"^(\w+)>=([\d.]+)", "\n".join(PROJECT["project"]["dependencies"]), flags=re.MULTILINE))
    for name, (lowest, newest) in TESTED.items():
        assert lowest.startswith(bounds[name])
        assert [int(part) for part in lowest.split(".")] < [int(part) for part in newest.split(".")]


def test_ci_runs_every_suite_at_night() -> None:
    suites = {row["suite"]: row.get("arguments", "") for row in JOBS["nightly"]["strategy"]["matrix"]["include"]}
    assert set(suites) == MARKERS
    assert suites["benchmark"] == "-s -n 0"
    assert steps(JOBS["nightly"])[-1] == "python -m pytest -m ${{ matrix.suite }} ${{ matrix.arguments }}"
    assert "schedule" in JOBS["nightly"]["if"]
    triggers = yaml.safe_load(WORKFLOW)[True]  # YAML 1.1 reads the key `on` as a truth value
    assert re.fullmatch(r"\d+ \d+ \* \* \*", triggers["schedule"][0]["cron"])


def test_ci_is_modest() -> None:
    """Few permissions, an end to every job, actions of a known major version, and no host that packages come from."""
    workflow = yaml.safe_load(WORKFLOW)
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"]["group"]
    for job in JOBS.values():
        assert 10 <= job["timeout-minutes"] <= 360
        assert "permissions" not in job
        used = [step["uses"] for step in job["steps"] if "uses" in step]
        assert all(re.fullmatch(r"actions/[\w-]+@v\d+", action) for action in used)
    assert "://" not in WORKFLOW
    assert "index-url" not in WORKFLOW


def test_pre_commit_checks_what_ci_checks() -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    entries = {hook["entry"] for hook in repository["hooks"] if "stages" not in hook}
    assert entries == {"ruff check --fix", "ruff format", "mypy", "lint-imports"}
    assert steps(JOBS["static"])[-1] == STATIC_CHECKS
    assert STATIC_CHECKS in (ROOT / ".ci" / "run").read_text()
    (quick,) = (hook["entry"] for hook in repository["hooks"] if hook.get("stages") == ["pre-push"])
    paths = quick.removeprefix("python -m pytest ").split()
    assert all((ROOT / path).exists() for path in paths)


def test_bug_reports_bring_what_doctor_says() -> None:
    forms = {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in GITHUB.rglob("ISSUE_TEMPLATE/*")}
    assert set(forms) == {"bug_report", "feature_request", "config"}
    doctor = next(field for field in forms["bug_report"]["body"] if field.get("id") == "doctor")
    assert doctor["attributes"]["label"] == "`icltool doctor --json`"
    assert doctor["validations"]["required"] is True
    for name in ("bug_report", "feature_request"):
        fields = [field["id"] for field in forms[name]["body"]]
        assert len(set(fields)) == len(fields)
    assert STATIC_CHECKS in (GITHUB / "pull_request_template.md").read_text(encoding="utf-8")


def test_ruff_holds_functions_to_what_contributing_says() -> None:
    rules = PROJECT["tool"]["ruff"]["lint"]
    assert {"C901", "PLR0915"} <= set(rules["select"])
    complexity = rules.get("mccabe", {}).get("max-complexity", 10)  # ruff's own defaults
    statements = rules.get("pylint", {}).get("max-statements", 50)
    assert f"a complexity of {complexity} and {statements} statements" in CONTRIBUTING


def test_contributing_names_what_there_is() -> None:
    assert STATIC_CHECKS in CONTRIBUTING
    documented = set(re.findall(r"`python -m pytest -m (\w+)", CONTRIBUTING))
    assert documented == MARKERS
    for path in re.findall(r"`((?:icltool|tests|plugins|\.github|\.ci)/[\w./-]+)`", CONTRIBUTING):
        assert (ROOT / path).exists(), path
    for path in re.findall(r"\]\(([^)]+)\)", CONTRIBUTING):
        assert (GITHUB / path).exists(), path
    suites = set(re.findall(r"check_(?!base)\w+", CONTRIBUTING))
    assert suites == {name for name in testing.__all__ if name.startswith("check_")}


def test_contributing_has_a_recipe_for_every_kind() -> None:
    hooks = [hook for recipe in RECIPES for path, hook, _ in files(recipe) if "builtins" in path]
    assert list(dict.fromkeys(hooks)) == [f"icltool_{kind}" for kind in KINDS if kind != "commands"]
    for recipe in RECIPES:
        for path, _, text in files(recipe):
            ast.parse(text, path)
            assert (ROOT / path).parent.is_dir(), path
            assert (ROOT / path).exists() == ("builtins" in path), path


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: files(recipe)[0][0])
def test_a_recipe_conforms(
    recipe: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its component, registered by its row, passes its test; all as it is written."""
    components = list(manager.load_registry().components)
    module = ModuleType("")
    for path, hook, text in files(recipe):
        if hook:

            def register(*row: Any, kind: str = hook.removeprefix("icltool_")) -> None:
                components.append(RegisteredComponent(kind, Registration(*row), "icltool", "0"))

            exec(compile(text, path, "exec"), {"Registration": register})
            monkeypatch.setattr(manager, "load_registry", lambda: Registry(components, []))
        elif path.endswith(".toml"):
            (tmp_path / Path(path).name).write_text(text, encoding="utf-8")
            monkeypatch.setattr("icltool.contracts.task.files", lambda package: tmp_path)
        else:
            module = ModuleType(path.removesuffix(".py").replace("/", "."))
            monkeypatch.setitem(sys.modules, module.__name__, module)
            exec(compile(text, path, "exec"), module.__dict__)
    (test,) = (value for name, value in vars(module).items() if name.startswith("test_"))
    test(*map(request.getfixturevalue, inspect.signature(test).parameters))


def test_the_recipe_of_a_command_works(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is written, in a folder beside the built-in ones."""
    from icltool.plugin import commands

    for path, _, text in files(COMMAND):
        assert not (ROOT / path).exists()
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text, encoding="utf-8")
    package = importlib.import_module("icltool.commands")
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path / "icltool" / "commands")])
    test = ModuleType("test_labels")
    exec((tmp_path / "tests" / "commands" / "labels" / "test_run.py").read_text(encoding="utf-8"), test.__dict__)
    try:
        for registered in (commands.commands, commands.stages):
            registered.cache_clear()
        names = list(commands.commands())
        assert names.index("prepare") < names.index("labels") < names.index("embed")
        test.test_it_counts(*map(request.getfixturevalue, inspect.signature(test.test_it_counts).parameters))
    finally:
        for registered in (commands.commands, commands.stages):
            registered.cache_clear()
        for name in [name for name in sys.modules if name.startswith("icltool.commands.labels")]:
            del sys.modules[name]


def files(recipe: str) -> list[tuple[str, str, str]]:
    """(path, hook that a row goes into or "", text) of each file of a recipe: a comment with its path begins it."""
    _, *parts = re.split(r"^# (\S+\.(?:py|toml))(?:, (\w+))?\n", recipe, flags=re.MULTILINE)
    return [(path, hook or "", text) for path, hook, text in zip(parts[::3], parts[1::3], parts[2::3], strict=True)]
