"""Options of `icltool prepare`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from icltool.config.base import HIDDEN, StageConfig

_DATA: dict[str, Any] = {**HIDDEN, "group": "Data"}


class PrepareConfig(StageConfig):
    """Check a data set and convert it to icltool's format.

    Reads the official files of a data set, a folder of your own images with a table, or a data set of the Hugging Face hub;
    writes a prepared data set to the workspace. `icltool plugins list --kind datasets` lists the names.

        icltool prepare shapes
        icltool prepare folder --root my-images --option table=captions.csv
        icltool prepare coco2017 --root /data/coco
    """

    name: str = Field(
        description="data set to prepare, such as shapes, folder or coco2017",
        json_schema_extra={"group": "Data", "argument": True, "complete": "datasets"},
    )
    dataset: str | None = Field(
        default=None,
        description="name of the prepared data set, for --dataset of the other commands",
        json_schema_extra={
            **_DATA,
            "daily": True,
            "flag": "--name",
            "default": "the folder's name for folder, OWNER-NAME for hub, else NAME",
        },
    )
    root: Path | None = Field(
        default=None,
        description="folder of your own images, or of the official files of the data set, as zip files or unpacked",
        json_schema_extra={
            **_DATA,
            "daily": True,
            "default": "the environment variable of the data set, such as COCO_PATH; shapes needs none",
        },
    )
    task: str = Field(
        default="all",
        description="task to prepare the data set for, from `icltool plugins list --kind tasks`; all prepares every task that "
        "it supports",
        json_schema_extra={"group": "Data", "daily": True, "complete": "tasks"},
    )
    task_file: Path | None = Field(
        default=None,
        description="folder and hub: TOML file that defines a task of your own, with its fields, prompts and metrics",
        json_schema_extra=_DATA,
    )
    limit: int | None = Field(
        default=None,
        ge=1,
        description="number of examples to take of each split, drawn at random; more include those of fewer",
        json_schema_extra={**_DATA, "default": "all"},
    )
    verify: bool = Field(
        default=False,
        description="open every image instead of a sample of 50 per split",
        json_schema_extra={**_DATA, "daily": True},
    )
    overwrite: bool = Field(
        default=False,
        description="replace a prepared data set that has the same name but other content",
        json_schema_extra={**HIDDEN, "group": "Output", "daily": True},
    )
    options: dict[str, str | int | float | bool] = Field(
        default_factory=dict,
        description="option of the data set, such as table=captions.csv for folder; repeatable. `icltool plugins show datasets "
        "NAME` lists them",
        json_schema_extra={"group": "Data", "daily": True, "flag": "option"},
    )
