"""`icltool export plan` and `icltool export chat` on an evaluated small world, as users call them."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from icltool.cli.app import run
from icltool.components.models.chat.chat_format import request
from icltool.store.evaluations import read_predictions
from icltool.store.plans import SPLITS, Plan, read_plan, write_plan
from icltool.store.records import open_dataset
from icltool.store.workspace import Workspace


@pytest.fixture(scope="module")
def world(small_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The small world with two evaluated tasks. Read only."""
    root = tmp_path_factory.mktemp("evaluated") / "ws"
    shutil.copytree(small_world / "embeddings", root / "embeddings")
    for task, methods, shots in (("vqa", "random", "1"), ("caption", "zero-shot,i2i", "1,3")):
        shutil.copytree(small_world / "datasets" / "shapes" / task, root / "datasets" / "shapes" / task)
        options = ["--task", task, "--method", methods, "--shots", shots, "--test-size=5", "--model=tiny-idefics"]
        assert run(["evaluate", "--workspace", str(root), "--device=cpu", "--quiet", *options]) == 0
    return Workspace(root)


def folder(world: Workspace, task: str) -> Path:
    (folder,) = world.evaluations.glob(f"shapes-{task}-*")
    return folder


def chat_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def exported(capsys: pytest.CaptureFixture[str], world: Workspace, *arguments: Any) -> dict[str, Any]:
    """The report of a call that must succeed."""
    capsys.readouterr()
    code = run(["export", *map(str, arguments), "--workspace", str(world.root), "--json"])
    out, err = capsys.readouterr()
    assert code == 0, err
    return json.loads(out)["rows"][0]


def refusal(capsys: pytest.CaptureFixture[str], world: Workspace, *arguments: Any) -> str:
    """What a call that must be refused prints."""
    capsys.readouterr()
    code = run(["export", *map(str, arguments), "--workspace", str(world.root)])
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    return " ".join(err.split())


def test_an_exported_plan_gives_the_evaluated_rows_again(
    world: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from icltool.plugin.manager import component
    from icltool.store.arrays import index_set, query_set

    output = tmp_path / "neighbours.json"
    row = exported(capsys, world, "plan", "--shots", 3, "--output", output)
    assert row == {"what": "plan", "format": "json", "queries": 5, "shots": 3, "file": str(output)}
    dataset = open_dataset(world.dataset_folder("shapes", "caption"))
    plan = read_plan(output)
    assert (plan.dataset, plan.task, plan.fingerprint) == ("shapes", "caption", dataset.fingerprint)
    assert (plan.made["method"], plan.made["shots"], plan.made["seed"]) == ("i2i", 3, 0)
    evaluated = read_predictions(folder(world, "caption") / "predictions" / "i2i-3-shot-seed0.jsonl")
    index, queries = dataset.split("train"), dataset.split("validation")
    evaluated_queries = query_set(
        queries, frozenset(), None, np.array([queries.row_of(row["query_id"]) for row in evaluated])
    )
    retriever = component("retrievers", "plan", file=output)
    assert retriever.fingerprint == dataset.fingerprint
    rows = retriever.retrieve(index_set(index, frozenset(), None), evaluated_queries, 3, 0)
    assert [index.ids[row].tolist() for row in rows] == [row["icd_ids"] for row in evaluated]


def test_evaluating_an_exported_plan_repeats_the_evaluation(
    world: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "ws"
    shutil.copytree(world.datasets / "shapes" / "caption", root / "datasets" / "shapes" / "caption")
    exported(capsys, world, "plan", "--shots", 3, "--output", tmp_path / "p.json")
    chosen = ["--method=plan", f"--method-option=plan.file={tmp_path / 'p.json'}", "--shots=2,3", "--test-size=5"]
    options = ["--workspace", str(root), "--model=tiny-idefics", "--device=cpu", "--quiet"]
    assert run(["evaluate", *options, *chosen]) == 0
    again, last = (
        read_predictions(folder(Workspace(root), "caption") / "predictions" / f"plan-{shots}-shot-seed0.jsonl")
        for shots in (3, 2)
    )
    evaluated = read_predictions(folder(world, "caption") / "predictions" / "i2i-3-shot-seed0.jsonl")
    same = ("query_id", "icd_ids", "prompt", "images", "answer", "scores")
    assert [[row[key] for key in same] for row in again] == [[row[key] for key in same] for row in evaluated]
    assert [row["icd_ids"] for row in last] == [row["icd_ids"][1:] for row in evaluated]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["plan"],
            "several settings fit; there are i2i 1-shot seed 0, i2i 3-shot seed 0 hint: choose one with --method",
        ),
        (["plan", "--shots=1", "--task=vqa"], "is of shapes (caption) hint: give another --input"),
        (["chat", "--shots=1", "--task=vqa"], "was made from another data set"),
        (["plan", "--method=t2t"], "no such setting; there are i2i 1-shot seed 0"),
        (["plan", "--seed=7"], "no such setting; there are i2i 1-shot seed 0"),
        (["chat"], "several settings fit; there are zero-shot 0-shot seed 0, i2i 1-shot"),
        (["plan", "--method=zero-shot", "--shots=0"], "a plan needs demonstrations"),
        (["chat", "--format=csv"], "chat cannot be exported as csv hint: choose from messages, openai"),
    ],
)
def test_what_to_export_must_be_clear(
    arguments: list[str], words: str, world: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in refusal(capsys, world, *arguments, "--output", tmp_path / "p")
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize(
    ("task", "method", "shots"), [("caption", "i2i", 3), ("caption", "zero-shot", 0), ("vqa", "random", 1)]
)
def test_a_chat_says_what_was_evaluated(
    world: Workspace,
    task: str,
    method: str,
    shots: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("icltool.commands.export.run._QUERIES_READ", 2)  # five queries: the last block is not full
    chosen = ["--input", folder(world, task), "--method", method, "--shots", shots, "--output", tmp_path / "c.jsonl"]
    assert exported(capsys, world, "chat", *chosen)["queries"] == 5
    evaluated = read_predictions(folder(world, task) / "predictions" / f"{method}-{shots}-shot-seed0.jsonl")
    dataset = open_dataset(world.dataset_folder("shapes", task))
    index, queries = dataset.split("train"), dataset.split("validation")
    for line, row in zip(chat_lines(tmp_path / "c.jsonl"), evaluated, strict=True):
        assert (line["query_id"], line["references"]) == (row["query_id"], row["references"])
        assert [message["role"] for message in line["messages"]] == ["user", "assistant"] * shots + ["user"]
        contents = [message["content"] for message in line["messages"]]
        assert [c[0]["image"] for c in contents[::2]] == row["images"]
        examples = [*(index[index.row_of(icd)] for icd in row["icd_ids"]), queries[queries.row_of(row["query_id"])]]
        assert [c[0]["text"] for c in contents[1::2]] == [e.label for e in examples[:-1]]
        query = request(task, "turns").query
        assert [c[1]["text"] for c in contents[::2]] == [query.format(question=e.question) for e in examples]


@pytest.mark.parametrize("images", ["path", "data"])
def test_a_chat_for_openai_interfaces(
    world: Workspace, images: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "c.jsonl"
    chosen = ["--input", folder(world, "vqa"), "--format=openai", f"--images={images}", "--output", output]
    exported(capsys, world, "chat", *chosen)
    first = chat_lines(output)[0]["messages"]
    image, text = first[0]["content"]
    assert (image["type"], text["type"]) == ("image_url", "text")
    assert isinstance(first[1]["content"], str)
    evaluated = read_predictions(folder(world, "vqa") / "predictions" / "random-1-shot-seed0.jsonl")[0]
    path, address = Path(evaluated["images"][0]), image["image_url"]["url"]
    if images == "data":
        start, _, data = address.partition(",")
        assert start == "data:image/jpeg;base64"
        assert base64.b64decode(data) == path.read_bytes()
    else:
        assert address == f"file://{path}"


def test_a_chat_of_a_plan_needs_its_data_set_and_leaks_nothing(
    world: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = open_dataset(world.dataset_folder("shapes", "caption"))
    train = dataset.split("train")
    ids = train.ids.tolist()
    origin: dict[str, Any] = {"dataset": "shapes", "task": "caption", "fingerprint": dataset.fingerprint}
    other = next(row for row in range(len(ids)) if train[row].group != train[0].group)
    call = ["chat", "--input", tmp_path / "p.json", "--output", tmp_path / "c.jsonl", "--overwrite"]

    def plan(icd: int, **changes: Any) -> None:
        splits = {**SPLITS, "queries": "train"}
        write_plan(tmp_path / "p.json", Plan({ids[0]: (icd,)}, **{**origin, "splits": splits, **changes}))

    plan(ids[other])
    assert exported(capsys, world, *call)["shots"] == 1
    [line] = chat_lines(tmp_path / "c.jsonl")
    assert line["messages"][1]["content"] == [{"type": "text", "text": train[other].label}]
    assert "--shots chooses a setting of an evaluation" in refusal(capsys, world, *call, "--shots=1")
    assert "neither an evaluation folder nor a sequences file" in refusal(capsys, world, "plan", *call[1:])
    for icd, changes, words in (
        (ids[0], {}, f"lists example {ids[0]} for query {ids[0]}, which is the same image"),
        (999999, {}, "has no example 999999"),
        (ids[other], {"fingerprint": "f00d"}, "was made from another data set"),
    ):
        plan(icd, **changes)
        assert words in refusal(capsys, world, *call)
    assert chat_lines(tmp_path / "c.jsonl") == [line], "what was there stays"
