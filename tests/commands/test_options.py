"""The options of every command: grouped, described in one manner, with examples that can be copied."""

from __future__ import annotations

import inspect
import shlex

import pytest

from icltool.config.fields import extras, flag_of
from icltool.config.groups import GROUPS
from icltool.plugin.commands import command_module, stage_model, stages

MODELS = {**{name: stage_model(name) for name in stages()}, "clean": command_module("clean", "options").CleanConfig}
#: Options of every command, without a field.
COMMON = {"--profile", "--set", "--quiet", "--verbose", "--json"}


@pytest.mark.parametrize("command", MODELS)
def test_every_option_has_a_group_and_a_description(command: str) -> None:
    for name, field in MODELS[command].model_fields.items():
        description, extra = field.description or "", extras(field)
        assert extra.get("group") in GROUPS, name
        assert description[:1].islower() or description[:2].isupper(), name
        assert not description.endswith("."), name
        assert "none:" not in description.lower(), f"{name}: a default in words is the key `default`"
        assert not extra.get("default", "").endswith("."), name


@pytest.mark.parametrize("command", MODELS)
def test_the_short_help_is_short_and_not_empty(command: str) -> None:
    daily = [name for name, field in MODELS[command].model_fields.items() if extras(field).get("daily")]
    assert 4 <= len(daily) <= 20


@pytest.mark.parametrize("command", MODELS)
def test_examples_fit_the_screen_and_name_options_of_the_command(command: str) -> None:
    model = MODELS[command]
    lines = inspect.cleandoc(model.__doc__ or "").splitlines()
    examples = [line for line in lines if line.startswith("    ")]
    assert examples
    flags = {flag_of(name, field): field for name, field in model.model_fields.items()}
    known = {*flags, *("--no-" + flag[2:] for flag in flags), *COMMON}
    for example in examples:
        assert len(example) <= 80
        words = shlex.split(example)
        assert words[:2] == ["icltool", command]
        assert {word.split("=")[0] for word in words if word.startswith("--")} <= known
