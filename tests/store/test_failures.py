"""The list of what was given up."""

from __future__ import annotations

from pathlib import Path

import pytest

from icltool.errors import StoreError
from icltool.store.failures import clear_failures, failures_file, read_failures, write_failures


def test_a_list_is_replaced_and_goes_away(tmp_path: Path) -> None:
    artefact = tmp_path / "sequences.h5"
    assert read_failures(artefact) == []
    clear_failures(artefact)
    expected = [{"anchors": [3, 4], "error": "ValueError: no", "tries": 3, "where": "alpha"}]
    assert write_failures(artefact, [{"anchors": [1]}]) == failures_file(artefact)
    write_failures(artefact, expected)
    assert read_failures(artefact) == expected
    clear_failures(artefact)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '{"failures": {}}', '{"failures": ["gone"]}', '{"failures": [{"count": "64"}]}'],
    ids=["cut", "no object", "no list", "no entry", "no number"],
)
def test_a_malformed_list_is_one_line(tmp_path: Path, content: str) -> None:
    failures_file(tmp_path / "a.h5").write_text(content)
    with pytest.raises(StoreError, match=r"a\.h5\.failed\.json"):
        read_failures(tmp_path / "a.h5")
