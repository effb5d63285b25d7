"""Sherlock and PersonalityCaptions from official files to figures, as users call the commands."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from icltool.cli.app import run
from icltool.store.evaluations import read_predictions
from icltool.store.records import open_dataset
from icltool.store.workspace import Workspace
from tests.components.datasets.caption_builders import (
    SEEN,
    TRAIN,
    VALIDATION,
    image_path,
    write_personality_captions,
    write_sherlock,
)

MODEL = ["--model=tiny-idefics", "--device=cpu"]
#: More images to draw distractors from.
MORE = {
    TRAIN: SEEN[TRAIN],
    VALIDATION: [
        *SEEN[VALIDATION],
        *((f"lsmdc_3/{n}@1.jpg", [(n, 3, 20, 20)], f"clue {n}", f"they go {n} times") for n in range(4)),
    ],
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files, and a workspace "ws" in which both data sets are prepared for all tasks. Read only."""
    folder = tmp_path_factory.mktemp("captions")
    write_sherlock(folder / "data", MORE)
    write_personality_captions(folder / "data")
    for arguments in (["sherlock", "--option", "distractors=4"], ["personality-captions"]):
        prepare(folder / "ws", *arguments, "--root", str(folder / "data"))
    return folder


@pytest.fixture
def workspace(prepared: Path, tmp_path: Path) -> Path:
    """A workspace to write into."""
    return Path(shutil.copytree(prepared / "ws", tmp_path / "ws"))


def prepare(workspace: Path, *arguments: str) -> None:
    assert run(["prepare", *arguments, "--workspace", str(workspace), "--quiet"]) == 0


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert run([*arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    return " ".join(err.split())


def evaluated(
    capsys: pytest.CaptureFixture[str],
    workspace: Path,
    task: str,
    *arguments: str,
    methods: Sequence[str] = ("random",),
) -> dict[str, Any]:
    """What a program reads of `icltool evaluate`."""
    chosen = [f"--method={name}" for name in methods]
    data = "personality-captions" if task == "style" else "sherlock"
    where = ["--workspace", str(workspace), "--dataset", data, "--task", task]
    capsys.readouterr()
    assert run(["evaluate", *where, *MODEL, *chosen, "--json", *arguments]) == 0
    content: dict[str, Any] = json.loads(capsys.readouterr().out)
    return content


def test_what_is_prepared(prepared: Path) -> None:
    workspace = Workspace(prepared / "ws")
    assert workspace.prepared() == [
        ("personality-captions", "style"), ("sherlock", "inference"), ("sherlock", "inference-choice")
    ]  # fmt: skip
    assert workspace.choose_dataset("sherlock") == ("sherlock", "inference")
    styles = open_dataset(workspace.dataset_folder("personality-captions", "style"))
    assert styles.splits == ("train", "validation", "development")
    assert [e.style for e in styles.split("development")] == ["Sweet"]
    choices = open_dataset(workspace.dataset_folder("sherlock", "inference-choice")).split("validation")
    assert [len(e.choices) for e in choices] == [5] * 8


def test_inferences_are_judged_by_source(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ("bleu-1", "bleu-4", "rouge-l", "cider", "cider-d")
    report = evaluated(capsys, workspace, "inference", "--shots=2", f"--metric={','.join(names)}")
    [row] = report["rows"]
    assert row["queries"] == 8
    assert set(names) < set(row)
    assert row["cider"] == row["cider-d"]
    by = row["by"]["answer_type"]
    assert {source: figures["queries"] for source, figures in by.items()} == {"vcr": 5, "vg": 3}
    assert all(set(names) < set(figures) for figures in by.values())
    assert not any("made for" in line for line in report["notes"])
    rows = read_predictions(Path(report["path"]) / "predictions" / "random-2-shot-seed0.jsonl")
    assert all("show=highlight" in image for row in rows for image in row["images"])
    assert rows[0]["prompt"].endswith("Clue:snow Inference:")


def test_the_table_that_people_read_has_a_row_for_each_source(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--workspace", str(workspace), "--dataset=sherlock", "--task=inference"]
    assert run(["evaluate", *where, *MODEL, "--method=zero-shot", "--verbose"]) == 0
    out = capsys.readouterr().out
    assert "vcr (5)" in out
    assert "vg (3)" in out


def test_the_right_inference_is_ranked_among_distractors(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = evaluated(capsys, workspace, "inference-choice", "--shots=1")
    [row] = report["rows"]
    [path] = (Path(report["path"]) / "predictions").glob("*.jsonl")
    ranks, right = [], []
    for prediction in read_predictions(path):
        values = prediction["log_probs"]
        [own] = [choice for choice in values if choice in prediction["references"]]
        ranks.append(sorted(values, key=lambda choice: -values[choice]).index(own) + 1)
        right.append(100 * (prediction["answer"] == own))
        assert len(values) == 5
    assert row["mean-rank"] == pytest.approx(sum(ranks) / 8, abs=0.005)
    assert row["accuracy"] == pytest.approx(sum(right) / 8, abs=0.005)
    assert set(row["by"]["answer_type"]["vg"]) == {"queries", "accuracy", "mean-rank"}
    assert not any("made for" in line for line in report["notes"])


def test_captions_in_a_style(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = evaluated(capsys, workspace, "style", "--shots=1", "--metric=cider,accuracy,auc")
    [path] = (Path(report["path"]) / "predictions").glob("*.jsonl")
    first, second = read_predictions(path)
    assert first["prompt"].endswith("Caption in the style Sweet:")
    assert second["prompt"].endswith("Caption in the style Anxious:")
    assert first["references"] == ["I love it", "so lovely", "how cute"]
    assert any(line == "auc is made for classification: it is not meaningful for style" for line in report["notes"])
    remarks = evaluated(capsys, workspace, "inference-choice", "--shots=0", "--metric=cider")["notes"]
    assert any(
        line == "cider is made for caption, style and inference: it is not meaningful for inference-choice"
        for line in remarks
    )


def test_the_third_split_is_not_embedded(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ["--workspace", str(workspace), "--dataset=personality-captions", "--encoder=tiny-clip"]
    assert run(["embed", *data, "--device=cpu", "--quiet"]) == 0
    files = {path.name for path in (workspace / "embeddings").glob("*.h5")}
    assert files == {f"personality-captions-style-{split}-tiny-clip.h5" for split in ("train", "validation")}
    report = evaluated(capsys, workspace, "style", "--shots=1", methods=("t2t", "i2i"))
    assert any(line.startswith("t2t: a caption query's text is its own reference") for line in report["notes"])


def test_encoders_see_the_regions(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same images with other regions have other vectors."""
    from icltool.store.embeddings import EmbeddingFile

    vectors = []
    for show in ("highlight", "crop"):
        root = str(workspace.parent / "data")
        write_sherlock(Path(root))
        prepare(workspace, "sherlock", "--task=inference", "--root", root, "--option", f"show={show}", "--overwrite")
        data = ["--workspace", str(workspace), "--dataset=sherlock", "--task=inference", "--encoder=tiny-clip"]
        assert run(["embed", *data, "--device=cpu", "--quiet", "--overwrite"]) == 0
        file = EmbeddingFile.open(workspace / "embeddings" / "sherlock-inference-train-tiny-clip.h5")
        vectors.append(file.read("image"))
    assert abs(vectors[0] - vectors[1]).max(axis=1).min() > 1e-3


def test_chats_show_the_regions(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluated(capsys, workspace, "inference", "--shots=1")
    where = ["export", "chat", "--workspace", str(workspace)]
    error = refusal(capsys, *where)
    assert "are shown, which a path cannot express" in error
    assert "export with --images data" in error
    assert not list((workspace / "exports").glob("*.jsonl")) if (workspace / "exports").exists() else True
    assert run([*where, "--images=data", "--quiet"]) == 0
    [path] = (workspace / "exports").glob("*.jsonl")
    line = json.loads(path.read_text().splitlines()[0])
    assert line["messages"][0]["content"][0]["image"].startswith("data:image/png;base64,")


def test_errors_as_users_meet_them(prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--workspace", str(tmp_path / "ws")]
    root = Path(shutil.copytree(prepared / "data", tmp_path / "data"))
    assert "dataset 'sherlock': show must be 'highlight', 'hide'" in refusal(
        capsys, "prepare", "sherlock", *where, "--root", str(root), "--option", "show=blur"
    )
    assert "has no task 'style'" in refusal(
        capsys, "prepare", "sherlock", *where, "--root", str(root), "--task", "style"
    )
    assert "set SHERLOCK_PATH" in refusal(capsys, "prepare", "sherlock", *where)
    assert "set PERSONALITY_CAPTIONS_PATH" in refusal(capsys, "prepare", "personality-captions", *where)
    image_path(root, "VG_100K/7.jpg").unlink()
    assert "names 1 image missing" in refusal(capsys, "prepare", "sherlock", *where, "--root", str(root))
    (tmp_path / "styles.txt").write_text("Sweet\nSweet\n")
    assert "'Sweet' is listed 2 times" in refusal(
        capsys, "prepare", "personality-captions", *where, "--root", str(root),
        "--option", f"styles={tmp_path / 'styles.txt'}",
    )  # fmt: skip
    assert not (tmp_path / "ws" / "datasets").exists()
