"""Images that are others than when their data set was prepared."""

from __future__ import annotations

import os
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest

from icltool.errors import StoreError
from icltool.execution.progress import for_terminal
from icltool.store import stamps
from icltool.store.stamps import check_stamps, differing, image_files

QUIET = for_terminal(quiet=True)
NOWHERE = Path("/nowhere")


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    for name in "abc":
        (tmp_path / f"{name}.png").write_bytes(name.encode() * 10)
    return image_files([f"{tmp_path}/b.png", f"{tmp_path}/a.png", "", f"{tmp_path}/c.png#xywh=1,2,3,4&show=crop"])


def set_later(file: str) -> None:
    os.utime(file, ns=(0, Path(file).stat().st_mtime_ns + 1))


def test_files_of_images_are_each_there_once(files: list[str], tmp_path: Path) -> None:
    assert files == [f"{tmp_path}/{name}.png" for name in "abc"]


def test_size_time_and_absence_are_seen(files: list[str]) -> None:
    before = stamps.stamps(files, NOWHERE)
    assert not len(differing(before, stamps.stamps(files, NOWHERE)))
    set_later(files[0])
    Path(files[2]).unlink()
    assert differing(before, stamps.stamps(files, NOWHERE)).tolist() == [0, 2]


def test_the_content_decides_where_it_was_read(files: list[str]) -> None:
    before = stamps.stamps(files, NOWHERE, QUIET)
    set_later(files[0])
    changed = Path(files[1]).stat()
    Path(files[1]).write_bytes(b"x" * 10)
    os.utime(files[1], ns=(0, changed.st_mtime_ns))
    assert differing(before, stamps.stamps(files, NOWHERE, QUIET)).tolist() == [1]
    assert differing(before, stamps.stamps(files, NOWHERE)).tolist() == [0]


def test_times_of_our_own_files_do_not_count(files: list[str], tmp_path: Path) -> None:
    before = stamps.stamps(files, tmp_path)
    set_later(files[0])
    Path(files[1]).write_bytes(b"longer than it was")
    assert differing(before, stamps.stamps(files, tmp_path)).tolist() == [1]


def test_members_of_an_archive_are_known_by_their_checksum(tmp_path: Path) -> None:
    def packed(content: bytes) -> None:
        with ZipFile(tmp_path / "images.zip", "w") as archive:
            archive.writestr("a.png", content)

    packed(b"one")
    file = [f"{tmp_path}/images.zip/a.png"]
    before = stamps.stamps(file, NOWHERE)
    packed(b"one")
    assert not len(differing(before, stamps.stamps(file, NOWHERE)))
    packed(b"two")
    assert len(differing(before, stamps.stamps(file, NOWHERE))) == 1


def test_what_changed_is_named_with_the_way_out(files: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "prepared"
    folder.mkdir()
    check_stamps(folder, files, NOWHERE, "again")  # of before: there are none
    np.save(folder / stamps.FILE, stamps.stamps(files, NOWHERE))
    check_stamps(folder, files, NOWHERE, "again")
    set_later(files[1])
    with pytest.raises(StoreError) as caught:
        check_stamps(folder, files, NOWHERE, "again")
    assert caught.value.message == f"1 image changed since the data set was prepared: {files[1]}"
    assert caught.value.hint == "again"
    Path(files[1]).unlink()
    check_stamps(folder, files, NOWHERE, "again")  # it may not be needed


def test_of_many_a_sample_is_looked_at(files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stamps, "SAMPLE", 2)
    np.save(tmp_path / stamps.FILE, stamps.stamps(files, NOWHERE))
    for file in files:
        set_later(file)
    with pytest.raises(StoreError, match="2 images of 2 that were looked at"):
        check_stamps(tmp_path, files, NOWHERE, "again")


@pytest.mark.parametrize("place", range(0, 128, 3))
def test_damaged_stamps_are_none(place: int, tmp_path: Path) -> None:
    np.save(tmp_path / stamps.FILE, np.zeros((3, 3), dtype=np.int64))
    content = bytearray((tmp_path / stamps.FILE).read_bytes())
    content[place] = ord("(")
    (tmp_path / stamps.FILE).write_bytes(content)
    result = stamps.read_stamps(tmp_path, 3)
    assert result is None or result.shape == (3, 3)
