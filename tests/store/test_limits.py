"""What the operating system refuses: a second writer, a full disk, a folder that may not be written."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import icltool
from icltool.errors import StoreError
from icltool.store.embeddings import EmbeddingFile
from icltool.store.sequences import SequenceFile
from tests.processes import PATIENCE, Child, until

from .killable import embedding_writer, features_of, ids_of, result_of, sequence_writer

ROOT = Path(icltool.__file__).parents[1]

#: Runs in a process of its own; prints what came of it as the last line.
CHILD = """
import json, os, resource, sys, tempfile
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from killable import *
from icltool.errors import StoreError

path, kind, limit, user = Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
if user:  # the interpreter's own files may be out of that user's reach, so everything is imported first
    with tempfile.TemporaryDirectory() as folder, sequence_writer(Path(folder) / "rehearsal.h5", 1) as writer:
        writer.append(result_of(0))
    os.setgid(user)
    os.setuid(user)
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
stored = 0
try:
    if kind == "sequences":
        with sequence_writer(path, 100_000) as writer:
            stored = len(writer.finished)
            while stored < 100_000:
                writer.append(result_of(stored))
                stored += 1
    else:
        with embedding_writer(path, 100_000) as writer:
            stored = writer.done
            while stored < 100_000:
                rows = range(stored, stored + 500)
                writer.append(ids_of(rows), features_of(rows))
                stored += 500
except StoreError as error:
    print(json.dumps({"message": error.message, "hint": error.hint, "stored": stored}))
"""


def run_child(path: Path, kind: str, limit: int = 0, user: int = 0) -> dict[str, object]:
    """What the writing child reported. It must end in good order: HDF5 likes to crash at exit when a disk was full."""
    process = subprocess.run(
        [sys.executable, "-c", CHILD, str(Path(__file__).parent), str(path), kind, str(limit), str(user)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    report: dict[str, object] = json.loads(process.stdout)
    return report


@contextlib.contextmanager
def tiny_disk(folder: Path, options: str) -> Iterator[bool]:
    """Mounts a file system in memory on `folder`; False where this process may not."""
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    mounted = shutil.which("mount") is not None and subprocess.run(command, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


def stored_in(path: Path, kind: str) -> int:
    with (SequenceFile if kind == "sequences" else EmbeddingFile).open(path) as file:
        return len(file)


@pytest.mark.parametrize("kind", ["sequences", "embeddings"])
def test_full_disk(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    path = folder / "file.h5"
    size = 300_000
    with tiny_disk(folder, f"size={size}") as mounted:
        report = run_child(path, kind, limit=0 if mounted else size)
        assert str(report["message"]).startswith("disk is full: ")
        assert "file.h5" in str(report["message"])
        assert "free some space" in str(report["hint"])
        assert int(str(report["stored"])) > 100
        assert stored_in(path, kind) == report["stored"]
        again = run_child(path, kind, limit=0 if mounted else size)
        assert str(again["message"]).startswith("disk is full: ")
        assert int(str(again["stored"])) >= int(str(report["stored"]))
        if mounted:
            subprocess.run(["mount", "-o", "remount,size=30M", str(folder)], check=True)
        if kind == "sequences":
            with sequence_writer(path, 100_000) as writer:
                assert len(writer.finished) == again["stored"]
                writer.append(result_of(len(writer.finished)))
        else:
            with embedding_writer(path, 100_000) as rows:
                assert rows.done == again["stored"]
                rows.append(ids_of(range(rows.done, rows.done + 1)), features_of(range(rows.done, rows.done + 1)))
        assert stored_in(path, kind) == int(str(again["stored"])) + 1
        names = sorted(p.name for p in folder.iterdir())
    assert names == [".file.h5.lock", "file.h5"]


def test_file_size_limit_while_the_file_is_rewritten(memory_path: Path) -> None:
    """The journal fits, the HDF5 file does not: the error is raised when the writer is left, and nothing is lost."""
    path = memory_path / "file.h5"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def run() -> None:
        with sequence_writer(path, 50) as writer:
            for query in range(50):
                writer.append(result_of(query))
            resource.setrlimit(resource.RLIMIT_FSIZE, (9000, hard))

    try:
        with pytest.raises(StoreError, match=r"disk is full: .*file\.h5"):
            run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(p.name for p in memory_path.iterdir()) == [".file.h5.journal", ".file.h5.lock", "file.h5"]
    with SequenceFile.open(path) as file:
        assert file.complete
    with sequence_writer(path, 50) as writer:
        assert len(writer.finished) == 50
    assert not (memory_path / ".file.h5.journal").exists()


@pytest.mark.parametrize("existing", [False, True])
def test_folder_that_may_not_be_written(existing: bool) -> None:
    with tempfile.TemporaryDirectory(prefix="icltool-test-") as name:
        folder = Path(name) / "sequences"
        folder.mkdir()
        path = folder / "file.h5"
        if existing:
            with sequence_writer(path, 100_000) as writer:
                writer.append(result_of(0))
        Path(name).chmod(0o755)
        folder.chmod(0o555)
        try:
            report = run_child(path, "sequences", user=65534 if os.getuid() == 0 else 0)
        finally:
            folder.chmod(0o755)
        assert (
            str(report["message"])
            == f"{path.parent} cannot be written: no file can be created there (Permission denied)"
        )
        assert "writable" in str(report["hint"])
        if existing:
            assert stored_in(path, "sequences") == 1


def test_read_only_file_system(tmp_path: Path) -> None:
    with tiny_disk(tmp_path, "size=1M") as mounted:
        path = tmp_path / "file.h5"
        with sequence_writer(path, 100_000) as writer:
            writer.append(result_of(0))
        if mounted:
            subprocess.run(["mount", "-o", "remount,ro", str(tmp_path)], check=True)
            report = run_child(path, "sequences")
            message = f"{path.parent} cannot be written: no file can be created there (Read-only file system)"
            assert str(report["message"]) == message
            assert (tmp_path / "file.h5").exists()
        assert stored_in(path, "sequences") == 1


def hold(path: Path) -> None:
    with sequence_writer(path, 10) as writer:
        writer.append(result_of(0))
        print("open", flush=True)
        time.sleep(PATIENCE)


def test_second_writer_is_refused_until_the_first_is_dead(memory_path: Path) -> None:
    path = memory_path / "file.h5"
    with Child(lambda: hold(path)) as first:
        until(lambda: first.out == "open\n" or first.poll() is not None)
        for overwrite in (False, True):
            with pytest.raises(StoreError, match=r"file\.h5 is being written by") as caught:
                sequence_writer(path, 10, overwrite=overwrite).__enter__()
            assert "wait for it" in str(caught.value.hint)
            if Path("/proc/locks").exists():
                assert f"process {first.pid}" in caught.value.message
        with SequenceFile.open(path) as file:
            assert file.query_ids == (0,)
    with sequence_writer(path, 10) as writer:
        assert writer.finished == {0}
        writer.append(result_of(1))


def test_second_writer_of_the_same_process_is_refused(memory_path: Path) -> None:
    path = memory_path / "file.h5"
    with sequence_writer(path, 10) as writer:
        with pytest.raises(StoreError, match="is being written by"):
            sequence_writer(path, 10).__enter__()
        writer.append(result_of(1))
    with SequenceFile.open(path) as file:
        assert file.query_ids == (1,)
