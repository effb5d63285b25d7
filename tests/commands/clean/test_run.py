"""`icltool clean` on real workspaces: what is listed, and what is chosen."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import icltool
from icltool.errors import ConfigError, StoreError
from icltool.results.delimited import results_csv
from icltool.store.inventory.inventory import inventory
from icltool.store.provenance import Provenance
from icltool.store.workspace import Workspace
from tests.commands.clean.workspaces import (
    TRAIN,
    checkpoint,
    chosen,
    cleaned,
    evaluation,
    listed,
    planned,
    sequences,
)


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
    (workspace / "exports" / "table.csv").write_text(results_csv([]))
    (workspace / "sequences" / "notes.txt").write_text("mine")
    (workspace / "sequences" / "begun.h5.failed.json").write_text('{"failures": [{"error": "OSError: gone"}]}')
    artefacts = listed(workspace)
    states = {label: (a.state, a.facts.note) for label, a in artefacts.items() if not label.startswith(("data", "emb"))}
    assert states == {
        "sequences/whole.h5": ("complete", ""),
        "sequences/begun.h5": ("unfinished", "2 of 3; 1 given up, the last: OSError: gone"),
        "sequences/cut.h5": ("damaged", states["sequences/cut.h5"][1]),
        "checkpoints/lever-lm-shapes-caption-1": ("complete", ""),
        "checkpoints/lever-lm-shapes-caption-2": ("damaged", "last.safetensors does not exist"),
        "checkpoints/lever-lm-shapes-caption-3": ("unfinished", ""),
        "evaluations/shapes-caption-m-1": ("unfinished", "1 settings, 1 begun"),
        "exports/table.csv": ("complete", ""),
    }
    assert "cut" in states["sequences/cut.h5"][1]
    assert artefacts["datasets/shapes/vqa"].state == artefacts[TRAIN].state == "complete"
    assert not any(a.unreachable or a.held_by or a.link for a in artefacts.values())
    assert artefacts["datasets/shapes/caption"].bytes == sum(
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
    assert any("cannot be reproduced" in line for line in planned(workspace, unreachable=True).remarks)
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
    artefacts = listed(workspace)
    assert artefacts[TRAIN].needed_by == (f"checkpoints/{folder.name}",)
    assert artefacts[f"checkpoints/{folder.name}"].needed_by == ("evaluations/shapes-caption-m-1",)
    warned = f"warning: {TRAIN} is needed by checkpoints/{folder.name}"
    assert warned in planned(workspace, kind=("embeddings",)).remarks
    assert warned not in planned(workspace, kind=("embeddings", "checkpoints")).remarks


def test_a_training_outlives_its_sequences(workspace: Path) -> None:
    """It can be evaluated still, and costs more to make again than anything else."""
    sequences(workspace, "a.h5")
    checkpoint(workspace, "lever-lm-shapes-caption-1", sequences="a.h5")
    checkpoint(workspace, "lever-lm-shapes-caption-2", sequences="b.h5")
    artefacts = listed(workspace)
    assert artefacts["sequences/a.h5"].needed_by == ("checkpoints/lever-lm-shapes-caption-1",)
    assert artefacts["checkpoints/lever-lm-shapes-caption-1"].facts.note == ""
    noted = artefacts["checkpoints/lever-lm-shapes-caption-2"]
    assert (noted.facts.note, noted.unreachable) == ("its sequences b.h5 are not in the workspace", "")


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


def test_caches_of_other_versions_are_unreachable(workspace: Path) -> None:
    from icltool.store.image_features import open_image_features

    current = open_image_features(Workspace(workspace), "tiny", "f1")
    current.close()
    import icltool.store.image_features as module

    header = current._header
    configuration = {**header.provenance.configuration, "transformers": "4.0"}
    old = module.ImageFeatureFile(
        workspace / "cache" / "image-features-old.h5",
        module.Header(module.SCHEMA, Provenance(configuration, ""), header.details),
        1 << 20,
    )
    old.close()
    assert chosen(workspace, unreachable=True) == {"cache/image-features-old.h5"}


def test_rows_are_json_and_a_missing_workspace_is_an_error(workspace: Path, tmp_path: Path) -> None:
    row = json.loads(json.dumps(planned(workspace, TRAIN).summary()))["rows"][0]
    assert set(row) == {
        *("kind", "name", "path", "bytes", "files", "changed", "age", "state", "note"),
        *("unreachable", "needed_by", "held_by", "used_by", "link", "removed"),
    }
    with pytest.raises(StoreError, match="does not exist"):
        planned(tmp_path / "none")
