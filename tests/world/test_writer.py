"""The world's files: official fields, captions and answers that say what the lexicon says, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from icltool.errors import StoreError
from icltool.execution.progress import SilentProgress
from icltool.world.annotations import QUESTIONS
from icltool.world.scenes import all_scenes, dataset_lexicon, split_scenes
from icltool.world.writer import WorldOptions, draw_shots, is_finished, write_world

OPTIONS = WorldOptions(seed=3, index_images=60, validation_images=24)
SPLITS = (("train", 60), ("val", 24))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world") / "source"
    assert write_world(root, OPTIONS, SilentProgress())
    return root


def loaded(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def captions(world: Path, split: str) -> dict[str, Any]:
    return loaded(world / "mscoco" / "mscoco2017" / "annotations" / f"captions_{split}2017.json")


def contents(root: Path) -> dict[str, str]:
    files = [path for path in root.rglob("*") if path.is_file()]
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def scenes_of(world: Path, split: str) -> dict[int, str]:
    groups = loaded(world / "vqav2" / "near_duplicates.json")[split]
    return {int(image_id): scene for image_id, scene in groups.items()}


@pytest.mark.parametrize(("split", "count"), SPLITS)
def test_captions_files_have_coco_fields(world: Path, split: str, count: int) -> None:
    content = captions(world, split)
    assert set(content) == {"info", "licenses", "images", "annotations"}
    assert len(content["images"]) == count
    assert len(content["annotations"]) == 5 * count
    ids = [image["id"] for image in content["images"]]
    assert max(ids) - min(ids) > 10 * count  # not consecutive
    for image in content["images"]:
        assert image["file_name"] == f"{image['id']:012d}.jpg"
        with Image.open(world / "mscoco" / "mscoco2017" / f"{split}2017" / image["file_name"]) as image_path:
            assert (image_path.format, image_path.size) == ("JPEG", (image["width"], image["height"]))
            assert image_path.size == (64, 64)
    assert len({annotation["id"] for annotation in content["annotations"]}) == 5 * count


@pytest.mark.parametrize(("split", "count"), SPLITS)
def test_captions_name_both_attributes_in_the_secret_lexicon(world: Path, split: str, count: int) -> None:
    lexicon = dataset_lexicon(OPTIONS.seed)
    words = {scene.name: lexicon.words(scene) for scene in all_scenes()}
    scenes = scenes_of(world, split)
    of_image: dict[int, list[tuple[int, str]]] = {}
    for annotation in captions(world, split)["annotations"]:
        of_image.setdefault(annotation["image_id"], []).append((annotation["id"], annotation["caption"]))
    assert set(of_image) == set(scenes)
    for image_id, examples in of_image.items():
        pair = " ".join(words[scenes[image_id]])
        texts = [caption for _, caption in sorted(examples)]
        assert texts[0] == f"a {pair}"
        assert len(set(texts)) == 5
        assert all(pair in text for text in texts)


def test_validation_scenes_never_occur_in_the_index(world: Path) -> None:
    index, held_out = ({scene.name for scene in part} for part in split_scenes(OPTIONS.seed))
    train, val = scenes_of(world, "train"), scenes_of(world, "val")
    assert set(train.values()) == index
    assert set(val.values()) == held_out
    assert not set(train) & set(val)


@pytest.mark.parametrize(("split", "count"), SPLITS)
def test_question_files_have_the_official_fields(world: Path, split: str, count: int) -> None:
    questions = loaded(world / "vqav2" / f"v2_OpenEnded_mscoco_{split}2014_questions.json")
    answered = loaded(world / "vqav2" / f"v2_mscoco_{split}2014_annotations.json")
    assert questions["task_type"] == "Open-Ended"
    assert questions["data_subtype"] == answered["data_subtype"] == f"{split}2014"
    assert count <= len(questions["questions"]) <= 1.2 * count
    assert [q["question_id"] for q in questions["questions"]] == [a["question_id"] for a in answered["annotations"]]
    lexicon, scenes = dataset_lexicon(OPTIONS.seed), scenes_of(world, split)
    words = {scene.name: lexicon.words(scene) for scene in all_scenes()}
    for question, annotation in zip(questions["questions"], answered["annotations"], strict=True):
        attribute = QUESTIONS.index(question["question"])
        right = words[scenes[question["image_id"]]][attribute]
        answers = [answer["answer"] for answer in annotation["answers"]]
        assert annotation["multiple_choice_answer"] == right
        assert len(answers) == 10
        assert answers.count(right) >= 7
        assert set(answers) <= set((lexicon.colours, lexicon.shapes)[attribute])
        assert [answer["answer_id"] for answer in annotation["answers"]] == list(range(1, 11))
        assert set(annotation) >= {"question_type", "answer_type", "image_id"}
    assert {question["question"] for question in questions["questions"]} == set(QUESTIONS)


def test_some_answers_deviate_and_some_images_have_two_questions() -> None:
    from icltool.world.annotations import vqa_files

    shots = draw_shots(WorldOptions(index_images=400))["train"]
    questions, answered = vqa_files(shots, dataset_lexicon(0), 0, "train")
    right = [sum(a["answer"] == e["multiple_choice_answer"] for a in e["answers"]) for e in answered["annotations"]]
    assert set(right) == {7, 8, 9, 10}
    assert set(Counter(q["image_id"] for q in questions["questions"]).values()) == {1, 2}


def test_vqa_images_are_the_same_files(world: Path) -> None:
    newer = world / "mscoco" / "mscoco2017" / "train2017"
    older = world / "mscoco" / "mscoco2014" / "train2014"
    for path in newer.iterdir():
        assert path.samefile(older / f"COCO_train2014_{path.name}")


def test_scenes_occur_equally_often_and_do_not_follow_ids() -> None:
    shots = draw_shots(WorldOptions())
    for split, count in (("train", 2000), ("val", 400)):
        counts = Counter(shot.scene for shot in shots[split])
        assert sum(counts.values()) == count
        assert max(counts.values()) - min(counts.values()) <= 1
        assert [shot.image_id for shot in shots[split]] == sorted({shot.image_id for shot in shots[split]})
    colours = np.array([shot.scene.colour for shot in shots["train"]])
    assert abs(np.corrcoef(colours, np.arange(len(colours)))[0, 1]) < 0.1


def test_the_same_seed_gives_the_same_bytes(world: Path, tmp_path: Path) -> None:
    write_world(tmp_path / "again", OPTIONS, SilentProgress())
    assert contents(tmp_path / "again") == contents(world)


def test_a_finished_world_is_not_written_again(world: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in world.rglob("*")}
    assert not write_world(world, OPTIONS, SilentProgress())
    assert {path: path.stat().st_mtime_ns for path in world.rglob("*")} == before


def test_other_options_and_lost_files_write_it_anew(tmp_path: Path) -> None:
    root = tmp_path / "source"
    small, other = WorldOptions(0, 4, 2), WorldOptions(1, 4, 2)
    assert write_world(root, small, SilentProgress())
    first = contents(root)
    assert write_world(root, other, SilentProgress())
    assert is_finished(root, other)
    assert contents(root) != first
    next((root / "mscoco" / "mscoco2014" / "val2014").iterdir()).unlink()
    assert not is_finished(root, other)
    assert write_world(root, other, SilentProgress())
    (root / "world.json").write_text('{"schema": "icltool.wor')
    assert not is_finished(root, other)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("three years")
    with pytest.raises(StoreError, match=r"contains something other than a world"):
        write_world(tmp_path, OPTIONS, SilentProgress())
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


class Interrupting(SilentProgress):
    """Stands for a user who presses Ctrl-C in the middle of rendering."""

    def task(self, description: str, total: int, noun: str, done: int = 0) -> Any:
        outer = super().task(description, total, noun, done)

        class Context:
            def __enter__(self) -> Any:
                outer.__enter__()
                return self

            def __exit__(self, *details: Any) -> None:
                outer.__exit__(*details)

            def advance(self, amount: int = 1) -> None:
                raise KeyboardInterrupt

        return Context()


def test_an_interrupted_world_leaves_nothing_and_keeps_the_one_before(tmp_path: Path) -> None:
    root = tmp_path / "source"
    with pytest.raises(KeyboardInterrupt):
        write_world(root, WorldOptions(0, 4, 2), Interrupting())
    assert not root.exists()
    write_world(root, WorldOptions(0, 4, 2), SilentProgress())
    with pytest.raises(KeyboardInterrupt):
        write_world(root, WorldOptions(1, 4, 2), Interrupting())
    assert is_finished(root, WorldOptions(0, 4, 2))
    assert [p.name for p in tmp_path.iterdir() if p.suffix == ".tmp"] == []


def test_leftovers_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    left = tmp_path / ".source.01234567.tmp"
    (left / "mscoco").mkdir(parents=True)
    write_world(tmp_path / "source", WorldOptions(0, 4, 2), SilentProgress())
    assert not left.exists()


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"file.source\S* cannot be written"):
        write_world(tmp_path / "file" / "source", OPTIONS, SilentProgress())


def test_images_copied_where_hard_links_are_not_possible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise PermissionError(1, "no hard links on this file system")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    write_world(tmp_path / "source", WorldOptions(0, 4, 2), SilentProgress())
    images = list((tmp_path / "source" / "mscoco" / "mscoco2014" / "train2014").iterdir())
    assert len(images) == 4
    assert all(path.stat().st_nlink == 1 and path.stat().st_size > 500 for path in images)
    shutil.rmtree(tmp_path / "source")


def test_other_renderings_are_other_images_of_the_same_world() -> None:
    first, other = WorldOptions(1, 60, 12), WorldOptions(1, 60, 12, renderings=1)
    shots, others = draw_shots(first), draw_shots(other)
    for split in ("train", "val"):
        assert {s.scene for s in others[split]} == {s.scene for s in shots[split]}
        assert not {s.image_id for s in others[split]} & {s.image_id for s in shots["train"]}
    assert draw_shots(WorldOptions(1, 60, 12)) == shots
