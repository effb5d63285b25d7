"""Workspaces on file systems without locks."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from icltool.errors import StoreError
from icltool.store import locking
from icltool.store.locking import held_by, locked
from icltool.store.records import open_dataset
from icltool.store.sequences import SequenceFile
from tests.processes import compiled

SOURCE = Path(__file__).with_name("noflock.c")
#: As Lustre, NFS and others answer.
ANSWERS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, 524)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the shim is for Linux")


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that takes the locks away from a process that it is loaded into."""
    return compiled(SOURCE, tmp_path_factory.mktemp("shim"))


@pytest.mark.parametrize("answer", ANSWERS)
def test_commands_work_and_say_that_there_are_no_locks(answer: int, shim: Path, tmp_path: Path) -> None:
    workspace = tmp_path / "ws"
    environment = {**os.environ, "LD_PRELOAD": str(shim), "NOFLOCK_ERRNO": str(answer)}
    code = f"""
from icltool.cli.app import run
common = ["--task=caption", "--workspace", {str(workspace)!r}]
assert run(["prepare", "shapes", "--option=index_images=12", "--option=validation_images=2", *common]) == 0
"""
    if answer == ANSWERS[0]:
        code += """
assert run(["embed", "--encoder=tiny-clip", "--device=cpu", *common]) == 0
search = ["--scorer=cosine", "--sampler=random", "--anchors=2", "--candidates=3", "--beam-size=1", "--shots=1"]
assert run(["generate", *search, *common]) == 0
assert run(["generate", *search, *common]) == 0
"""
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "has no locks; lock files replace them" in done.stderr
    assert "another process" not in done.stderr
    assert len(open_dataset(workspace / "datasets" / "shapes" / "caption").split("train")) == 12
    for file in (workspace / "sequences").glob("*.h5"):
        with SequenceFile.open(file) as stored:
            assert stored.complete
    assert not list(workspace.rglob("*.held"))


@pytest.fixture
def lockless(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """`flock` as a file system without locks has it."""

    def refused(*arguments: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locking.fcntl, "flock", refused)
    monkeypatch.setattr(locking, "_with_locks", set())
    return refused


@pytest.mark.filterwarnings("ignore::icltool.errors.IclWarning")
def test_one_writer_at_a_time(lockless: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with locked(path):
        assert held_by(path) == f"process {os.getpid()}"
        with pytest.raises(StoreError) as caught, locked(path):
            pass
        assert caught.value.message == f"{path} is being written by process {os.getpid()}"
        assert f"remove {tmp_path / '.a.h5.lock.held'}" in (caught.value.hint or "")
    assert held_by(path) == ""
    with locked(path):
        pass


@pytest.mark.filterwarnings("ignore::icltool.errors.IclWarning")
def test_what_a_process_that_is_gone_left_is_taken_and_another_machines_is_not(
    lockless: Callable[..., Any], tmp_path: Path
) -> None:
    path, file = tmp_path / "a.h5", tmp_path / ".a.h5.lock.held"
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (tmp_path / ".a.h5.lock").touch()
    for content in (f"{gone.pid} {socket.gethostname()}", ""):
        file.write_text(content)
        os.utime(file, (0, 0))
        with locked(path):
            assert file.read_text() == f"{os.getpid()} {socket.gethostname()}"
    file.write_text(f"{gone.pid} elsewhere")
    with pytest.raises(StoreError, match=f"process {gone.pid} on elsewhere"), locked(path):
        pass
    assert held_by(path) == f"process {gone.pid} on elsewhere"
    file.write_text("")  # about to be written
    with pytest.raises(StoreError, match="another process"), locked(path):
        pass
