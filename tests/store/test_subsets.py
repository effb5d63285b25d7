"""Files of subsets of the index set."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from icltool.errors import StoreError
from icltool.store.subsets import Subset, read_subset, write_subset

IDS = st.integers(-(2**63), 2**63 - 1)


@given(
    scores=st.dictionaries(IDS, st.none() | st.floats(allow_nan=True, allow_infinity=False), min_size=1),
    queries=st.sampled_from([None, "train", "validation"]),
    name=st.none() | st.text(st.characters(exclude_categories=["Cs"])),
)
def test_what_was_written_is_read(scores, queries, name, tmp_path_factory):
    path = tmp_path_factory.mktemp("subset") / "subset.json"
    subset = Subset(scores, name, "vqa", None, queries, {"learner": "condacc", "lists": 240})
    write_subset(path, subset)
    result = read_subset(path)
    known = {one: None if score is None or math.isnan(score) else score for one, score in scores.items()}
    assert result == Subset(known, name, "vqa", None, queries, subset.made)
    assert result.ids.tolist() == sorted(scores)


def test_a_plain_list_of_ids_has_no_scores_and_no_provenance(tmp_path: Path) -> None:
    path = tmp_path / "ids.txt"
    path.write_text("7\n\n -3 \r\n12\n")
    result = read_subset(path)
    assert dict(result.scores) == {7: None, -3: None, 12: None}
    assert result.ids.tolist() == [-3, 7, 12]
    assert result.queries is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no ids"),
        ("\n  \n", "has no ids"),
        ("1\n2\n1\n", "line 3: example 1 is listed twice"),
        ("1\nred\n", "line 2: 'red' is not an id"),
        ("9223372036854775808\n", "line 1: '9223372036854775808' is not an id"),
        ("\x00\xff\n", "is not an id"),
        ("{", "is malformed"),
        (json.dumps({"schema": "icltool.plan", "version": 1, "subset": {"1": 1}}), "schema: Input should be"),
        (json.dumps({"schema": "icltool.subset", "version": 2, "subset": {"1": 1}}), "version: Input should be 1"),
        (json.dumps({"schema": "icltool.subset", "version": 1, "subset": {}}), "has no ids"),
        (json.dumps({"schema": "icltool.subset", "version": 1, "subset": {"a": 1}}), "subset.a"),
        (json.dumps({"schema": "icltool.subset", "version": 1, "subset": {"1": "good"}}), "subset.1"),
        (json.dumps({"schema": "icltool.subset", "version": 1, "queries": "test", "subset": {"1": 1}}), "queries"),
    ],
)
def test_a_file_that_is_no_subset_is_one_line(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "subset"
    path.write_text(content)
    with pytest.raises(StoreError, match=message) as caught:
        read_subset(path)
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="does not exist"):
        read_subset(tmp_path / "none.json")
