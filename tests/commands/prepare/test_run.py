"""`icltool prepare` from files to records, on real readers."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pydantic import ValidationError

from icltool.commands.prepare.options import PrepareConfig
from icltool.commands.prepare.run import PrepareReport, run
from icltool.config.resolve import resolve
from icltool.errors import ConfigError, DataError, IclError, PluginError, StoreError
from icltool.execution.progress import LineProgress, SilentProgress
from icltool.store.atomic import remove_folder_leftovers
from icltool.store.records import open_dataset
from icltool.store.workspace import Workspace
from tests.components.datasets.builders import edit, truncate, vqa_image, write_coco, write_image, write_vqa

SMALL = {"seed": 1, "index_images": 60, "validation_images": 12}


def prepare(workspace: Path, name: str, **options: Any) -> PrepareReport:
    return run(PrepareConfig(workspace=workspace, name=name, **options), SilentProgress())


def refused(kind: type[IclError], workspace: Path, name: str, **options: Any) -> IclError:
    with pytest.raises(kind) as caught:
        prepare(workspace, name, **options)
    assert "\n" not in caught.value.message
    return caught.value


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PrepareReport]:
    workspace = tmp_path_factory.mktemp("workspace")
    return workspace, prepare(workspace, "shapes", options=SMALL)


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """A folder with COCO 2017 and VQAv2."""
    root = tmp_path / "data"
    write_coco(root / "mscoco" / "mscoco2017")
    return write_vqa(root)


def state_of(folder: Path) -> dict[str, tuple[int, int]]:
    """Inode and modification time of every file: what has not been written is unchanged."""
    return {str(p): (p.stat().st_ino, p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()}


def test_shapes_for_all_its_tasks(shapes: tuple[Path, PrepareReport]) -> None:
    folder, report = shapes
    workspace = Workspace(folder)
    served = [("shapes", task) for task in ("caption", "inference", "style", "vqa")]
    assert workspace.prepared() == served
    assert workspace.choose_dataset() == ("shapes", "caption")
    caption, vqa = (open_dataset(workspace.dataset_folder("shapes", task)) for task in ("caption", "vqa"))
    assert (len(caption.split("train")), len(caption.split("validation"))) == (60, 12)
    assert len(vqa.split("train")) >= 60
    assert vqa.manifest["default_task"] == "caption"
    example = caption.split("train")[0]
    assert Path(example.image).is_file()
    assert example.image.startswith(str(folder / "datasets" / "shapes" / "source" / "mscoco"))
    assert caption.manifest["provenance"]["configuration"] == {"name": "shapes", "task": "caption", "options": SMALL}
    rows = report.rows()
    assert [(row["task"], row["split"], row["state"]) for row in rows] == [
        ("caption", "train", "prepared"),
        ("caption", "validation", "prepared"),
        ("vqa", "train", "prepared"),
        ("vqa", "validation", "prepared"),
        ("style", "train", "prepared"),
        ("style", "validation", "prepared"),
        ("style", "development", "prepared"),
        ("inference", "train", "prepared"),
        ("inference", "validation", "prepared"),
    ]
    assert rows[0]["examples"] == 60
    assert rows[1]["image groups"] == 12
    assert report.lines() == []
    assert report.path == workspace.datasets / "shapes"


def test_again_is_up_to_date_and_says_so(shapes: tuple[Path, PrepareReport]) -> None:
    workspace, first = shapes
    before = state_of(workspace)
    report = prepare(workspace, "shapes", options=SMALL)
    assert state_of(workspace) == before
    assert {row["state"] for row in report.rows()} == {"up to date"}
    assert report.lines() == ["up to date: shapes was prepared from the same files"]
    assert [row["fingerprint"] for row in report.rows()] == [row["fingerprint"] for row in first.rows()]


def test_its_files_read_as_coco2017_and_vqav2(shapes: tuple[Path, PrepareReport], tmp_path: Path) -> None:
    workspace = Workspace(shapes[0])
    source = workspace.datasets / "shapes" / "source"
    for name, task in (("coco2017", "caption"), ("vqav2", "vqa")):
        report = prepare(tmp_path, name, root=source, verify=True)
        assert len(report.lines()) == 2  # unofficial counts of both splits
        theirs = open_dataset(Workspace(tmp_path).dataset_folder(name, task))
        ours = open_dataset(workspace.dataset_folder("shapes", task))
        for split in ("train", "validation"):
            assert list(theirs.split(split)) == list(ours.split(split))


def test_the_same_seed_gives_the_same_fingerprint_elsewhere(shapes: tuple[Path, PrepareReport], tmp_path: Path) -> None:
    report = prepare(tmp_path / "deeper" / "workspace", "shapes", options=SMALL)
    assert [row["fingerprint"] for row in report.rows()] == [row["fingerprint"] for row in shapes[1].rows()]


def test_another_seed_is_another_data_set_and_the_other_task_is_named(tmp_path: Path) -> None:
    options = {"index_images": 4, "validation_images": 2}
    first = prepare(tmp_path, "shapes", options=options)
    other: dict[str, Any] = {"task": "caption", "options": {**options, "seed": 2}}
    error = refused(StoreError, tmp_path, "shapes", **other)
    assert error.message == "shapes (caption) is already prepared, with different options (seed: 0, now 2)"
    assert error.hint == "keep both with --name NAME, or replace it with --overwrite"
    second = prepare(tmp_path, "shapes", **other, overwrite=True)
    assert second.rows()[0]["fingerprint"] != first.rows()[0]["fingerprint"]
    assert second.rows()[0]["state"] == "prepared"
    assert second.lines() == [
        f"the files of task {task} have changed since it was prepared: run `icltool prepare shapes --task {task}`"
        for task in ("inference", "style", "vqa")
    ]


def test_one_task_only(official: Path, tmp_path: Path) -> None:
    workspace = tmp_path / "ws"
    assert {row["task"] for row in prepare(workspace, "vqav2", root=official, task="vqa").rows()} == {"vqa"}
    error = refused(ConfigError, workspace, "coco2017", root=official, task="vqa")
    assert error.message == "data set 'coco2017' has no task 'vqa'"
    assert error.hint == "its tasks: caption"


def test_changed_files_are_read_again(official: Path, tmp_path: Path) -> None:
    workspace = tmp_path / "ws"
    captions = official / "mscoco" / "mscoco2017" / "annotations" / "captions_train2017.json"
    first = prepare(workspace, "coco2017", root=official)
    edit(captions, lambda content: content["annotations"][0].update(caption="something else"))
    second = prepare(workspace, "coco2017", root=official)
    assert second.rows()[0]["state"] == "prepared"
    assert second.rows()[0]["fingerprint"] != first.rows()[0]["fingerprint"]
    os.utime(captions, ns=(1, 1))
    third = prepare(workspace, "coco2017", root=official)
    assert third.rows()[0]["state"] == "prepared"
    assert third.rows()[0]["fingerprint"] == second.rows()[0]["fingerprint"]
    assert prepare(workspace, "coco2017", root=official, verify=True).rows()[0]["state"] == "up to date"


def test_another_root_with_the_same_files_is_read_again(official: Path, tmp_path: Path) -> None:
    workspace = tmp_path / "ws"
    prepare(workspace, "coco2017", root=official)
    moved = tmp_path / "moved"
    shutil.move(official, moved)
    assert prepare(workspace, "coco2017", root=moved).rows()[0]["state"] == "prepared"
    image = open_dataset(workspace / "datasets" / "coco2017" / "caption").split("train")[0].image
    assert image.startswith(str(moved))


def test_other_images_at_the_same_places_are_another_version(official: Path, tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    first = prepare(workspace, "vqav2", root=official).prepared["vqa"]["fingerprint"]
    image = next(vqa_image(official, "train", 1).parent.iterdir())
    before = image.read_bytes()
    write_image(image, size=31)
    again = prepare(workspace, "vqav2", root=official)
    changed = again.prepared["vqa"]["fingerprint"]
    assert changed != first
    assert any(remark.startswith("1 image has changed") for remark in again.remarks)
    assert prepare(workspace, "vqav2", root=official).states["vqa"] == "up to date"
    open_dataset(workspace / "datasets" / "vqav2" / "vqa").check_images()
    image.write_bytes(before)
    with pytest.raises(StoreError, match="changed since"):
        open_dataset(workspace / "datasets" / "vqav2" / "vqa").check_images()
    assert prepare(workspace, "vqav2", root=official).prepared["vqa"]["fingerprint"] not in (first, changed)


def test_verified_images_are_known_by_their_content(official: Path, tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    first = prepare(workspace, "vqav2", root=official, verify=True).prepared["vqa"]["fingerprint"]
    image = next(vqa_image(official, "train", 1).parent.iterdir())
    os.utime(image, ns=(0, image.stat().st_mtime_ns + 10**9))
    again = prepare(workspace, "vqav2", root=official, verify=True)
    assert again.prepared["vqa"]["fingerprint"] == first
    written = image.stat()
    image.write_bytes(image.read_bytes() + b"?")  # behind the end of the image
    os.utime(image, ns=(0, written.st_mtime_ns))
    assert prepare(workspace, "vqav2", root=official, verify=True).prepared["vqa"]["fingerprint"] != first


def test_a_damaged_data_set_is_written_anew(official: Path, tmp_path: Path) -> None:
    workspace = tmp_path / "ws"
    prepare(workspace, "vqav2", root=official)
    folder = workspace / "datasets" / "vqav2" / "vqa"
    truncate(next((folder / "train").glob("*.arrow")))
    report = prepare(workspace, "vqav2", root=official)
    assert report.rows()[0]["state"] == "prepared"
    assert any(line.startswith(f"prepared again: {folder / 'train'} ") for line in report.lines())
    assert len(open_dataset(folder).split("train")) == 3


def test_nothing_is_written_when_the_check_fails(official: Path, tmp_path: Path) -> None:
    workspace = tmp_path / "ws"
    image = vqa_image(official, "train", 9)
    truncate(image)
    error = refused(DataError, workspace, "vqav2", root=official)
    assert error.message.startswith(f"image {image} cannot be read")
    assert not workspace.exists()


def test_a_failed_check_keeps_what_was_prepared(official: Path, tmp_path: Path) -> None:
    workspace = tmp_path / "ws"
    prepare(workspace, "vqav2", root=official)
    before = state_of(workspace)
    vqa_image(official, "val", 785).unlink()
    error = refused(DataError, workspace, "vqav2", root=official)
    assert "names 1 image missing from" in error.message
    assert state_of(workspace) == before


def test_unknown_data_set(tmp_path: Path) -> None:
    error = refused(PluginError, tmp_path, "coco2O17", root=tmp_path)
    assert "coco2O17" in error.message
    assert "coco2017" in str(error.hint)


def test_root_for_a_data_set_that_makes_its_files(tmp_path: Path) -> None:
    error = refused(ConfigError, tmp_path, "shapes", root=tmp_path)
    assert error.message == "--root: data set 'shapes' makes its own files"
    assert not (tmp_path / "datasets").exists()


def test_option_that_the_data_set_does_not_have(official: Path, tmp_path: Path) -> None:
    error = refused(ConfigError, tmp_path, "coco2017", root=official, options={"seed": 3})
    assert "coco2017" in error.message
    assert "seed" in error.message


def test_source_folder_that_is_something_else(tmp_path: Path) -> None:
    source = tmp_path / "datasets" / "shapes" / "source"
    write_image(source / "holiday.png")
    assert refused(StoreError, tmp_path, "shapes").message == f"{source} contains something other than a world"
    assert (source / "holiday.png").exists()


def test_workspace_that_cannot_be_written(official: Path, tmp_path: Path) -> None:
    folder = Path("/sys/icltool-test")
    assert refused(StoreError, folder, "coco2017", root=official).message.startswith(
        f"{folder / 'datasets' / 'coco2017' / 'caption'} is read-only"
    )
    assert refused(StoreError, folder, "shapes").message.startswith(
        f"{folder / 'datasets' / 'shapes' / 'source'} is read-only"
    )


def test_relative_workspace_gives_absolute_image_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    prepare(Path("ws"), "shapes", task="caption", options={"index_images": 4, "validation_images": 2})
    image = open_dataset(tmp_path / "ws" / "datasets" / "shapes" / "caption").split("train")[0].image
    assert image.startswith(str(tmp_path / "ws"))
    assert Path(image).is_file()


def test_progress_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = PrepareConfig(
        workspace=tmp_path, name="shapes", options={"index_images": 4, "validation_images": 2}, verify=True
    )
    run(config, LineProgress(verbose=True, patience=0.0))
    stderr = capsys.readouterr().err
    for expected in (
        "rendering images: 6 images",
        "opening train2017: 4 images",
        "shapes (caption): train: 4 examples",
    ):
        assert expected in stderr


def test_options_from_the_command_line(tmp_path: Path) -> None:
    config = resolve(
        "prepare", PrepareConfig, {"name": "shapes", "options": ["seed=3", "note=a b"], "workspace": str(tmp_path)}
    )
    assert isinstance(config, PrepareConfig)
    assert config.options == {"seed": 3, "note": "a b"}
    assert "unknown task 'ranking'" in refused(PluginError, tmp_path, "shapes", task="ranking").message


def test_configuration_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ValidationError):
        PrepareConfig(name="shapes", colour="red")  # type: ignore[call-arg]
    with pytest.raises(ValidationError):
        PrepareConfig(name="shapes", options={"seed": [1, 2]})  # type: ignore[dict-item]


def folder_of_captions(root: Path) -> Path:
    root.mkdir()
    rows = ["image,caption"]
    for number in range(12):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(root / f"{number}.png")
        rows.append(f"{number}.png,image {number}")
    (root / "table.csv").write_text("\n".join(rows) + "\n")
    return root


def test_a_readers_of_own_files_prepares_the_tasks_that_they_allow(tmp_path: Path) -> None:
    root = folder_of_captions(tmp_path / "mine")
    report = prepare(tmp_path / "work", "folder", root=root)
    assert set(report.states) == {"caption"}
    assert "task: caption (recognised by the columns)" in report.remarks
    assert not any("not prepared" in line for line in report.remarks)
    with pytest.raises(DataError, match="question"):
        prepare(tmp_path / "work", "folder", root=root, task="vqa")


def test_no_task_fits(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    root.mkdir()
    (root / "table.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"table\.csv"):
        prepare(tmp_path / "work", "folder", root=root)


@pytest.mark.parametrize("name", ["gone.png", "cut.png"])
def test_the_fault_of_the_task_that_came_furthest_is_told(tmp_path: Path, name: str) -> None:
    root = tmp_path / "mine"
    for number in range(3):
        write_image(root / f"{number}.png")
    write_image(root / "cut.png")
    truncate(root / "cut.png")
    rows = [f"{number}.png,what is it?,an image" for number in range(3)]
    (root / "table.csv").write_text("\n".join(["image,question,answer", *rows, f"{name},what?,none"]) + "\n")
    error = refused(DataError, tmp_path / "work", "folder", root=root)
    assert name in error.message
    assert "caption" not in error.message


def test_two_tables_have_two_names(tmp_path: Path) -> None:
    workspace = tmp_path / "work"
    roots = [folder_of_captions(tmp_path / name) for name in ("my photos", "others")]
    assert prepare(workspace, "folder", root=roots[0]).path == workspace / "datasets" / "my-photos"
    prepare(workspace, "folder", root=roots[1])
    prepare(workspace, "folder", root=roots[1], dataset="third", options={"seed": 5})
    assert Workspace(workspace).prepared() == [(name, "caption") for name in ("my-photos", "others", "third")]
    error = refused(StoreError, workspace, "folder", root=roots[1], options={"seed": 5})
    assert error.message == "others (caption) is already prepared, with different options (seed: 0, now 5)"
    error = refused(StoreError, workspace, "folder", root=roots[1], options={"table": "captions.csv"})
    assert (
        error.message
        == "others (caption) is already prepared, with different options (table: not set, now captions.csv)"
    )
    error = refused(StoreError, workspace, "folder", root=roots[0], dataset="others")
    assert error.message == f"others (caption) is already prepared, from {roots[1]}"
    first = open_dataset(workspace / "datasets" / "others" / "caption").fingerprint
    (roots[1] / "table.csv").write_text((roots[1] / "table.csv").read_text().replace("image 3", "another"))
    assert prepare(workspace, "folder", root=roots[1]).states == {"caption": "prepared"}
    assert open_dataset(workspace / "datasets" / "others" / "caption").fingerprint != first
    assert prepare(workspace, "folder", root=roots[0], dataset="others", overwrite=True).states == {
        "caption": "prepared"
    }
    shutil.rmtree(workspace / "datasets" / "third" / "caption" / "train")
    with pytest.raises(StoreError) as caught:
        open_dataset(workspace / "datasets" / "third" / "caption").split("train")
    assert caught.value.hint == "run `icltool prepare folder --name third --task caption` again"


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "-x", "a b", "x\n"])
def test_a_name_that_is_no_file_name_is_refused(tmp_path: Path, name: str) -> None:
    assert "is not a valid name" in refused(ConfigError, tmp_path, "shapes", dataset=name).message


def test_a_world_of_a_name_lies_below_it(tmp_path: Path) -> None:
    report = prepare(
        tmp_path, "shapes", dataset="small", task="caption", options={"index_images": 4, "validation_images": 2}
    )
    assert report.path == tmp_path / "datasets" / "small"
    assert (tmp_path / "datasets" / "small" / "source" / "world.json").is_file()


def test_a_data_set_that_lost_its_name_for_a_moment_is_there_again(official: Path, tmp_path: Path) -> None:
    prepare(tmp_path, "coco2017", root=official)
    folder = tmp_path / "datasets" / "coco2017" / "caption"
    fingerprint = open_dataset(folder).fingerprint
    folder.rename(folder.with_name(".caption.0a1b2c3d.tmp"))  # a kill between two renames
    half = folder.with_name(".caption.ffffffff.tmp")
    half.mkdir()
    remove_folder_leftovers(folder, "dataset.json")
    assert open_dataset(folder).fingerprint == fingerprint
    assert [path.name for path in folder.parent.iterdir() if path.is_dir()] == ["caption"]


def test_the_manifest_names_options_that_were_left_at_their_defaults(tmp_path: Path) -> None:
    root = folder_of_captions(tmp_path / "mine")
    report = prepare(tmp_path / "work", "folder", root=root)
    assert report.prepared["caption"]["provenance"]["inputs"]["options"] == {"seed": 0}


def test_a_limit_takes_part_of_each_split_and_is_recorded(official: Path, tmp_path: Path) -> None:
    def ids(split: str, **options: Any) -> set[int]:
        prepare(tmp_path, "vqav2", root=official, overwrite=True, **options)
        return set(open_dataset(Workspace(tmp_path).dataset_folder("vqav2", "vqa")).split(split).ids.tolist())

    whole, two, one = ids("train"), ids("train", limit=2), ids("train", limit=1)
    assert [len(part) for part in (whole, two, one)] == [3, 2, 1]
    assert one < two < whole
    manifest = open_dataset(Workspace(tmp_path).dataset_folder("vqav2", "vqa")).manifest
    assert manifest["provenance"]["inputs"]["limit"] == 1
    error = refused(StoreError, tmp_path, "vqav2", root=official)
    assert error.message == "vqav2 (vqa) is already prepared, with different options (--limit: 1, now not set)"
    assert "up to date" in prepare(tmp_path, "vqav2", root=official, limit=1).remarks[-1]


def test_a_folder_for_each_class_is_a_classification_without_a_text(tmp_path: Path) -> None:
    for number, name in enumerate(("cat", "cat", "dog", "dog")):
        write_image(tmp_path / "pets" / name / f"{number}.png", 16 + number)
    report = prepare(tmp_path / "ws", "imagefolder", root=tmp_path / "pets", options={"validation": 0.5})
    assert report.title == "Data set pets"
    dataset = open_dataset(Workspace(tmp_path / "ws").dataset_folder("pets", "classification"))
    assert dataset.declared is not None
    assert dataset.declared.fields == ("image",)
    assert dataset.manifest["image_namespace"] == "imagefolder"
    texts = {split: [e.text for e in dataset.split(split)] for split in ("train", "validation")}
    assert texts == {"train": ["cat", "dog"], "validation": ["", ""]}
