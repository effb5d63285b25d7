"""The embedded world as a data set, read by the readers of the real ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from icltool.components.datasets.coco2017 import Coco2017Reader
from icltool.components.datasets.personality_captions import PersonalityCaptionsOptions, PersonalityCaptionsReader
from icltool.components.datasets.shapes import ShapesOptions, ShapesReader
from icltool.components.datasets.sherlock import SherlockOptions, SherlockReader
from icltool.components.datasets.vqav2 import VQAv2Reader
from icltool.contracts import DatasetReader, Example
from icltool.errors import ConfigError, DataError, IclError
from icltool.execution.progress import SilentProgress
from icltool.plugin.manager import component
from icltool.world.scenes import dataset_lexicon
from tests.components.datasets.builders import truncate

OPTIONS = {"seed": 5, "index_images": 52, "validation_images": 12}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("workspace")
    ShapesReader(ShapesOptions(**OPTIONS)).make(folder, SilentProgress())
    return folder


def read(reader: DatasetReader, root: Path | None, task: str, workspace: Path) -> dict[str, list[Example]]:
    return {split.name: list(split.examples) for split in reader.read(root, task, workspace, SilentProgress())}


def test_registered_and_of_the_protocol() -> None:
    reader = component("datasets", "shapes", **OPTIONS)
    assert isinstance(reader, DatasetReader)
    assert reader.tasks == ("caption", "vqa", "style", "inference")


def test_the_readers_of_the_real_data_sets_give_the_same(workspace: Path) -> None:
    shapes, source = ShapesReader(ShapesOptions(**OPTIONS)), workspace / "datasets" / "shapes" / "source"
    assert read(shapes, None, "caption", workspace) == read(Coco2017Reader(), source, "caption", workspace)
    assert read(shapes, None, "vqa", workspace) == read(VQAv2Reader(), source, "vqa", workspace)
    assert read(shapes, None, "style", workspace) == read(
        PersonalityCaptionsReader(PersonalityCaptionsOptions()), source, "style", workspace
    )
    assert read(shapes, None, "inference", workspace) == read(
        SherlockReader(SherlockOptions()), source, "inference", workspace
    )


def test_every_scene_is_a_group_and_labels_are_the_lexicon_s(workspace: Path) -> None:
    lexicon = dataset_lexicon(5)
    captions = read(ShapesReader(ShapesOptions(**OPTIONS)), None, "caption", workspace)
    groups = {split: {e.group for e in examples} for split, examples in captions.items()}
    assert (len(groups["train"]), len(groups["validation"])) == (52, 12)
    assert not groups["train"] & groups["validation"]
    for example in captions["train"]:
        start, colour, shape = example.label.split()
        assert (start, colour in lexicon.colours, shape in lexicon.shapes) == ("a", True, True)
        assert len(example.references) == 5
    labels = {
        example.label for example in read(ShapesReader(ShapesOptions(**OPTIONS)), None, "vqa", workspace)["train"]
    }
    assert labels <= set(lexicon.colours + lexicon.shapes)


def test_queries_of_every_task_show_held_out_scenes(workspace: Path) -> None:
    for task in ("caption", "vqa", "style", "inference"):
        splits = read(ShapesReader(ShapesOptions(**OPTIONS)), None, task, workspace)
        groups = {name: {example.group for example in examples} for name, examples in splits.items()}
        assert "" not in set().union(*groups.values())
        assert len(groups["train"]) == 52
        assert not groups["train"] & set().union(*(images for name, images in groups.items() if name != "train")), task
    styled = read(ShapesReader(ShapesOptions(**OPTIONS)), None, "style", workspace)
    assert set(styled) == {"train", "validation", "development"}
    assert {len(example.references) for example in styled["validation"]} == {5}
    assert not {e.image for e in styled["validation"]} & {e.image for e in styled["development"]}


def test_check_finds_nothing_to_remark_on_complete_files(workspace: Path) -> None:
    reader = ShapesReader(ShapesOptions(**OPTIONS))
    source = reader.make(workspace, SilentProgress())
    for task in reader.tasks:
        report = reader.check(source, task, verify=True)
        assert report.remarks == ()
        assert all(path.is_file() and path.is_relative_to(source) for path in report.files)
    assert reader.check(None, "caption", verify=False).files == ()


def test_a_world_of_one_image_a_split_serves_every_task(tmp_path: Path) -> None:
    reader = ShapesReader(ShapesOptions(seed=0, index_images=1, validation_images=1))
    source = reader.make(tmp_path, SilentProgress())
    for task in reader.tasks:
        assert reader.check(source, task, verify=True).files
        assert all(read(reader, source, task, tmp_path).values()), task


def test_damaged_files_are_made_again(tmp_path: Path) -> None:
    reader = ShapesReader(ShapesOptions(seed=0, index_images=4, validation_images=2))
    source = reader.make(tmp_path, SilentProgress())
    image = next((source / "mscoco" / "mscoco2017" / "val2017").iterdir())
    truncate(image)
    with pytest.raises(DataError) as caught:
        reader.check(source, "caption", verify=False)
    assert caught.value.message.startswith(f"image {image} cannot be read: ")
    assert (
        caught.value.hint == f"remove {source} and run `icltool prepare shapes` again, which generates the files again"
    )
    with pytest.raises(DataError, match=r"COCO_val2014_\d+\.jpg cannot be read"):
        reader.verify(source, "vqa", SilentProgress())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": "three"}, "dataset 'shapes': seed must be a non-negative integer, got 'three'"),
        ({"seed": -1}, "dataset 'shapes': seed must be a non-negative integer, got -1"),
        ({"index_images": 0}, "dataset 'shapes': index_images must be a positive integer, got 0"),
        ({"validation_images": True}, "dataset 'shapes': validation_images must be a positive integer, got True"),
        ({"colour": 3}, "dataset 'shapes'"),
    ],
)
def test_wrong_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(IclError) as caught:
        component("datasets", "shapes", **options)
    assert isinstance(caught.value, ConfigError)
    assert caught.value.message.startswith(message)
