"""Options of executors: which one is meant, and what excludes what."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from icltool.commands.embed.options import EmbedConfig
from icltool.commands.evaluate.options import EvaluateConfig
from icltool.commands.generate.options import GenerateConfig
from icltool.commands.train.options import TrainConfig
from icltool.config.executor import ExecutorConfig


@pytest.mark.parametrize(
    ("values", "name", "options"),
    [
        ({}, "local", {}),
        ({"executor": "local"}, "local", {}),
        ({"devices": (0, 1)}, "ray", {"devices": (0, 1)}),
        ({"workers": 2}, "ray", {"workers": 2}),
        ({"address": "auto", "gpus_per_worker": 0}, "ray", {"address": "auto", "gpus_per_worker": 0}),
        ({"executor": "mine", "cpus_per_worker": 2}, "mine", {"cpus_per_worker": 2}),
    ],
)
def test_the_options_say_which_executor(values: dict[str, Any], name: str, options: dict[str, Any]) -> None:
    config = ExecutorConfig(**values)
    assert config.executor_name == name
    assert config.executor_options() == options


@pytest.mark.parametrize(
    "options",
    [
        {"devices": (0,), "address": "auto"},
        {"executor": "local", "workers": 2},
        {"executor": "local", "ship_data": True},
        {"ship_data": True},
        {"gpus_per_worker": 1},
        {"workers": 0},
        {"devices": (-1,)},
    ],
)
def test_what_does_not_go_together_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ExecutorConfig(**options)


def test_they_decide_no_content() -> None:
    for config in (GenerateConfig, EmbedConfig, EvaluateConfig):
        assert config().identity() == config(workers=4, cpus_per_worker=2, address="auto").identity()


def test_devices_and_device_exclude_each_other() -> None:
    for config in (GenerateConfig, EmbedConfig, EvaluateConfig):
        assert config(devices=(0,)).executor_name == "ray"
        with pytest.raises(ValidationError, match="leave out --device"):
            config(devices=(0,), device="cpu")


def test_training_has_none_of_them() -> None:
    assert not set(ExecutorConfig.model_fields) - {"workspace"} & set(TrainConfig.model_fields)
