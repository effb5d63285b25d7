"""Prepared data sets: what is written is read back, whole or not at all."""

from __future__ import annotations

import json
import os
import resource
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from icltool.components.tasks import task_named
from icltool.contracts import NO_IMAGE, Example, PreparedSplit, as_query, group_code
from icltool.errors import DataError, StoreError
from icltool.execution.progress import SilentProgress
from icltool.store.records import PreparedDataset, open_dataset, write_dataset
from icltool.store.workspace import Workspace
from tests.processes import PATIENCE, Child, until


def example(number: int, **changes: object) -> Example:
    fields: dict[str, object] = {
        "id": number,
        "image": f"/data/train/{number}.jpg",
        "image_id": number // 2,
        "text": f"text {number}",
        "label": f"label {number}",
        "references": tuple(f"r{i}" for i in range(number % 4)),
        "group": f"group {number % 3}" if number % 4 else "",
    }
    return Example(**{**fields, **changes})  # type: ignore[arg-type]


def follower(image: int, **changes: object) -> Example:
    return example(1, image=f"/data/train/{image}.jpg", image_id=image, group="", **changes)


def write(
    folder: Path, train: list[Example] | Iterator[Example], validation: list[Example] | None = None
) -> PreparedDataset:
    splits = [PreparedSplit("train", 3, iter(train)), PreparedSplit("validation", 1, iter(validation or [example(1)]))]
    return write_dataset(folder, "pets", "caption", "caption", splits, {"note": "of the test"}, SilentProgress())


@pytest.fixture(scope="module")
def numbers() -> list[int]:
    return np.random.default_rng(0).permutation(5000)[:2500].tolist()


@pytest.fixture(scope="module")
def pets(tmp_path_factory: pytest.TempPathFactory, numbers: list[int]) -> PreparedDataset:
    """2,500 examples: more than two batches."""
    folder = Workspace(tmp_path_factory.mktemp("workspace")).dataset_folder("pets", "caption")
    return write(folder, (example(n) for n in numbers))


def test_rows_are_read_back_in_order(pets: PreparedDataset, numbers: list[int]) -> None:
    train = pets.split("train")
    assert len(train) == 2500
    assert list(train) == [example(n) for n in numbers]
    assert train[1234] == example(numbers[1234])
    assert train[-1] == example(numbers[-1])
    rows = np.array([7, 3, 2400, 7])
    assert train.rows(rows) == [example(numbers[r]) for r in rows]
    assert train.rows([]) == []
    assert list(train.references()) == [example(n).references for n in numbers]


def test_images_that_there_are_are_counted(tmp_path: Path) -> None:
    """An example without an image has the identity of its text, which is no image."""
    several = example(4, more_images=("/data/train/9.jpg",), more_image_ids=(9,))
    folder = Workspace(tmp_path).dataset_folder("pets", "caption")
    dataset = write(folder, [example(2), example(3), several, example(8, image="")], [example(1, image="")])
    entries = dataset.manifest["splits"]
    assert [entries[name]["images"] for name in ("train", "validation")] == [3, 0]


def test_columns_are_arrays(pets: PreparedDataset, numbers: list[int]) -> None:
    train = pets.split("train")
    for array in (train.ids, train.image_ids, train.groups):
        assert array.dtype == np.int64
        assert array.shape == (2500,)
    assert train.ids.tolist() == numbers
    assert train.image_ids.tolist() == [n // 2 for n in numbers]
    assert train.groups.tolist() == [group_code(example(n).group) for n in numbers]
    assert train.texts == tuple(f"text {n}" for n in numbers)
    assert train.images == [f"/data/train/{n}.jpg" for n in numbers]


def test_every_field_is_read_back(memory_path: Path) -> None:
    full = example(
        1,
        more_images=("/data/train/8.jpg", "/data/train/9.jpg"),
        more_image_ids=(8, 9),
        images_in_text=True,
        rationale="since it is red",
        fields={"hint": "look at the colour", "headline": "Ä"},
        aspects={"subject": "Ärzte", "steps": "3"},
        rule="+",
        labels={"+": "7", "-": "1"},
        support=(4, -7),
        followed_by=(follower(5, more_images=("/data/train/6.jpg",), more_image_ids=(6,)), follower(4)),
        choices=("<image>", "b"),
        raw_references=("R",),
        style="Calm",
    )
    train = write(memory_path, [full, example(2), example(3, image="")]).split("train")
    assert list(train) == [full, example(2), example(3, image="")]
    assert train.image_lists == [full.images, ("/data/train/2.jpg",), ()]
    assert (train.most_images, train.has_images) == (6, True)
    assert train.more_image_ids is not None
    assert train.more_image_ids.tolist() == [[8, 9, 5, 6, 4], [NO_IMAGE] * 5, [NO_IMAGE] * 5]
    assert train.images_in(np.array([0, 1])) == {0, 1, 8, 9, 5, 6, 4}
    assert train.support is not None
    assert train.support.tolist() == [[4, -7], [NO_IMAGE] * 2, [NO_IMAGE] * 2]
    assert train.rules is not None
    assert train.rules.tolist() == [group_code("+"), -1, -1]
    assert train.label_rules is not None
    assert train.label_rules.tolist() == [[group_code("+"), group_code("-")], [-1, -1], [-1, -1]]
    files = [f"/data/train/{n}.jpg" for n in (1, 2, 4, 5, 6, 8, 9)]
    assert open_dataset(memory_path).image_files() == files


def test_records_as_queries_have_rules(memory_path: Path) -> None:
    labels = {"+": "7", "-": "1"}
    dataset = write(memory_path, [example(n, labels=labels) for n in range(20)])
    queries = dataset.query_records("train")
    assert list(queries) == [as_query(example(n, labels=labels)) for n in range(20)]
    assert queries.rules is not None
    assert queries.rules.tolist() == [group_code(query.rule) for query in queries]
    assert queries.as_queries() is queries
    validation = dataset.split("validation")
    assert dataset.query_records("validation") is validation


def test_plain_examples_have_no_further_columns(pets: PreparedDataset) -> None:
    train = pets.split("train")
    assert (train.more_image_ids, train.rules, train.label_rules, train.most_images) == (None, None, None, 1)
    assert train.image_lists[:2] == [(train.images[0],), (train.images[1],)]


def test_image_ids_are_as_many_as_images(memory_path: Path) -> None:
    with pytest.raises(DataError, match="example 1 has 2 images and 1 image ids"):
        write(memory_path, [example(1, more_images=("/data/2.jpg",))])
    with pytest.raises(DataError, match=r"image path 'b.jpg' is not absolute"):
        write(memory_path, [example(1, more_images=("b.jpg",), more_image_ids=(2,))])


def test_row_of_an_id(pets: PreparedDataset, numbers: list[int]) -> None:
    train = pets.split("train")
    assert [train.row_of(n) for n in numbers[:50]] == list(range(50))
    with pytest.raises(StoreError, match="has no example 99999"):
        train.row_of(99999)
    with pytest.raises(IndexError):
        train[2500]


def test_manifest(pets: PreparedDataset) -> None:
    manifest = json.loads((pets.folder / "dataset.json").read_text())
    assert manifest == pets.manifest
    assert (manifest["schema"], manifest["schema_version"]) == ("icltool.dataset", 2)
    assert manifest["provenance"] == {"note": "of the test"}
    assert manifest["splits"]["train"]["examples"] == 2500
    assert manifest["splits"]["train"]["groups"] == 3
    assert (pets.name, pets.task, pets.splits) == ("pets", "caption", ("train", "validation"))


def test_hugging_face_datasets_reads_it(pets: PreparedDataset, numbers: list[int]) -> None:
    import datasets

    loaded = datasets.load_from_disk(str(pets.folder))
    assert loaded["train"]["id"][:3] == numbers[:3]
    assert loaded["validation"].num_rows == 1


def test_workspace_finds_it(pets: PreparedDataset) -> None:
    workspace = Workspace(pets.folder.parents[2])
    assert workspace.dataset_folder("pets", "caption") == pets.folder
    assert workspace.prepared() == [("pets", "caption")]
    assert workspace.choose_dataset() == ("pets", "caption")


def test_fingerprint_is_of_the_content(memory_path: Path) -> None:
    tmp_path = memory_path
    train = [example(1), example(2), example(3)]
    first = write(tmp_path / "a", train).fingerprint
    assert write(tmp_path / "b", train).fingerprint == first
    moved = [example(n, image=f"/elsewhere/train/{n}.jpg") for n in (1, 2, 3)]
    assert write(tmp_path / "c", moved).fingerprint == first
    changed = [
        [example(1), example(3), example(2)],
        [example(1), example(2)],
        [example(1), example(2), example(3, label="x")],
        [example(1), example(2), example(3, references=("r0", "r1"))],
        [example(1), example(2), example(3, image="/data/train/4.jpg")],
        [example(1), example(2), example(3, raw_references=("R0", "R1", "R2"))],
        [example(1), example(2), example(3, more_images=("/data/train/9.jpg",), more_image_ids=(9,))],
        [example(1), example(2), example(3, fields={"hint": "look"})],
        [example(1), example(2), example(3, labels={"+": "7"})],
        [example(1), example(2), example(3, images_in_text=True)],
    ]
    fingerprints = {write(tmp_path / f"d{i}", rows).fingerprint for i, rows in enumerate(changed)}
    assert len(fingerprints | {first}) == len(changed) + 1


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.text(max_size=8), st.lists(st.text(max_size=6), max_size=3)), min_size=1, max_size=4))
def test_any_text_survives(memory_path: Path, texts: list[tuple[str, list[str]]]) -> None:
    train = [
        example(n, text=text, label=text, question=text, group=text, references=tuple(references))
        for n, (text, references) in enumerate(texts)
    ]
    folder = memory_path / "any" / "caption"
    assert list(write(folder, train).split("train")) == train


def test_lone_surrogates_become_replacement_characters(tmp_path: Path) -> None:
    train = [example(1, text="caf\ud83d!", references=("\udc00x", "☕ 😀"))]
    written = write(tmp_path / "d", train).split("train")[0]
    assert written.text == "caf\ufffd!"
    assert written.references == ("\ufffdx", "☕ 😀")


def test_path_that_is_no_unicode(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not valid Unicode"):
        write(tmp_path / "d", [example(1, image="/data/caf\udce9.jpg")])


def test_relative_image_path(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"image path 'data/1.jpg' is not absolute"):
        write(tmp_path / "d", [example(1, image="data/1.jpg")])


def test_raw_references_and_records_that_were_written_before_there_were_any(tmp_path: Path) -> None:
    import datasets

    raw = example(3, raw_references=("R0", "R1", "R2"))
    assert list(write(tmp_path / "d", [raw, example(2)]).split("train")) == [raw, example(2)]
    older = datasets.load_from_disk(str(tmp_path / "d" / "train")).remove_columns(["raw_references", "choices"])
    older.save_to_disk(str(tmp_path / "older"))
    shutil.rmtree(tmp_path / "d" / "train")
    (tmp_path / "older").rename(tmp_path / "d" / "train")
    train = open_dataset(tmp_path / "d").split("train")
    assert list(train) == train.rows([0, 1]) == [example(3), example(2)]
    assert train[0] == example(3)


@pytest.mark.parametrize("provenance", [None, [], {"inputs": []}, {"inputs": {}}, {"inputs": {"metric": 3}}])
def test_the_metrics_of_a_data_set_whose_reader_names_none(tmp_path: Path, provenance: object) -> None:
    write(tmp_path / "d", [example(1)])
    manifest = json.loads((tmp_path / "d" / "dataset.json").read_text())
    (tmp_path / "d" / "dataset.json").write_text(json.dumps({**manifest, "provenance": provenance}))
    assert open_dataset(tmp_path / "d").metrics == ()


def test_text_only_examples_and_no_groups(tmp_path: Path) -> None:
    dataset = write(tmp_path / "d", [example(4, image="", group=""), example(5, image="", group="")])
    assert dataset.split("train").images == ["", ""]
    assert dataset.split("train").groups.tolist() == [-1, -1]


def test_without_texts_a_demonstration_s_text_is_its_label_and_a_query_s_is_empty(tmp_path: Path) -> None:
    """Of images with labels alone: whatever the reader gives as the text, no query's text tells its label."""
    task = task_named("classification").without_text()
    assert task.textless
    rows = [example(1, text="", label="cat"), example(2, text="dog", label="dog")]
    splits = [PreparedSplit(name, 2, iter(rows)) for name in ("train", "validation")]
    dataset = write_dataset(
        tmp_path / "datasets" / "pets" / "classification", "pets", "classification", "classification", splits, {},
        SilentProgress(), declared=task,
    )  # fmt: skip
    assert [e.text for e in dataset.split("train").rows([0, 1])] == ["cat", "dog"]
    assert [e.text for e in dataset.split("validation").rows([0, 1])] == ["", ""]
    assert [e.label for e in dataset.split("validation").rows([0, 1])] == ["cat", "dog"]
    assert open_dataset(tmp_path / "datasets" / "pets" / "classification").declared == task


def test_repeated_id(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        write(tmp_path / "d", [example(1), example(2), example(1)])
    assert caught.value.message == "example id 1 occurs more than once in split 'train' of data set 'pets'"
    assert list(tmp_path.iterdir()) == [tmp_path / ".d.lock"]


def test_empty_split_no_split_second_split(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="split 'train' of data set 'pets' has no examples"):
        write(tmp_path / "d", [])
    with pytest.raises(DataError, match="has no splits"):
        write_dataset(tmp_path / "d", "pets", "vqa", "vqa", [], {}, SilentProgress())
    twice = [PreparedSplit("train", 1, iter([example(n)])) for n in (1, 2)]
    with pytest.raises(DataError, match="has a second split 'train'"):
        write_dataset(tmp_path / "d", "pets", "vqa", "vqa", twice, {}, SilentProgress())
    assert not (tmp_path / "d").exists()


def failing(after: int, error: BaseException) -> Iterator[Example]:
    yield from (example(n) for n in range(after))
    raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), DataError("image x is missing"), ValueError("bug")])
def test_a_failure_in_the_middle_keeps_the_data_set_before(tmp_path: Path, error: BaseException) -> None:
    folder = tmp_path / "d"
    with pytest.raises(type(error)):
        write(folder, failing(1500, error))
    assert not folder.exists()
    before = write(folder, [example(1), example(2)])
    with pytest.raises(type(error)):
        write(folder, failing(1500, error))
    assert open_dataset(folder).fingerprint == before.fingerprint
    assert sorted(p.name for p in tmp_path.iterdir()) == [".d.lock", "d"]


def test_a_new_data_set_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    old = write(tmp_path / "d", [example(1), example(2)])
    opened = old.split("train")
    new = write(tmp_path / "d", [example(3)])
    assert [e.id for e in new.split("train")] == [3]
    assert [e.id for e in opened] == [1, 2]  # who has it open goes on reading the old one
    assert sorted(p.name for p in tmp_path.iterdir()) == [".d.lock", "d"]


def write_slowly(folder: Path) -> None:
    def slow() -> Iterator[Example]:
        for number in range(100_000):
            yield example(number)
            if number == 1500:
                print("writing", flush=True)
                time.sleep(PATIENCE)

    splits = [PreparedSplit("train", 100_000, slow())]
    write_dataset(folder, "pets", "caption", "caption", splits, {}, SilentProgress())


def test_killed_in_the_middle_and_second_writer_refused(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    with Child(lambda: write_slowly(folder)) as child:
        until(lambda: child.out == "writing\n" or child.poll() is not None)
        with pytest.raises(StoreError) as caught:
            write(folder, [example(1)])
        assert caught.value.message.startswith(f"{folder} is being written by ")
    assert not folder.exists()
    assert any(path.suffix == ".tmp" for path in tmp_path.iterdir())
    assert Workspace(tmp_path).prepared() == []
    assert len(write(folder, [example(1), example(2)]).split("train")) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == [".d.lock", "d"]


def test_full_disk(tmp_path: Path) -> None:
    """A limit on the size of files stands for a disk that is full: both fail in the middle of a write."""
    train = [example(n, text="long " * 50) for n in range(3000)]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(StoreError) as caught:
            write(tmp_path / "d", train)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.message.startswith(f"disk is full: {tmp_path / 'd'}")
    assert [p.name for p in tmp_path.iterdir()] == [".d.lock"]


def test_read_only_folder() -> None:
    with pytest.raises(StoreError, match=r"/sys/icltool-test/d is read-only"):
        write(Path("/sys/icltool-test/d"), [example(1)])


def test_parent_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"/file/d\S* cannot be written"):
        write(tmp_path / "file" / "d", [example(1)])


def refused(folder: Path, split: str = "train") -> StoreError:
    with pytest.raises(StoreError) as caught:
        open_dataset(folder).split(split)
    assert "\n" not in caught.value.message
    return caught.value


def test_opening_what_is_not_there(tmp_path: Path) -> None:
    error = refused(tmp_path / "pets" / "caption")
    assert error.message == f"no prepared data set in {tmp_path / 'pets' / 'caption'}"
    assert error.hint == "run `icltool prepare pets --task caption` again"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"schema": "icl', "is truncated or malformed"),
        ("[]", "is not a manifest of a prepared data set"),
        ('{"schema": "icltool.sequences"}', "is not a manifest of a prepared data set"),
        ('{"schema": "icltool.dataset", "schema_version": 9}', "has schema version 9; this icltool reads 2"),
        ('{"schema": "icltool.dataset", "schema_version": 1, "name": "x"}', "is malformed: name, task"),
    ],
)
def test_manifests_at_fault(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "dataset.json").write_text(content)
    error = refused(tmp_path)
    assert error.message.startswith(f"{tmp_path / 'dataset.json'} {message}")


def test_offsets_that_point_elsewhere_are_damage(tmp_path: Path) -> None:
    """The stream is whole, and says that a text ends before it begins."""
    folder = tmp_path / "pets" / "caption"
    write(folder, (example(n) for n in range(40)))
    arrow = next((folder / "train").glob("*.arrow"))
    content = arrow.read_bytes()
    ends = np.cumsum([0] + [len(example(n).image.encode()) for n in range(3)]).astype("<i4").tobytes()
    place = content.find(ends)
    assert place > 0
    arrow.write_bytes(content[: place + 4] + b"\xff\xff\xff\x7f" + content[place + 8 :])
    assert refused(folder, "train").message.startswith(f"{folder / 'train'} cannot be read: ")


def test_cut_and_missing_arrow_files(tmp_path: Path) -> None:
    folder = tmp_path / "pets" / "caption"
    write(folder, (example(n) for n in range(2500)))
    assert refused(folder, "test").message == f"{folder} has no split 'test'; it has train, validation"
    assert refused(folder, "validatio").hint == "did you mean 'validation'?"
    arrow = next((folder / "train").glob("*.arrow"))
    content = arrow.read_bytes()
    for length in (0, 10, len(content) // 2, len(content) - 200):
        arrow.write_bytes(content[:length])
        message = refused(folder, "train").message
        assert message.startswith((f"{folder / 'train'} cannot be read", f"{folder / 'train'} is truncated"))
    arrow.unlink()
    error = refused(folder, "train")
    assert error.message.startswith(f"{folder / 'train'} cannot be read")
    assert error.hint == "run `icltool prepare pets --task caption` again"
    os.mkfifo(arrow)
    assert refused(folder, "train").message == f"{folder / 'train'} cannot be read: {arrow.name} is not a file"
    state, info = (folder / "validation" / name for name in ("state.json", "dataset_info.json"))
    examples = open_dataset(folder).split("validation").rows([0])
    before, described = json.loads(state.read_text()), json.loads(info.read_text())
    for content in ("{", json.dumps({**before, "_split": ["validation"]})):
        state.write_text(content)
        assert refused(folder, "validation").message.startswith(f"{folder / 'validation'} cannot be read")
    state.write_text(json.dumps({**before, "_format_columns": []}))
    assert [e.id for e in open_dataset(folder).split("validation").rows([0])] == [e.id for e in examples]
    state.write_text(json.dumps(before))
    info.write_text(json.dumps({**described, "features": {"id": {"id": "a text"}}}))
    assert refused(folder, "validation").message.startswith(f"{folder / 'validation'} cannot be read")


def test_style_and_regions_come_back(memory_path: Path) -> None:
    reference = "/data/train/9.jpg#xywh=1,2,3,4&show=highlight"
    records = write(memory_path / "pets", [example(1, style="Sweet"), example(2, image=reference)]).split("train")
    assert [e.style for e in records] == ["Sweet", ""]
    assert records.images == ["/data/train/1.jpg", reference]
    with pytest.raises(DataError, match="is not absolute"):
        write(memory_path / "other", [example(1, image="9.jpg#xywh=1,2,3,4&show=highlight")])


def test_fingerprints_know_styles_and_regions_and_stay_without_them(memory_path: Path) -> None:
    folder = memory_path / "pets"
    assert write(folder, [example(1)]).fingerprint == "4930e7d433dddde9b6e9d979c0268c98", "as before there were styles"
    regions = [f"/data/train/1.jpg#xywh=1,2,3,{height}&show=hide" for height in (4, 5)]
    changed: list[dict[str, object]] = [{"style": "Sweet"}, {"style": "Cold"}, *({"image": path} for path in regions)]
    assert len({write(folder, [example(1, **change)]).fingerprint for change in changed}) == 4
    moved = regions[0].replace("/data", "/elsewhere")
    assert write(folder, [example(1, image=moved)]).fingerprint == write(folder, [example(1, **changed[2])]).fingerprint


def test_a_third_split(memory_path: Path) -> None:
    parts = {"train": [example(1)], "validation": [example(2)], "development": [example(3)]}
    splits = [PreparedSplit(name, 1, iter(examples)) for name, examples in parts.items()]
    dataset = write_dataset(memory_path / "pets", "pets", "caption", "caption", splits, {}, SilentProgress())
    assert dataset.splits == ("train", "validation", "development")
    assert list(open_dataset(dataset.folder).split("development")) == [example(3)]


def test_records_of_before_have_no_style(memory_path: Path) -> None:
    """Written before the column was there."""
    import datasets

    folder = write(memory_path / "pets", [example(1)]).folder
    old = datasets.load_from_disk(str(folder / "train")).remove_columns(["style"])
    old.save_to_disk(str(memory_path / "old"))
    shutil.rmtree(folder / "train")
    (memory_path / "old").rename(folder / "train")
    records = open_dataset(folder).split("train")
    assert list(records) == [example(1)]
    assert records.rows([0]) == [example(1)]
