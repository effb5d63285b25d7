"""A stage of its own, with one field of every form, for the tests of the command line."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from icltool.config.base import StageConfig
from icltool.contracts import Progress
from icltool.errors import StoreError


class SampleConfig(StageConfig):
    """One field of every form."""

    name: str = Field(description="what to do", json_schema_extra={"argument": True})
    anchors: int = Field(default=5000, ge=1, description="how many", json_schema_extra={"short": "-n"})
    rate: float | None = Field(
        default=None, gt=0, description="units per second", json_schema_extra={"default": "the machine's"}
    )
    order: Literal["left", "right"] = Field(
        default="left", description="which way", json_schema_extra={"group": "Demonstrations"}
    )
    level: Literal[1, 2, 3] = Field(default=1, description="how deep")
    pace: Literal["walking", "striding", "running"] = Field(default="running", description="how fast")
    methods: tuple[str, ...] = Field(
        default=("random",),
        description="methods",
        json_schema_extra={"flag": "--method", "complete": "retrievers", "group": "Demonstrations"},
    )
    shots: tuple[int, ...] = Field(
        default=(1, 2),
        description="numbers of demonstrations",
        json_schema_extra={"group": "Demonstrations", "daily": True, "aliases": ["--num-fewshot"]},
    )
    options: dict[str, Any] = Field(default_factory=dict, description="options", json_schema_extra={"flag": "option"})
    fast: bool = Field(default=False, description="hurry", json_schema_extra={"aliases": ["--quickly"]})
    output: Path | None = Field(default=None, description="where to write [N, D]")

    @model_validator(mode="after")
    def _anchors_fit(self) -> SampleConfig:
        if self.name == "small" and self.anchors > 10:
            raise ValueError("small takes at most 10 anchors")
        return self


@dataclass
class SampleReport:
    """What the sample stage returns: its configuration."""

    config: SampleConfig
    title: str = "sample"
    path: Path | None = None

    def rows(self) -> list[dict[str, Any]]:
        return [{"option": key, "value": value} for key, value in self.config.model_dump().items()]

    def lines(self) -> list[str]:
        return ["a remark"]


def run(config: SampleConfig, progress: Progress) -> SampleReport:
    """Does what `name` says."""
    progress.say("working")
    progress.detail("in detail")
    if config.name == "noisy":
        print("printed by a library")
        subprocess.run(["echo", "printed by a child process"], check=True)
    if config.name == "fail":
        raise StoreError("the file\nis broken", "make it\nanew")
    if config.name == "bug":
        raise RuntimeError("a bug")
    if config.name == "large":
        bytearray(1 << 62)
    if config.name == "wait":
        Path(os.environ["SAMPLE_READY"]).touch()
        time.sleep(600)
    return SampleReport(config)
