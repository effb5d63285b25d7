"""`icltool clean` on real workspaces: what is left after removing, whatever comes in between."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import icltool
from icltool.commands.clean import run as clean
from icltool.errors import StoreError
from icltool.store.inventory.inventory import inventory
from icltool.store.inventory.removal import remove
from icltool.store.sequences import SequenceFile, SequenceWriter
from icltool.store.workspace import Workspace
from tests.commands.clean.workspaces import (
    PROGRESS,
    TRAIN,
    checkpoint,
    chosen,
    cleaned,
    evaluation,
    listed,
    locked_elsewhere,
    planned,
    sequences,
)
from tests.store import killable


def test_a_journal_that_could_not_go_with_its_file_is_a_leftover(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file goes first: without it nothing reads the journal, and a new file does not go on with it."""
    path = sequences(workspace, "a.h5")
    journal = path.with_name(".a.h5.journal")
    journal.write_bytes(b"ICLJRNL1")
    report, rename = planned(workspace, "a.h5"), Path.rename

    def refused(self: Path, target: Path) -> Path:
        if self == journal:
            raise OSError(5, "Input/output error", str(self))
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", refused)
        assert len(clean.run(report, PROGRESS).faults) == 1
    assert (path.exists(), listed(workspace)["sequences/.a.h5.journal"].state) == (False, "leftover")
    sequences(workspace, "a.h5", finished=1)
    assert len(SequenceFile.open(path)) == 1


def test_removed_is_what_was_chosen_and_nothing_else(workspace: Path) -> None:
    sequences(workspace, "a.h5")
    evaluation(workspace, "shapes-caption-m-1")
    before = {p for p in workspace.rglob("*") if p.is_file()}
    report = cleaned(workspace, "a.h5", "shapes-caption-m-1")
    after = {p for p in workspace.rglob("*") if p.is_file()}
    gone = {p.relative_to(workspace).parts[0] for p in before - after}
    assert (after - before, gone, report.faults) == (set(), {"sequences", "evaluations"}, ())
    assert report.freed == sum(a.bytes for a in report.artefacts)
    assert list((workspace / "evaluations").iterdir()) == []
    cleaned(workspace, kind=("datasets",))
    assert list((workspace / "datasets").iterdir()) == []


def test_what_another_process_writes_stays(workspace: Path) -> None:
    held, free = sequences(workspace, "held.h5"), sequences(workspace, "free.h5")
    running = evaluation(workspace, "shapes-caption-m-1")
    with locked_elsewhere(held) as pid, locked_elsewhere(running / "results.json"):
        report = planned(workspace, kind=("sequences", "evaluations"))
        done = clean.run(report, PROGRESS)
        unaware = [a for a in report.artefacts if a.path == held]  # as where the system tells of no locks
        with pytest.raises(StoreError, match="is being written by"):
            remove(unaware[0])
    assert {a.label for a in report.free} == {"sequences/free.h5"}
    assert any(f"being written by process {pid}" in line for line in report.remarks)
    assert (held.exists(), running.exists(), free.exists(), len(done.faults)) == (True, True, False, 2)
    assert cleaned(workspace, kind=("sequences", "evaluations")).faults == ()
    assert not held.exists()


def test_what_a_process_uses_stays(workspace: Path) -> None:
    """Sequences name their data set; a training tells nothing before it ends, and an evaluation never names embeddings."""
    begun = sequences(workspace, "begun.h5", finished=1)
    chosen_first = planned(workspace, "datasets/shapes/caption")
    with locked_elsewhere(begun) as pid:
        report = planned(workspace, kind=("datasets",))
        done = clean.run(chosen_first, PROGRESS)
    assert {a.label: a.used_by for a in report.artefacts} == {
        "datasets/shapes/caption": f"process {pid}, which writes sequences/begun.h5",
        "datasets/shapes/vqa": "",
    }
    assert done.removed == ()
    assert done.faults == (f"datasets/shapes/caption is in use by process {pid}, which writes sequences/begun.h5",)
    assert "needed by 3" in report.artefacts[0].remarks()
    for kind, folder in (("checkpoints", "lever-lm-shapes-caption-1"), ("evaluations", "shapes-caption-m-1")):
        path = workspace / kind / folder
        path.mkdir(parents=True)
        (path / "resume.ckpt").write_bytes(b"x")
        with locked_elsewhere(path / "results.json" if kind == "evaluations" else path):
            used = {a.label for a in planned(workspace).artefacts if a.used_by}
        assert TRAIN in used
        assert ("sequences/begun.h5" in used) == (kind == "checkpoints")
        assert not [label for label in used if "vqa" in label]


def test_what_changed_after_the_list_stays(workspace: Path) -> None:
    path = sequences(workspace, "a.h5", finished=1)
    report = planned(workspace, "a.h5")
    sequences(workspace, "a.h5", finished=0)  # opened again, nothing added: as it was
    with SequenceWriter(path, SequenceFile.open(path).provenance, killable.SHOTS, killable.BEAMS, 9, 3) as writer:
        writer.append(killable.result_of(2))
    done = clean.run(report, PROGRESS)
    assert path.exists()
    assert "has changed since it was listed" in done.faults[0]


def test_links_are_removed_and_never_followed(workspace: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    treasure = shutil.copy(workspace / TRAIN, outside / "treasure.h5")
    (workspace / "embeddings" / "linked.h5").symlink_to(treasure)
    (workspace / "embeddings" / "dangling.h5").symlink_to(outside / "none.h5")
    folder = checkpoint(workspace, "lever-lm-shapes-caption-1")
    (folder / "logs").symlink_to(outside)
    moved = shutil.move(checkpoint(workspace, "elsewhere"), tmp_path / "moved")
    (workspace / "checkpoints" / "elsewhere").symlink_to(moved)
    artefacts = listed(workspace)
    assert artefacts["embeddings/linked.h5"].link == str(treasure)
    assert artefacts["embeddings/linked.h5"].bytes < 500
    assert artefacts["embeddings/dangling.h5"].state == "damaged"
    report = cleaned(workspace, kind=("embeddings", "checkpoints"))
    assert report.faults == ()
    assert list(outside.iterdir()) == [Path(treasure)]
    assert (Path(moved) / "training.json").exists()
    assert list((workspace / "embeddings").iterdir()) == list((workspace / "checkpoints").iterdir()) == []


def test_a_folder_that_is_a_link_out_of_the_workspace_is_left_alone(workspace: Path, tmp_path: Path) -> None:
    shutil.move(workspace / "embeddings", tmp_path / "big-disk")
    (workspace / "embeddings").symlink_to(tmp_path / "big-disk")
    listing = inventory(Workspace(workspace))
    assert not [a for a in listing.artefacts if a.kind == "embeddings"]
    assert "is a link to" in listing.remarks[0]
    link = tmp_path / "ws-link"
    link.symlink_to(workspace)
    assert "datasets/shapes/vqa" in listed(link), "the workspace itself may be a link"


def test_leftovers(workspace: Path) -> None:
    sequences(workspace, "a.h5")
    folder, past = workspace / "sequences", time.time() - 7200
    lost = (".a.01234567.tmp.h5", ".gone.h5.journal", ".alone.h5.lock", ".0123456789abcdef.tmp")
    for name in lost:
        (folder / name).write_bytes(b"x")
        os.utime(folder / name, (past, past))
    (folder / ".gone.h5.lock").touch()
    (folder / ".fresh.01234567.tmp.h5").write_bytes(b"x")  # no lock: perhaps somebody writes it at this moment
    half = workspace / "datasets" / "shapes" / ".vqa.89abcdef.tmp"
    shutil.copytree(workspace / "datasets" / "shapes" / "vqa", half)
    (half.parent / ".vqa.lock").touch()
    (folder / ".b.h5.lock").touch()
    live = folder / ".b.01234567.tmp.h5"
    live.write_bytes(b"x")
    with locked_elsewhere(folder / "b.h5"):
        expected = {"datasets/shapes/.vqa.89abcdef.tmp", *(f"sequences/{name}" for name in lost)}
        assert chosen(workspace, leftovers=True) == expected
        assert cleaned(workspace, leftovers=True).faults == ()
        assert live.exists()
    assert sorted(p.name for p in folder.iterdir()) == [
        ".a.h5.lock",
        ".b.01234567.tmp.h5",
        ".b.h5.lock",
        ".fresh.01234567.tmp.h5",
        "a.h5",
    ]


def test_a_lock_that_goes_with_what_is_half_removed_is_not_made_anew(workspace: Path) -> None:
    folder, past = workspace / "sequences", time.time() - 7200
    folder.mkdir()
    for name in (".gone.h5.lock", ".gone.removed.01234567.tmp.h5"):
        (folder / name).write_bytes(b"")
        os.utime(folder / name, (past, past))
    report = cleaned(workspace, kind=("sequences",))
    assert (report.faults, len(report.removed)) == ((), 2)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("deleted", [0, 1, 3])
def test_a_kill_in_the_middle_leaves_a_leftover_and_nothing_that_looks_whole(workspace: Path, deleted: int) -> None:
    """SIGKILL after so many files of an evaluation are deleted."""
    folder = evaluation(workspace, "shapes-caption-m-1")
    for number in range(4):
        (folder / "predictions" / f"more-{number}.jsonl").write_text("{}\n")
    code = (
        "import os, sys; from pathlib import Path\n"
        "from icltool.store.inventory.inventory import inventory; from icltool.store.workspace import Workspace\n"
        "from icltool.store.inventory.removal import remove; from pathlib import Path\n"
        "unlink, count = Path.unlink, [int(sys.argv[2])]\n"
        "def killed(self, missing_ok=False):\n"
        "    if not count[0]: os.kill(os.getpid(), 9)\n"
        "    count[0] -= 1; unlink(self, missing_ok)\n"
        "Path.unlink = killed\n"
        "remove([a for a in inventory(Workspace(Path(sys.argv[1]))).artefacts if a.kind == 'evaluations'][0])"
    )
    root = str(Path(icltool.__file__).parents[1])
    answer = subprocess.run([sys.executable, "-c", code, str(workspace), str(deleted)], cwd=root, check=False)
    assert answer.returncode == -signal.SIGKILL
    assert not folder.exists()
    with pytest.raises(StoreError):
        Workspace(workspace).newest_evaluation()
    (left,) = [a for a in listed(workspace).values() if a.kind == "evaluations"]
    assert left.state == "leftover"
    assert cleaned(workspace, leftovers=True).removed == (left.label,)
    assert list((workspace / "evaluations").iterdir()) == []


def test_a_file_that_cannot_be_deleted_stops_nothing_else(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sequences(workspace, "a.h5")
    sequences(workspace, "b.h5")
    rename = Path.rename

    def refused(self: Path, target: Path) -> Path:
        if self.name == "b.h5":
            raise PermissionError(13, "Permission denied", str(self))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refused)
    report = cleaned(workspace, "a.h5", "b.h5")
    assert report.removed == ("sequences/a.h5",)
    assert "b.h5 is read-only" in report.faults[0]
    assert SequenceFile.open(workspace / "sequences" / "b.h5").complete
