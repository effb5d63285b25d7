"""The built-in dataset readers pass the suite of readers, on files of the embedded world."""

from __future__ import annotations

from pathlib import Path

import pytest

from icltool.plugin.manager import component
from icltool.testing import QuietProgress, check_dataset

SMALL = {"index_images": 60, "validation_images": 15}


@pytest.mark.parametrize("task", ["caption", "vqa"])
def test_shapes_conforms(task: str, tmp_path: Path) -> None:
    check_dataset(lambda: component("datasets", "shapes", **SMALL), None, task, tmp_path)


@pytest.mark.parametrize(("name", "task"), [("coco2017", "caption"), ("vqav2", "vqa")])
def test_a_reader_of_official_files_conforms(name: str, task: str, tmp_path: Path) -> None:
    root = component("datasets", "shapes", **SMALL).make(tmp_path / "made", QuietProgress())
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    check_dataset(lambda: component("datasets", name), root, task, workspace)
