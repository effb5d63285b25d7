"""Files in pieces, and files again."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from icltool.components.executors.shipping import members_of, pieces_of, unpack
from icltool.errors import DataError

names = st.sampled_from(["a", "b.h5", "deep/c", "deep/er/d", "ü e"])


@given(st.dictionaries(names, st.binary(max_size=40)), st.integers(1, 16))
def test_a_folder_survives_the_way(files: dict[str, bytes], size: int) -> None:
    with tempfile.TemporaryDirectory() as place:
        source, target = Path(place) / "from" / "folder", Path(place) / "to"
        (source / "empty").mkdir(parents=True)
        target.mkdir()
        for name, content in files.items():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes(content)
        members = list(members_of(source))
        pieces = list(pieces_of(source, members, size))
        assert all(len(piece) == size for piece in pieces[:-1])
        assert sum(map(len, pieces)) == sum(map(len, files.values()))
        unpack(members, iter(pieces), target)
        received = {str(p.relative_to(target / "folder")): p for p in (target / "folder").rglob("*")}
        assert {n: p.read_bytes() for n, p in received.items() if p.is_file()} == files
        assert received["empty"].is_dir()


def test_a_file_is_shipped_under_its_name(tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(b"12345")
    members = list(members_of(tmp_path / "x.bin"))
    (tmp_path / "out").mkdir()
    unpack(members, pieces_of(tmp_path / "x.bin", members, 2), tmp_path / "out")
    assert (tmp_path / "out" / "x.bin").read_bytes() == b"12345"


def test_a_file_that_shrinks_meanwhile_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(b"12345")
    members = list(members_of(path))
    path.write_bytes(b"1")
    with pytest.raises(DataError, match="became shorter"):
        list(pieces_of(path, members))
