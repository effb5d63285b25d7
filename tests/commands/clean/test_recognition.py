"""`icltool clean` beside what people keep in a workspace: theirs is left alone, and what icltool made is known again."""

from __future__ import annotations

import itertools
import os
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import h5py
import pytest

from icltool.commands.export import run as export
from icltool.commands.export.archive import write_archive
from icltool.commands.export.model import _with_copy
from icltool.commands.export.options import ExportConfig
from icltool.commands.report import run as report
from icltool.commands.report.options import ReportConfig
from icltool.contracts import QueryResult
from icltool.store.failures import failures_file, write_failures
from icltool.store.inventory.artefact import KINDS
from icltool.store.inventory.inventory import inventory, measure
from icltool.store.locking import locked
from icltool.store.out_of_order_rows import out_of_order_path
from icltool.store.plans import Plan, write_plan
from icltool.store.provenance import Provenance
from icltool.store.records import open_dataset
from icltool.store.sequences import SequenceWriter
from icltool.store.workspace import Workspace
from tests.commands.clean.workspaces import (
    PROGRESS,
    checkpoint,
    chosen,
    cleaned,
    evaluation,
    fingerprint,
    listed,
    sequences,
)
from tests.store import killable

#: What people might keep beside icltool's own.
THEIRS = (
    "checkpoints/my-notes/thesis.tex",
    "checkpoints/my-cv/resume.pdf",
    "checkpoints/plain.txt",
    "evaluations/slides/talk.pptx",
    "exports/thesis.docx",
    "exports/thesis.html",
    "exports/table.csv",
    "exports/table.md",
    "exports/table.tex",
    "exports/notes.json",
    "exports/old/backup.tar.gz",
    "exports/backup.tar.gz",
    "exports/numbers.parquet",
    "exports/lines.jsonl",
    "captions/mine.json",
    "captions/poem.txt",
    "sequences/wishes.failed.json",
    "embeddings/theirs.h5",
)


def theirs(workspace: Path) -> None:
    for name in THEIRS:
        path = workspace / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".h5":
            with h5py.File(path, "w") as file:
                file["x"] = range(9000)
        else:
            path.write_text('{"provenance": "attic", "list": [1]}\n' * 2000)
        os.utime(path, (time.time() - 90 * 86400,) * 2)


def test_what_people_keep_there_is_never_chosen(workspace: Path) -> None:
    before = set(listed(workspace))
    theirs(workspace)
    assert set(listed(workspace)) == before
    for options in ({"kind": KINDS}, {"older_than": "30d"}, {"larger_than": "1kB"}, {"leftovers": True}):
        assert chosen(workspace, **options) <= before, options
    notes = "\n".join(inventory(Workspace(workspace)).remarks)
    assert notes.count("not icltool's, left alone") == 6
    assert "checkpoints/my-cv and 2 more" in notes
    cleaned(workspace, kind=KINDS)
    left = {path.relative_to(workspace).as_posix() for path in workspace.rglob("*") if path.is_file()}
    assert left == set(THEIRS)


def test_stopped_trainings_and_evaluations_are_known(workspace: Path) -> None:
    (checkpoint(workspace, "weights") / "training.json").unlink()
    folders = {name: workspace / "checkpoints" / name for name in ("begun", "half", "locked")}
    for folder in (*folders.values(), workspace / "evaluations" / "begun", workspace / "evaluations" / "asked"):
        folder.mkdir(parents=True)
    (folders["begun"] / "resume.ckpt").write_bytes(b"x")
    (folders["half"] / ".resume.ckpt.new").mkdir()
    with locked(folders["locked"]), locked(workspace / "evaluations" / "begun" / "results.json"):
        pass
    (workspace / "evaluations" / "asked" / "predictions").mkdir()
    states = {label: a.state for label, a in listed(workspace).items() if label.startswith(("check", "eval"))}
    assert states == dict.fromkeys(
        [*(f"checkpoints/{n}" for n in ("weights", *folders)), "evaluations/begun", "evaluations/asked"], "unfinished"
    )


def of_examples(workspace: Path) -> tuple[Path, Path]:
    """A sequences file and a plan of the prepared data set's examples."""
    dataset = open_dataset(workspace / "datasets" / "shapes" / "caption")
    index, queries = dataset.split("train").ids[:3].tolist(), dataset.split("validation").ids[:2].tolist()
    path = workspace / "sequences" / "real.h5"
    provenance = Provenance({"dataset": "shapes", "task": "caption"}, fingerprint(workspace))
    with SequenceWriter(path, provenance, killable.SHOTS, killable.BEAMS, killable.CANDIDATES, 1) as writer:
        result: QueryResult = killable.result_of(1)
        writer.append(result)
    plan = workspace / "plan.json"
    write_plan(plan, Plan({query: tuple(index) for query in queries}, "shapes", "caption", fingerprint(workspace)))
    return path, plan


def test_every_export_is_known_by_what_is_in_it(workspace: Path) -> None:
    """Made by the stages themselves, each under a name of its own."""
    rows, plan = of_examples(workspace)
    results, trained = evaluation(workspace, "shapes-caption-m-1"), checkpoint(workspace, "lever-lm-shapes-caption-1")
    (trained / "config.json").write_text("{}")
    (trained / "README.md").write_text("# a selector\n")
    import numpy as np
    from safetensors.numpy import save_file

    save_file({"w": np.zeros(3, np.float32)}, trained / "last.safetensors")
    expected = [
        *(("sequences", form, rows, {}) for form in ("json", "csv", "parquet")),
        *(("results", form, results, {}) for form in ("csv", "markdown", "latex", "json")),
        ("plan", "json", rows, {}),
        *(("chat", form, plan, {}) for form in ("messages", "openai")),
        ("selector", "safetensors", trained, {"checkpoint": "last"}),
    ]
    suffixes = {"markdown": "md", "latex": "tex", "messages": "jsonl", "openai": "jsonl", "safetensors": "folder"}
    names = []
    for number, (what, form, source, more) in enumerate(expected):
        names.append(f"{number}.{suffixes.get(form, form)}")
        options: dict[str, Any] = {"what": what, "format": form, "input": source, **more}
        export.run(ExportConfig(workspace=workspace, output=workspace / "exports" / names[-1], **options), PROGRESS)
    for number, options in enumerate(({}, {"sequences": rows})):
        names.append(f"page-{number}.html")
        output = workspace / "exports" / names[-1]
        report.run(ReportConfig(workspace=workspace, output=output, images=False, **options), PROGRESS)
    assert {label for label in listed(workspace) if label.startswith("exports/")} == {f"exports/{n}" for n in names}
    cleaned(workspace, kind=("exports",))
    assert list((workspace / "exports").iterdir()) == []


def test_an_exported_model_is_known_packed_and_unpacked(workspace: Path) -> None:
    folder = workspace / "exports" / "captioner-best"
    folder.mkdir(parents=True)
    fine_tuned = SimpleNamespace(model="m", file=Path("best.safetensors"))
    (folder / "README.md").write_text(_with_copy("# long\n" * 9000, cast(Any, fine_tuned), "none", True))
    (folder / "icltool.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(os.urandom(1 << 21))
    write_archive(workspace / "exports" / "captioner-best.tar.gz", folder, "captioner-best", PROGRESS)
    shutil.copy(workspace / "exports" / "captioner-best.tar.gz", workspace / "exports" / "short.tgz")
    exports = {label for label in listed(workspace) if label.startswith("exports/")}
    assert exports == {f"exports/{name}" for name in ("captioner-best", "captioner-best.tar.gz", "short.tgz")}


def with_gap(workspace: Path) -> Path:
    """An embeddings file of two rows, beside which rows 4 to 6 and 8 wait, and a list of what was given up."""
    path = workspace / "embeddings" / "gaps.h5"
    with killable.embedding_writer(path, 9) as writer:
        for rows in (range(0, 2), range(4, 7), range(8, 9)):
            writer.put(rows.start, killable.ids_of(rows), killable.features_of(rows))
    write_failures(path, [{"error": "OSError: gone"}])
    return path


def test_rows_that_wait_are_counted_and_go_with_their_file(workspace: Path) -> None:
    path = with_gap(workspace)
    artefact = listed(workspace)["embeddings/gaps.h5"]
    note = "2 of 9; 4 more wait for rows before them; 1 given up, the last: OSError: gone"
    assert (artefact.state, artefact.facts.note) == ("unfinished", note)
    assert {out_of_order_path(path), failures_file(path)} <= set(artefact.parts)
    assert (
        artefact.bytes
        == measure([path, *artefact.parts])[0]
        > path.stat().st_size + out_of_order_path(path).stat().st_size
    )
    assert cleaned(workspace, "gaps.h5").freed == artefact.bytes
    assert not [p for p in path.parent.iterdir() if "gaps" in p.name]


@pytest.mark.parametrize("lock", [True, False])
def test_what_lay_beside_a_file_that_is_gone_is_a_leftover(workspace: Path, lock: bool) -> None:
    path = with_gap(workspace)
    path.unlink()
    if not lock:
        path.with_name(".gaps.h5.lock").unlink()
    labels = {f"embeddings/{name}" for name in (".gaps.h5.ahead", "gaps.h5.failed.json")}
    assert chosen(workspace, leftovers=True) == labels
    assert {listed(workspace)[label].facts.note for label in labels} == {
        "waiting rows of a file that is gone",
        "list of what was given up of a file that is gone",
    }
    with locked(path):
        assert not chosen(workspace, leftovers=True), "somebody begins it anew"
    report = cleaned(workspace, leftovers=True)
    assert (set(report.removed), report.faults) == (labels, ())
    assert not [p for p in path.parent.iterdir() if "gaps" in p.name]


def test_a_sequences_file_with_a_list_of_failures_has_it_as_a_part(workspace: Path) -> None:
    path = sequences(workspace, "a.h5", finished=2)
    size = listed(workspace)["sequences/a.h5"].bytes
    write_failures(path, [{"error": "gone"}])
    grown = listed(workspace)["sequences/a.h5"].bytes
    assert grown == size + failures_file(path).stat().st_size
    assert all(a.label != b.label for a, b in itertools.combinations(listed(workspace).values(), 2))
