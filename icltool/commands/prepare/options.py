"""Options of `icltool prepare`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from icltool.config.base import StageConfig


class PrepareConfig(StageConfig):
    """Read a data set into records: every file checked first, one format for all data sets.

    Reads the official files of the data set (or makes them, for `shapes`), writes a prepared data set into the workspace.

        icltool prepare shapes
    """

    name: str = Field(
        description="data set to prepare, such as shapes, coco2017 or vqav2",
        json_schema_extra={"argument": True, "complete": "datasets"},
    )
    dataset: str | None = Field(
        default=None,
        description="what the prepared data set is called from then on; none: of folder the folder's name, of hub OWNER-NAME, "
        "else the data set's own name",
        json_schema_extra={"flag": "--name", "hidden_in_artefact": True},
    )
    root: Path | None = Field(
        default=None,
        description="folder that holds the official files, unpacked or as the zips they come in; none: taken from the data "
        "set's environment variable (COCO_PATH, SHERLOCK_PATH …), or made where the data set makes its own files",
        json_schema_extra={"hidden_in_artefact": True},
    )
    task: str = Field(
        default="all",
        description="task to prepare the data set for (`icltool plugins list --kind tasks`); all: every task that it serves",
        json_schema_extra={"complete": "tasks"},
    )
    task_file: Path | None = Field(
        default=None,
        description="a TOML file that defines the task, for folder and hub: the fields it asks for, its prompts, metrics",
        json_schema_extra={"hidden_in_artefact": True},
    )
    verify: bool = Field(
        default=False,
        description="open every image, not a sample of 50 per split",
        json_schema_extra={"hidden_in_artefact": True},
    )
    overwrite: bool = Field(
        default=False,
        description="replace a prepared data set of that name that was made from something else",
        json_schema_extra={"hidden_in_artefact": True},
    )
    options: dict[str, str | int | float | bool] = Field(
        default_factory=dict,
        description="options of the data set itself, such as seed=3 of shapes",
        json_schema_extra={"flag": "option"},
    )
