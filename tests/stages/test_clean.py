"""`icltool clean` on real workspaces: what is listed, what is chosen, and what is left after removing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import icltool
from icltool.config.clean import CleanConfig
from icltool.contracts import QueryResult
from icltool.errors import ConfigError, StoreError
from icltool.execution.progress import SilentProgress
from icltool.stages import clean
from icltool.store.artefact import Provenance
from icltool.store.atomic import read_json, write_json
from icltool.store.evaluations import MetricResult, SettingResult, write_results
from icltool.store.inventory import Artefact, inventory
from icltool.store.removal import remove
from icltool.store.sequences import SequenceFile, SequenceWriter
from icltool.store.workspace import Workspace
from tests.store import killable

PROGRESS = SilentProgress()
TRAIN = "embeddings/shapes-caption-train-tiny-clip.h5"


def fingerprint(workspace: Path, task: str = "caption") -> str:
    return str(read_json(workspace / "datasets" / "shapes" / task / "dataset.json")["fingerprint"])


def sequences(workspace: Path, name: str, finished: int = 3, total: int = 3, **made: Any) -> Path:
    """A sequences file of the data set that is prepared for captions."""
    configuration = {"dataset": "shapes", "task": "caption", **made}
    provenance = Provenance(configuration, fingerprint(workspace))
    path = workspace / "sequences" / name
    with SequenceWriter(path, provenance, killable.SHOTS, killable.BEAMS, killable.CANDIDATES, total) as writer:
        for query in range(finished):
            result: QueryResult = killable.result_of(query)
            writer.append(result)
    return path


def checkpoint(workspace: Path, name: str, sequences: str = "", **identity: Any) -> Path:
    folder = workspace / "checkpoints" / name
    folder.mkdir(parents=True)
    (folder / "last.safetensors").write_bytes(b"x" * 3000)
    made = {"dataset": "shapes", "task": "caption", "dataset_fingerprint": fingerprint(workspace), **identity}
    record = {
        "schema": "icltool.training",
        "schema_version": 1,
        "identity": made,
        "provenance": {"sequences": sequences},
    }
    write_json(folder / "training.json", {**record, "checkpoints": {"last": "last.safetensors"}})
    return folder


def evaluation(workspace: Path, name: str, made_from: str = "", **options: Any) -> Path:
    folder = workspace / "evaluations" / name
    result = SettingResult("i2i", 2, 0, 5, {"accuracy": MetricResult(0.5, 0.4, 0.6)}, extra={"options": options})
    made = {"dataset": "shapes", "task": "caption", "dataset_fingerprint": made_from or fingerprint(workspace)}
    (folder / "predictions").mkdir(parents=True)
    write_results(folder, [result], {"configuration": made})
    (folder / "predictions" / "i2i-2-shot-seed0.jsonl").write_text("{}\n")
    return folder


def listed(workspace: Path) -> dict[str, Artefact]:
    return {a.label: a for a in inventory(Workspace(workspace)).artefacts}


def planned(workspace: Path, *names: str, **options: Any) -> clean.CleanReport:
    return clean.plan(CleanConfig(workspace=workspace, names=names, **options), PROGRESS)


def chosen(workspace: Path, *names: str, **options: Any) -> set[str]:
    return {a.label for a in planned(workspace, *names, **options).artefacts}


def cleaned(workspace: Path, *names: str, **options: Any) -> clean.CleanReport:
    return clean.run(planned(workspace, *names, **options), PROGRESS)


@contextmanager
def locked_elsewhere(path: Path) -> Iterator[int]:
    """Another process holds the artefact's lock; its id."""
    code = (
        "import sys; from pathlib import Path; from icltool.store.locking import locked\n"
        "with locked(Path(sys.argv[1])):\n    print('held', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(icltool.__file__).parents[1])},
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process.pid
    finally:
        process.communicate(timeout=30)


def test_every_artefact_is_listed_with_its_state(workspace: Path) -> None:
    sequences(workspace, "whole.h5")
    sequences(workspace, "begun.h5", finished=2)
    sequences(workspace, "cut.h5").write_bytes(b"\x89HDF\r\n\x1a\n cut")
    checkpoint(workspace, "lever-lm-shapes-caption-1")
    checkpoint(workspace, "lever-lm-shapes-caption-2").joinpath("last.safetensors").unlink()
    (checkpoint(workspace, "lever-lm-shapes-caption-3") / "training.json").unlink()
    part = evaluation(workspace, "shapes-caption-m-1") / "predictions" / ".i2i-4-shot-seed0.jsonl.part"
    part.write_text("{}\n")
    (workspace / "exports").mkdir()
    (workspace / "exports" / "table.csv").write_text("a,b\n")
    (workspace / "sequences" / "notes.txt").write_text("mine")
    (workspace / "sequences" / "begun.h5.failed.json").write_text('{"failures": [{"error": "OSError: gone"}]}')
    found = listed(workspace)
    states = {label: (a.state, a.facts.note) for label, a in found.items() if not label.startswith(("data", "emb"))}
    assert states == {
        "sequences/whole.h5": ("complete", ""),
        "sequences/begun.h5": ("unfinished", "2 of 3; 1 given up, the last: OSError: gone"),
        "sequences/cut.h5": ("damaged", states["sequences/cut.h5"][1]),
        "checkpoints/lever-lm-shapes-caption-1": ("complete", ""),
        "checkpoints/lever-lm-shapes-caption-2": ("damaged", "last.safetensors is missing"),
        "checkpoints/lever-lm-shapes-caption-3": ("unfinished", ""),
        "evaluations/shapes-caption-m-1": ("unfinished", "1 settings, 1 begun"),
        "exports/table.csv": ("complete", ""),
    }
    assert "cut" in states["sequences/cut.h5"][1]
    assert found["datasets/shapes/vqa"].state == found[TRAIN].state == "complete"
    assert not any(a.unreachable or a.held_by or a.link for a in found.values())
    assert found["datasets/shapes/caption"].bytes == sum(
        f.stat().st_size for f in (workspace / "datasets/shapes/caption").rglob("*") if f.is_file()
    )
    assert any("notes.txt" in remark for remark in inventory(Workspace(workspace)).remarks)


def test_a_killed_run_s_journal_is_counted_and_goes_with_its_file(workspace: Path) -> None:
    path = workspace / "sequences" / "killed.h5"
    code = (
        "import os, sys; from pathlib import Path; from tests.store import killable\n"
        "with killable.sequence_writer(Path(sys.argv[1]), 9) as w:\n"
        "    [w.append(killable.result_of(q)) for q in range(4)]; os.kill(os.getpid(), 9)"
    )
    root = str(Path(icltool.__file__).parents[1])
    subprocess.run([sys.executable, "-c", code, str(path)], cwd=root, check=False)
    artefact = listed(workspace)["sequences/killed.h5"]
    assert (artefact.state, artefact.facts.note, artefact.files) == ("unfinished", "4 of 9", 2)
    assert cleaned(workspace, "killed.h5").faults == ()
    assert list((workspace / "sequences").iterdir()) == []


def test_reachability(workspace: Path) -> None:
    checkpoint(workspace, "lever-lm-shapes-caption-1")
    old = evaluation(workspace, "shapes-caption-m-1", made_from="0ld")
    evaluation(workspace, "shapes-caption-m-2")
    sequences(workspace, "others.h5", anchors=7)
    sequences(workspace, "silent.h5", dataset=None)
    assert {label: a.unreachable for label, a in listed(workspace).items() if a.unreachable} == {
        f"evaluations/{old.name}": "its data set shapes (caption) has changed"
    }
    assert chosen(workspace, unreachable=True) == {f"evaluations/{old.name}"}
    assert any("cannot be made again" in line for line in planned(workspace, unreachable=True).remarks)
    shutil.rmtree(workspace / "datasets" / "shapes" / "caption")
    gone = chosen(workspace, unreachable=True)
    assert "sequences/others.h5" in gone
    assert TRAIN in gone
    assert "sequences/silent.h5" not in gone, "it does not say what it was made from"
    assert not any("vqa" in label for label in gone)


def test_a_data_set_that_cannot_be_read_makes_nothing_unreachable(workspace: Path) -> None:
    sequences(workspace, "a.h5")
    (workspace / "datasets" / "shapes" / "caption" / "dataset.json").write_text("{")
    assert chosen(workspace, unreachable=True) == set()
    assert listed(workspace)["datasets/shapes/caption"].state == "damaged"


def test_a_linked_data_set_still_counts_as_there(workspace: Path, tmp_path: Path) -> None:
    shutil.move(workspace / "datasets" / "shapes", tmp_path / "shared")
    (workspace / "datasets" / "shapes").symlink_to(tmp_path / "shared")
    assert chosen(workspace, unreachable=True) == set()
    assert not any(label.startswith("datasets") for label in listed(workspace))


def test_one_is_warned_of_what_others_need(workspace: Path) -> None:
    from icltool.store.embeddings import EmbeddingFile

    with EmbeddingFile.open(workspace / TRAIN) as file:
        used = file.fingerprint
    folder = checkpoint(workspace, "lever-lm-shapes-caption-1", embeddings_fingerprint=used)
    evaluation(workspace, "shapes-caption-m-1", folder=str(folder), checkpoint="last")
    found = listed(workspace)
    assert found[TRAIN].needed_by == (f"checkpoints/{folder.name}",)
    assert found[f"checkpoints/{folder.name}"].needed_by == ("evaluations/shapes-caption-m-1",)
    warned = f"warning: {TRAIN} is needed by checkpoints/{folder.name}"
    assert warned in planned(workspace, kind=("embeddings",)).remarks
    assert warned not in planned(workspace, kind=("embeddings", "checkpoints")).remarks


def test_a_training_outlives_its_sequences(workspace: Path) -> None:
    """It can be evaluated still, and costs more to make again than anything else."""
    sequences(workspace, "a.h5")
    checkpoint(workspace, "lever-lm-shapes-caption-1", sequences="a.h5")
    checkpoint(workspace, "lever-lm-shapes-caption-2", sequences="b.h5")
    found = listed(workspace)
    assert found["sequences/a.h5"].needed_by == ("checkpoints/lever-lm-shapes-caption-1",)
    assert found["checkpoints/lever-lm-shapes-caption-1"].facts.note == ""
    noted = found["checkpoints/lever-lm-shapes-caption-2"]
    assert (noted.facts.note, noted.unreachable) == ("its sequences b.h5 are not in the workspace", "")


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


def test_interrupted_captions_are_unfinished_and_can_be_removed(workspace: Path) -> None:
    (workspace / "captions").mkdir()
    (workspace / "captions" / ".list.json.journal").write_bytes(b"ICLJRNL1")
    assert listed(workspace)["captions/list.json"].state == "unfinished"
    assert cleaned(workspace, kind=("captions",)).removed == ("captions/list.json",)
    assert list((workspace / "captions").iterdir()) == []


def test_selection(workspace: Path) -> None:
    now = time.time()
    old, new = sequences(workspace, "old.h5"), sequences(workspace, "new.h5")
    os.utime(old, (now - 40 * 86400,) * 2)
    everything = set(listed(workspace))
    assert chosen(workspace) == everything
    assert chosen(workspace, older_than="30d") == {"sequences/old.h5"}
    assert chosen(workspace, older_than="30d", kind=("embeddings",)) == set()
    sizes = {label: a.bytes for label, a in listed(workspace).items()}
    assert chosen(workspace, larger_than="50kB") == {label for label, size in sizes.items() if size > 50_000}
    for name in ("new.h5", "sequences/new.h5", str(new), f"{workspace}/sequences/new.h5", "sequences/n*", "n?w.h5"):
        assert chosen(workspace, name) == {"sequences/new.h5"}
    assert chosen(workspace, "shapes/vqa", "new.h5", kind=("datasets",)) == {"datasets/shapes/vqa"}
    with pytest.raises(ConfigError, match=r"no artefact 'neu\.h5'") as caught:
        chosen(workspace, "neu.h5")
    assert "new.h5" in str(caught.value.hint)


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
    (workspace / "checkpoints" / "elsewhere").symlink_to(outside)
    found = listed(workspace)
    assert found["embeddings/linked.h5"].link == str(treasure)
    assert found["embeddings/linked.h5"].bytes < 500
    assert found["embeddings/dangling.h5"].state == "damaged"
    report = cleaned(workspace, kind=("embeddings", "checkpoints"))
    assert report.faults == ()
    assert list(outside.iterdir()) == [Path(treasure)]
    assert list((workspace / "embeddings").iterdir()) == list((workspace / "checkpoints").iterdir()) == []


def test_a_folder_that_is_a_link_out_of_the_workspace_is_left_alone(workspace: Path, tmp_path: Path) -> None:
    shutil.move(workspace / "embeddings", tmp_path / "big-disk")
    (workspace / "embeddings").symlink_to(tmp_path / "big-disk")
    found = inventory(Workspace(workspace))
    assert not [a for a in found.artefacts if a.kind == "embeddings"]
    assert "is a link to" in found.remarks[0]
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


@pytest.mark.parametrize("deleted", [0, 1, 3])
def test_a_kill_in_the_middle_leaves_a_leftover_and_nothing_that_looks_whole(workspace: Path, deleted: int) -> None:
    """SIGKILL after so many files of an evaluation are deleted."""
    folder = evaluation(workspace, "shapes-caption-m-1")
    for number in range(4):
        (folder / "predictions" / f"more-{number}.jsonl").write_text("{}\n")
    code = (
        "import os, sys; from pathlib import Path\n"
        "from icltool.store.inventory import inventory; from icltool.store.workspace import Workspace\n"
        "from icltool.store.removal import remove; from pathlib import Path\n"
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


def test_caches_of_other_versions_are_unreachable(workspace: Path) -> None:
    from icltool.store.image_features import open_image_features

    current = open_image_features(Workspace(workspace), "tiny", "f1")
    current.close()
    import icltool.store.image_features as module

    header = current._header
    made = {**header.provenance.configuration, "transformers": "4.0"}
    old = module.ImageFeatureFile(
        workspace / "cache" / "image-features-old.h5",
        module.Header(module.SCHEMA, Provenance(made, ""), header.details),
        1 << 20,
    )
    old.close()
    assert chosen(workspace, unreachable=True) == {"cache/image-features-old.h5"}


def test_rows_are_json_and_a_missing_workspace_is_an_error(workspace: Path, tmp_path: Path) -> None:
    row = json.loads(json.dumps(planned(workspace, TRAIN).summary()))["rows"][0]
    assert set(row) == {
        *("kind", "name", "path", "bytes", "files", "changed", "age", "state", "note"),
        *("unreachable", "needed_by", "held_by", "link", "removed"),
    }
    with pytest.raises(StoreError, match="does not exist"):
        planned(tmp_path / "none")
