"""Files in folders and in zip archives, against the standard library's reader."""

from __future__ import annotations

import os
import threading
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from icltool.contracts import archive_and_member, archive_members, file_exists, files, open_file, read_whole

CONTENTS = {"train2017/1.jpg": b"one" * 900, "train2017/2.jpg": b"", "train2017/ü 3.jpg": bytes(range(256)) * 40}
METHODS = pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])


def write_zip(path: Path, contents: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("train2017/", b"")
        for name, content in contents.items():
            archive.writestr(name, content)
    return path


def read(path: str | Path) -> bytes:
    with open_file(path) as file:
        return file.read()


def damage(path: Path, marker: bytes) -> None:
    """Changes the byte where the marker begins."""
    content = bytearray(path.read_bytes())
    content[content.index(marker)] ^= 0xFF
    path.write_bytes(content)


@METHODS
def test_members_equal_what_was_written(tmp_path: Path, method: int) -> None:
    archive = write_zip(tmp_path / "train2017.zip", CONTENTS, method)
    assert {name: read(archive / name) for name in CONTENTS} == CONTENTS
    assert set(archive_members(archive)) == set(CONTENTS)
    assert all(file_exists(archive / name) for name in CONTENTS)


@METHODS
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=5000), block=st.integers(1, 300), amount=st.integers(1, 700))
def test_long_members_are_streamed(tmp_path: Path, method: int, content: bytes, block: int, amount: int) -> None:
    archive = write_zip(tmp_path / "a.zip", {"x": content * 3}, method)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "_AT_ONCE", -1)
        patch.setattr(files, "_BLOCK", block)
        with open_file(archive / "x") as file:
            assert not file.seekable()
            parts = []
            while part := file.read(amount):
                parts.append(part)
        assert read(archive / "x") == b"".join(parts) == content * 3


def test_plain_files(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(b"plain")
    assert read(str(tmp_path / "x.jpg")) == b"plain"
    assert file_exists(tmp_path / "x.jpg")
    assert not file_exists(tmp_path)
    assert archive_and_member(tmp_path / "x.jpg") is None


def test_a_folder_may_be_called_like_an_archive(tmp_path: Path) -> None:
    folder = tmp_path / "old.zip" / "deeper"
    folder.mkdir(parents=True)
    (folder / "x.jpg").write_bytes(b"plain")
    write_zip(folder / "b.ZIP", {"y.zip/z": b"within"})
    assert read(folder / "x.jpg") == b"plain"
    assert read(folder / "b.ZIP" / "y.zip" / "z") == b"within"
    assert archive_and_member(folder / "b.ZIP" / "y.zip" / "z") == (str(folder / "b.ZIP"), "y.zip/z")
    assert archive_and_member(folder / "b.ZIP") == (str(folder / "b.ZIP"), "")


def test_what_is_absent(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "a.zip", CONTENTS)
    for path in (tmp_path / "x", tmp_path / "b.zip" / "x", archive / "x", archive / "train2017", archive / "1.jpg"):
        assert not file_exists(path)
        with pytest.raises(FileNotFoundError, match=path.name):
            open_file(path)


def test_cut_archive_and_no_archive(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "a.zip", CONTENTS)
    archive.write_bytes(archive.read_bytes()[:-40])
    other = tmp_path / "b.zip"
    other.write_text("a web page that says where to sign in")
    for path in (archive, other):
        assert not file_exists(path / "train2017/1.jpg")
        with pytest.raises(OSError, match="cut off or no zip archive"):
            open_file(path / "train2017/1.jpg")


@METHODS
def test_damaged_members(tmp_path: Path, method: int) -> None:
    content = os.urandom(3000)
    archive = write_zip(tmp_path / "a.zip", {"x": content, "y": b"whole"}, method)
    damage(archive, stored_start(archive, "x"))
    with pytest.raises(OSError, match="damaged"):
        read(archive / "x")
    assert read(archive / "y") == b"whole"


def stored_start(archive: Path, name: str) -> bytes:
    """The first stored bytes of a member."""
    with zipfile.ZipFile(archive) as opened:
        start = opened.getinfo(name).header_offset + 30 + len(name)
    return archive.read_bytes()[start : start + 20]


def test_encrypted_and_unusual_members_are_refused(tmp_path: Path) -> None:
    lzma = write_zip(tmp_path / "lzma.zip", {"x": b"content"}, zipfile.ZIP_LZMA)
    with pytest.raises(OSError, match="compressed by method 14"):
        open_file(lzma / "x")
    locked = write_zip(tmp_path / "locked.zip", {"x": b"content"})
    content = bytearray(locked.read_bytes())
    content[content.rindex(b"PK\x01\x02") + 8] |= 1
    locked.write_bytes(content)
    with pytest.raises(OSError, match="encrypted"):
        open_file(locked / "x")


def test_large_form_of_the_format(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive, archive.open("x", "w", force_zip64=True) as member:
        member.write(b"content")
    assert read(tmp_path / "a.zip" / "x") == b"content"


def test_a_replaced_archive_is_listed_anew(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "a.zip", {"x": b"first"})
    held = open_file(archive / "x")
    write_zip(tmp_path / "new.zip", {"x": b"second", "y": b""}).replace(archive)
    assert read(archive / "x") == b"second"
    assert file_exists(archive / "y")
    assert held.read() == b"first"


def test_few_archives_stay_open(tmp_path: Path) -> None:
    archives = [write_zip(tmp_path / f"{n}.zip", {"x": b"%d" % n}) for n in range(files._OPEN_ARCHIVES + 4)]
    for _ in range(2):
        assert [read(archive / "x") for archive in archives] == [b"%d" % n for n in range(len(archives))]
    assert len(files._opened) <= files._OPEN_ARCHIVES


def many(archive: Path, contents: dict[str, bytes], rounds: int) -> int:
    """How often a member was not what it should be."""
    return sum(read(archive / name) != content for _ in range(rounds) for name, content in contents.items())


def test_threads_and_forked_workers_share_an_archive(tmp_path: Path) -> None:
    contents = {f"{n}.jpg": os.urandom(20_000) for n in range(20)}
    archive = write_zip(tmp_path / "a.zip", contents, zipfile.ZIP_DEFLATED)
    wrong: list[int] = []
    threads = [threading.Thread(target=lambda: wrong.append(many(archive, contents, 10))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == [0, 0, 0, 0]
    if not hasattr(os, "fork"):
        return
    child = os.fork()
    if child == 0:
        os._exit(min(many(archive, contents, 10), 100))
    assert many(archive, contents, 10) == 0
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_pipes_and_devices_are_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        for read in (open_file, read_whole):
            with pytest.raises(OSError, match="it is not a regular file"):
                read(path)
    (tmp_path / "long").write_bytes(b"12345")
    assert read_whole(tmp_path / "long") == b"12345"
    monkeypatch.setattr(files, "MOST_BYTES", 4)
    with pytest.raises(OSError, match="it has 5 bytes, and 4 are read at most"):
        read_whole(tmp_path / "long")
