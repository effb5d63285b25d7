"""The index set of one prepared data set with the queries of another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from icltool.contracts import Example, PreparedSplit, group_code
from icltool.store.arrays import index_set, query_set
from icltool.store.paired import PairedDataset, names_of_pair, pair_fingerprint
from icltool.store.prepared import PreparedDataset
from icltool.store.records import write_dataset
from icltool.testing import QuietProgress
from tests.components.datasets.builders import write_image


def example(folder: Path, number: int, image_id: int, group: str = "") -> Example:
    image = folder / f"{number}.png"
    if not image.exists():
        write_image(image, 16 + number)
    return Example(number, str(image), image_id, f"text {number}", "a", ("a",), f"question {number}", group)


def prepared(tmp_path: Path, name: str, first: int) -> PreparedDataset:
    """Images `first` and `first` + 1 in train, `first` + 2 (of group "g") in validation, and a text without an image."""
    folder = tmp_path / "images"
    train = [example(folder, first, first), example(folder, first + 1, first + 1, "g")]
    train.append(replace(train[0], id=9, image="", image_id=group_code("text: same"), group="text: same"))
    queries = [example(folder, first + 2, first + 2, "g"), replace(train[2], id=10)]
    splits = [PreparedSplit(n, len(e), iter(e)) for n, e in (("train", train), ("validation", queries))]
    place = tmp_path / "ws" / "datasets" / name / "vqa"
    return write_dataset(place, name, "vqa", "vqa", splits, {}, QuietProgress())


def test_index_of_one_and_queries_of_the_other(tmp_path: Path) -> None:
    queries, index = prepared(tmp_path, "q", 0), prepared(tmp_path, "i", 2)
    pair = PairedDataset(queries, index, ("coco", "coco"))
    assert (pair.name, pair.task) == ("q+i", "vqa")
    assert pair.fingerprint == pair_fingerprint(queries.fingerprint, index.fingerprint) != queries.fingerprint
    assert pair.identity() == {
        "query_dataset": "q",
        "index_dataset": "i",
        "fingerprints": {"queries": queries.fingerprint, "index": index.fingerprint},
    }
    assert pair.splits == ("train", "validation")
    assert pair.split("train").ids.tolist() == [2, 3, 9]
    assert pair.split("validation").ids.tolist() == [2, 10]
    assert [pair.part(split).name for split in pair.splits] == ["i", "q"]
    assert len(pair.image_files()) == 5
    pair.check_images()


@pytest.mark.parametrize(("namespaces", "leaking"), [(("coco", "coco"), [0, 1]), (("coco", "vg"), [])])
def test_images_are_compared_within_one_namespace(
    tmp_path: Path, namespaces: tuple[str, str], leaking: list[int]
) -> None:
    """Image 2 is in both, and group g; the same text leaks in any case."""
    pair = PairedDataset(prepared(tmp_path, "q", 0), prepared(tmp_path, "i", 2), namespaces)
    index = index_set(pair.split("train"), frozenset(), None)
    queries = query_set(pair.split("validation"), frozenset(), None)
    assert index.leaking_rows(queries, 0).tolist() == leaking
    assert index.leaking_rows(queries, 1).tolist() == [2]
    query, demonstration = pair.split("validation")[0], pair.split("train")[0]
    assert query.shares_image(demonstration) == (0 in leaking)
    assert demonstration.image_ids == (int(index.image_ids[0]),), "examples and arrays agree"
    assert group_code(pair.split("train")[1].group) != group_code(query.group) or 1 in leaking


def test_names_of_a_pair() -> None:
    known = {"a", "b", "a+b", "c+d"}
    assert names_of_pair("a+b", known) is None
    assert names_of_pair("b+a", known) == ("b", "a")
    assert names_of_pair("c+d+a", known) == ("c+d", "a")
    assert names_of_pair("a+x", known) is None
