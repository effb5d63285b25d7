"""What stands for weights, and what a run with other ones is told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from icltool.errors import StoreError
from icltool.store import makers
from icltool.store.makers import Makers, content_mark


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "model" / "model.safetensors").write_bytes(bytes(range(256)) * 4096)
    (tmp_path / "model" / "README.md").write_text("a card")
    return tmp_path / "model"


def test_what_is_read_changes_the_mark_and_what_is_not_does_not(folder: Path) -> None:
    before = content_mark(folder)
    (folder / "README.md").write_text("another card")
    assert content_mark(folder) == before
    (folder / "config.json").write_text('{"a": 1}')
    assert content_mark(folder) != before


def test_one_byte_in_the_middle_is_seen_with_size_and_time_kept(folder: Path) -> None:
    file = folder / "model.safetensors"
    before, status = content_mark(folder), file.stat()
    content = bytearray(file.read_bytes())
    content[len(content) // 2 + 7] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert content_mark(folder) != before


def test_a_copy_has_the_mark_of_its_original(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    assert content_mark(copy) == content_mark(folder)
    assert content_mark(copy / "config.json") == content_mark(folder / "config.json")
    assert content_mark(tmp_path / "nothing") == ""


def test_of_a_large_file_the_time_counts_and_the_samples(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(makers, "WHOLE", 1000)
    file = folder / "model.safetensors"
    before, status = content_mark(folder), file.stat()
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert content_mark(folder) != before
    with file.open("r+b") as stream:
        stream.seek(status.st_size - 1)
        stream.write(b"?")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert content_mark(folder) != before


def test_a_large_file_of_the_hubs_cache_is_known_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(makers, "WHOLE", 10)
    blob = tmp_path / "blobs" / ("a" * 64)
    snapshot = tmp_path / "snapshots" / "main"
    for place in (blob.parent, snapshot):
        place.mkdir(parents=True)
    blob.write_bytes(b"x" * 100)
    (snapshot / "model.safetensors").symlink_to(blob)
    before = content_mark(snapshot)
    os.utime(blob, ns=(0, 0))
    assert content_mark(snapshot) == before


NOW = Makers({"models/m": "plug 2.0", "metrics/cider": "icltool 9"}, {"models/m": "abc"})


@pytest.mark.parametrize(
    ("before", "message"),
    [
        (NOW, ""),
        (Makers(), ""),
        (Makers({"models/m": "plug 2.0"}, {"models/m": ""}), ""),
        (Makers({"metrics/cider": "icltool 1"}, {}), ""),
        (Makers({}, {"models/m": "def"}), "other weights of model m (def then, abc now)"),
        (Makers({"models/m": "plug 1.0"}, {}), "another version of model m (plug 1.0 then, plug 2.0 now)"),
    ],
)
def test_only_what_both_tell_of_is_compared(before: Makers, message: str, tmp_path: Path) -> None:
    assert before.difference(NOW) == message
    if message:
        with pytest.raises(StoreError) as caught:
            before.check(tmp_path / "file.h5", NOW)
        assert caught.value.message == f"{tmp_path / 'file.h5'} was made with {message}"
        assert "--overwrite" in (caught.value.hint or "")


@pytest.mark.parametrize("record", [None, [], {}, {"plugins": 3, "weights": "no"}])
def test_a_record_that_tells_nothing_is_no_record(record: object) -> None:
    assert Makers.of(record) == Makers()
