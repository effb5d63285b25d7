"""Files appear whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from icltool.errors import StoreError
from icltool.store.atomic import (
    check_writable,
    read_json,
    remove_leftovers,
    replace_file,
    write_json,
    write_text,
    writing,
)
from icltool.store.locking import locked


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_replaces_on_success(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file.png"
    with replace_file(path) as temporary:
        assert temporary.parent == path.parent
        assert temporary.suffix == ".png"
        assert temporary.name.startswith(".")
        temporary.write_text("first")
        assert not path.exists()
    write_text(path, "zweite Zeile: ä\n")
    assert path.read_bytes() == "zweite Zeile: ä\n".encode()
    assert names_in(path.parent) == ["file.png"]


def test_permissions_are_those_of_an_ordinary_file(tmp_path: Path) -> None:
    (tmp_path / "ordinary").write_text("")
    write_text(tmp_path / "file", "")
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == stat.S_IMODE((tmp_path / "ordinary").stat().st_mode)


@pytest.mark.parametrize("error", [ValueError("bad"), KeyboardInterrupt(), SystemExit(1)])
def test_failure_leaves_the_old_file(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "file.txt"
    write_text(path, "old")

    def fail() -> None:
        with replace_file(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert path.read_text() == "old"
    assert names_in(tmp_path) == ["file.txt"]


def test_leftovers_of_one_file_only_are_removed(tmp_path: Path) -> None:
    names = [".a.h5.lock", ".a.h5.journal", ".ab.01234567.tmp.h5", "a.h5", ".a.012345.tmp.h5"]
    for name in [*names, ".a.01234567.tmp.h5", ".a.89abcdef.tmp.h5"]:
        (tmp_path / name).touch()
    remove_leftovers(tmp_path / "a.h5")
    assert names_in(tmp_path) == sorted(names)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "disk is full: "),
        (errno.EDQUOT, "disk is full: "),
        (errno.EROFS, "is read-only"),
        (errno.EACCES, "is read-only"),
        (errno.EIO, " cannot be written: "),
    ],
)
def test_what_stopped_the_writing(tmp_path: Path, code: int, words: str) -> None:
    path = tmp_path / "file.h5"
    for error in (OSError(code, os.strerror(code)), OSError(f"file write failed: errno = {code}, error message = ''")):
        with pytest.raises(StoreError) as caught, writing(path):
            raise error
        assert words in caught.value.message
        assert str(path) in caught.value.message
        assert caught.value.hint
        assert caught.value.__cause__ is error


def test_a_device_that_is_full(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="disk is full: /dev/full"), writing(Path("/dev/full")):
        Path("/dev/full").write_text("x")


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"inner cannot be written"):
        write_text(tmp_path / "file" / "inner", "x")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(json_values)
def test_json_round_trip(memory_path: Path, value: object) -> None:
    path = memory_path / "value.json"
    write_json(path, value)
    assert read_json(path) == value


def test_json_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "dataset.json"
    with pytest.raises(StoreError, match="does not exist"):
        read_json(path)
    with pytest.raises(StoreError, match="cannot be read: "):
        read_json(tmp_path)
    write_json(path, {"a": list(range(100)), "b": "ä"})
    whole = path.read_bytes()
    for content in (whole[:-9], whole[:1], b"", b"\xff\xfe\x00", b"[" * 100_000):
        path.write_bytes(content)
        with pytest.raises(StoreError, match=r"dataset\.json is truncated or malformed") as caught:
            read_json(path)
        assert caught.value.hint


def test_places_that_take_no_file_are_told_before_anything_is_written(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "folder" / "file.csv")
    assert names_in(tmp_path) == []
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be written: no file can be created there"):
        check_writable(tmp_path / "file" / "below.csv")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="Linux has /proc")
def test_a_folder_that_takes_no_file_is_not_taken_for_a_lock_that_is_held() -> None:
    with pytest.raises(StoreError, match=r"^/proc cannot be written: "), locked(Path("/proc/x.json")):
        pass
