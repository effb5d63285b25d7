"""Names in the workspace, and what is chosen when the user does not say."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from icltool.errors import StoreError
from icltool.store.atomic import write_json
from icltool.store.workspace import Workspace


def prepare(workspace: Workspace, name: str, task: str, default: str) -> None:
    write_json(workspace.dataset_folder(name, task) / "dataset.json", {"default_task": default})


def touch(path: Path, seconds: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    os.utime(path, (seconds, seconds))
    return path


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "ws")


def test_paths(workspace: Workspace) -> None:
    root = workspace.root
    assert workspace.dataset_folder("shapes", "vqa") == root / "datasets/shapes/vqa"
    assert workspace.embeddings_file("shapes", "vqa", "train", "tiny-clip") == (
        root / "embeddings/shapes-vqa-train-tiny-clip.h5"
    )
    assert workspace.sequences_file("shapes", "caption", "idefics-9b", "mix", "infoscore", "0a1b2c3d") == (
        root / "sequences/shapes-caption-idefics-9b-mix-infoscore-0a1b2c3d.h5"
    )
    assert workspace.sequences_file("shapes", "caption", "", "mix", "cosine", "0a1b2c3d").name == (
        "shapes-caption-mix-cosine-0a1b2c3d.h5"
    )
    assert workspace.sequences_file("shapes", "caption", "/models/mine", "mix", "cosine", "0a").name == (
        "shapes-caption-models--mine-mix-cosine-0a.h5"
    )
    assert workspace.checkpoint_folder("lever-lm", "shapes", "vqa", "ff") == root / "checkpoints/lever-lm-shapes-vqa-ff"
    assert workspace.evaluation_folder("shapes", "vqa", "tiny", "ff") == root / "evaluations/shapes-vqa-tiny-ff"
    assert not root.exists()


def test_nothing_prepared(workspace: Workspace) -> None:
    assert workspace.prepared() == []
    with pytest.raises(StoreError) as caught:
        workspace.choose_dataset(None, None)
    assert caught.value.hint == "run `icltool prepare NAME`"
    with pytest.raises(StoreError) as caught:
        workspace.choose_dataset("coco2017", None)
    assert caught.value.hint == "run `icltool prepare coco2017`"


@pytest.mark.parametrize(
    ("name", "task", "hint"),
    [
        ("coco", None, "did you mean 'coco2017'? otherwise run `icltool prepare coco`"),
        ("shaeps", "vqa", "did you mean 'shapes'? otherwise run"),
        ("coco2017", "captoin", "did you mean 'caption'? otherwise run"),
        (None, "vqas", "did you mean 'vqa'? otherwise run `icltool prepare NAME --task vqas`"),
        ("coco2017", "vqa", "run `icltool prepare coco2017 --task vqa`"),
        ("okvqa", None, "run `icltool prepare okvqa`"),
    ],
)
def test_what_may_be_meant_comes_before_a_command(
    workspace: Workspace, name: str | None, task: str | None, hint: str
) -> None:
    for there, of in (("coco2017", "caption"), ("shapes", "vqa")):
        prepare(workspace, there, of, of)
    with pytest.raises(StoreError) as caught:
        workspace.choose_dataset(name, task)
    assert str(caught.value.hint).startswith(hint)
    if name is None:
        assert caught.value.message.startswith("no data set for task 'vqas' is prepared in ")


def test_the_only_one(workspace: Workspace) -> None:
    prepare(workspace, "shapes", "vqa", "caption")
    assert workspace.prepared() == [("shapes", "vqa")]
    assert workspace.choose_dataset(None, None) == ("shapes", "vqa")


def test_default_task(workspace: Workspace) -> None:
    for task in ("vqa", "caption"):
        prepare(workspace, "shapes", task, "vqa")
    assert workspace.prepared() == [("shapes", "caption"), ("shapes", "vqa")]
    assert workspace.choose_dataset(None, None) == ("shapes", "vqa")
    assert workspace.choose_dataset("shapes", "caption") == ("shapes", "caption")


def test_default_task_that_is_not_prepared(workspace: Workspace) -> None:
    for task in ("vqa", "caption"):
        prepare(workspace, "shapes", task, "classify")
    with pytest.raises(StoreError, match="caption, vqa"):
        workspace.choose_dataset("shapes", None)


def test_several(workspace: Workspace) -> None:
    prepare(workspace, "shapes", "caption", "caption")
    prepare(workspace, "vqav2", "vqa", "vqa")
    with pytest.raises(StoreError, match=r"shapes \(caption\), vqav2 \(vqa\)") as caught:
        workspace.choose_dataset(None, None)
    assert "--dataset" in str(caught.value.hint)
    assert workspace.choose_dataset(None, "vqa") == ("vqav2", "vqa")
    assert workspace.choose_dataset("shapes", None) == ("shapes", "caption")
    with pytest.raises(StoreError, match="'shapes' for task 'vqa' is not prepared") as caught:
        workspace.choose_dataset("shapes", "vqa")
    assert caught.value.hint == "run `icltool prepare shapes --task vqa`"


def test_half_prepared_is_not_prepared(workspace: Workspace) -> None:
    (workspace.datasets / "shapes" / "source").mkdir(parents=True)
    write_json(workspace.datasets / "shapes" / ".vqa.tmp" / "dataset.json", {})
    assert workspace.prepared() == []


def test_malformed_manifest(workspace: Workspace) -> None:
    for task in ("vqa", "caption"):
        write_json(workspace.dataset_folder("shapes", task) / "dataset.json", [1])
    with pytest.raises(StoreError, match=r"dataset\.json is malformed"):
        workspace.choose_dataset(None, None)


def test_newest_sequences(workspace: Workspace) -> None:
    with pytest.raises(StoreError) as caught:
        workspace.newest_sequences("a", "vqa")
    assert caught.value.hint == "run `icltool generate --dataset a --task vqa`"
    prepare(workspace, "a", "vqa", "vqa")
    prepare(workspace, "a-vqa-x", "vqa", "vqa")
    touch(workspace.sequences / "a-vqa-one.h5", 100)
    expected = touch(workspace.sequences / "a-vqa-two.h5", 200)
    for number, name in enumerate(("a-caption-x.h5", ".a-vqa-3.01234567.tmp.h5", "a-vqa-4.json", "a-vqa-x-vqa-5.h5")):
        touch(workspace.sequences / name, 300 + number)
    assert workspace.newest_sequences("a", "vqa") == expected


def test_all_of_one_data_set_the_newest_first(workspace: Workspace) -> None:
    """For any split, and none of a data set whose longer name begins alike."""
    prepare(workspace, "a", "vqa", "vqa")
    prepare(workspace, "a-vqa-x", "vqa", "vqa")
    assert workspace.sequences_of("a", "vqa") == []
    old = touch(workspace.sequences / "a-vqa-m-random-infoscore-1.h5", 100)
    new = touch(workspace.sequences / "a-vqa-m-random-infoscore-validation-2.h5", 200)
    touch(workspace.sequences / "a-vqa-x-vqa-m-random-infoscore-3.h5", 300)
    assert workspace.sequences_of("a", "vqa") == [new, old]
    for number, seconds in ((1, 20), (2, 30), (3, 10)):
        touch(workspace.evaluations / f"e{number}" / "results.json", seconds)
    touch(workspace.evaluations / ".e4.01234567.tmp" / "results.json", 40)
    assert [folder.name for folder in workspace.evaluated()] == ["e2", "e1", "e3"]


def test_newest_checkpoint(workspace: Workspace) -> None:
    (workspace.checkpoints / "lever-lm-a-vqa-00").mkdir(parents=True)
    with pytest.raises(StoreError) as caught:
        workspace.newest_checkpoint("lever-lm", "a", "vqa")
    assert caught.value.hint == "run `icltool train lever-lm --dataset a --task vqa`"
    expected = touch(workspace.checkpoints / "lever-lm-a-vqa-11" / "min_vl" / "model.safetensors", 200).parents[1]
    touch(workspace.checkpoints / "lever-lm-a-vqa-22" / "last.ckpt", 100)
    touch(workspace.checkpoints / "live-a-vqa-33" / "last.ckpt", 300)
    touch(workspace.checkpoints / "lever-lm-a-vqa-44" / "metrics.csv", 400)
    assert workspace.newest_checkpoint("lever-lm", "a", "vqa") == expected
    assert workspace.checkpoints_of("lever-lm", "a", "vqa") == [expected, expected.with_name("lever-lm-a-vqa-22")]
    assert workspace.checkpoints_of("lever-lm", "b", "vqa") == []


def test_newest_evaluation(workspace: Workspace) -> None:
    with pytest.raises(StoreError) as caught:
        workspace.newest_evaluation()
    assert caught.value.hint == "run `icltool evaluate`"
    touch(workspace.evaluations / "old" / "results.json", 100)
    expected = touch(workspace.evaluations / "new" / "results.json", 200).parent
    touch(workspace.evaluations / "unfinished" / "predictions.jsonl", 300)
    assert workspace.newest_evaluation() == expected


def test_a_finished_training_goes_before_a_newer_one_that_was_interrupted(workspace: Workspace) -> None:
    finished = touch(workspace.checkpoints / "lever-lm-a-vqa-11" / "min_vl.safetensors", 100).parent
    interrupted = touch(workspace.checkpoints / "lever-lm-a-vqa-22" / "min_vl.safetensors", 200).parent
    assert workspace.newest_checkpoint("lever-lm", "a", "vqa") == interrupted
    (finished / "training.json").write_text("{}")
    assert workspace.newest_checkpoint("lever-lm", "a", "vqa") == finished
