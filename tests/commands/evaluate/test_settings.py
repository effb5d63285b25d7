"""Names of plans, further orders, and what methods find in the workspace."""

from __future__ import annotations

import itertools
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from icltool.commands.evaluate.inputs import Inputs
from icltool.commands.evaluate.methods import Method, checkpoint_folder, newest_sequences, plan_labels, vector_labels
from icltool.commands.evaluate.options import EvaluateConfig
from icltool.commands.evaluate.settings import Setting, Settings, further_orders
from icltool.contracts import QueryResult
from icltool.errors import ConfigError, IclError, StoreError
from icltool.store.provenance import Provenance
from icltool.store.sequences import SequenceWriter


def setting(shots: int, seed: int = 0) -> Setting:
    return Setting(Method("mine", None, (shots,)), shots, seed, "")


@given(st.integers(2, 5), st.integers(1, 8), st.integers(0, 3))
def test_further_orders_are_permutations_that_differ(shots: int, count: int, seed: int) -> None:
    orders = further_orders(setting(shots, seed), np.array([3, 99]), count)
    assert orders.shape == (2, min(count, math.factorial(shots) - 1), shots)
    for of_query in orders:
        results = [tuple(range(shots)), *map(tuple, of_query.tolist())]
        assert len(set(results)) == len(results)
        assert set(results) <= set(itertools.permutations(range(shots)))


def test_further_orders_are_keyed_and_nested() -> None:
    ids = np.arange(30)
    orders = further_orders(setting(4), ids, 6)
    np.testing.assert_array_equal(further_orders(setting(4), ids[10:12], 6), orders[10:12])
    np.testing.assert_array_equal(further_orders(setting(4), ids, 2), orders[:, :2])
    assert (further_orders(setting(4, seed=1), ids, 6) != orders).any()
    assert len({tuple(o) for o in orders[:, 0].tolist()}) > 5, "not one order for all queries"
    assert further_orders(setting(2), ids, 9).shape == (30, 1, 2)


@pytest.mark.parametrize(
    ("paths", "labels"),
    [
        (["/a/one.json", "/a/two.json"], ["one", "two"]),
        (["/a/one.json", "/b/one.json"], ["a-one", "b-one"]),
        (["/x/a/one.json", "/y/a/one.json", "/a/two.json"], ["x-a-one", "y-a-one", "two"]),
        (["/a/i2i.json"], ["plan-i2i"]),
        (["/a/.hidden.json", "/a/b c:d.json"], ["hidden", "b_c_d"]),
    ],
)
def test_plans_are_told_apart(paths: list[str], labels: list[str]) -> None:
    assert plan_labels([Path(p) for p in paths], ["i2i", "random"]) == labels


@pytest.mark.parametrize(
    ("files", "labels"),
    [
        (
            ["c/live-shapes-vqa-m-88b90a0b/last.safetensors", "c/live-shapes-vqa-m-00000001/last.safetensors"],
            ["live-88b90a0b", "live-00000001"],
        ),
        (["a/one.safetensors", "b/two.safetensors"], ["live-one", "live-two"]),
        (["a/live-one.safetensors", "a/live-two.safetensors"], ["live-one", "live-two"]),
        (["a/live-x-88b90a0b/last.safetensors", "seed1/last.safetensors"], ["live-x-88b90a0b", "live-seed1"]),
        (
            ["a/live-x-88b90a0b/last.safetensors", "b/live-x-88b90a0b/last.safetensors"],
            ["live-a-live-x-88b90a0b", "live-b-live-x-88b90a0b"],
        ),
    ],
)
def test_files_of_one_method_have_short_names_that_differ(files: list[str], labels: list[str]) -> None:
    assert vector_labels("live", [Path(file) for file in files]) == labels


def config(workspace: Path, **options: Any) -> EvaluateConfig:
    return EvaluateConfig(
        workspace=workspace, **{"model": "tiny-idefics", "task": "caption", "test_size": 6, **options}
    )


def plan(workspace: Path, name: str, shots: int, **head: Any) -> Path:
    inputs = Inputs(config(workspace))
    entries = {str(q): inputs.index.ids[:shots].tolist() for q in inputs.queries.ids.tolist()}
    path = workspace / name
    path.write_text(json.dumps({"fingerprint": inputs.dataset.fingerprint, **head, "plan": entries}))
    return path


def test_plans_alone_are_evaluated_at_their_own_shots(workspace: Path) -> None:
    plans = (plan(workspace, "a.json", 2), plan(workspace, "b.json", 3))
    settings = Settings(Inputs(config(workspace, plans=plans)))
    assert [s.key for group in settings.groups for s in group] == [("a", 2, 0), ("b", 3, 0)]
    rows = settings.demonstrations(settings.groups[1][0])
    assert rows.tolist() == [[0, 1, 2]] * 6
    both = Settings(Inputs(config(workspace, plans=plans, methods=("random",), shots=(1, 2))))
    keys = [s.key for group in both.groups for s in group]
    assert keys == [(m, k, 0) for m in ("random", "a", "b") for k in (1, 2)]
    digests = {s.digest for group in both.groups for s in group}
    assert len(digests) == 6


def test_plans_that_do_not_fit_are_refused(workspace: Path) -> None:
    short = plan(workspace, "short.json", 2)
    with pytest.raises(ConfigError, match=r"short\.json has 2 demonstrations per query, 3 were asked for"):
        Settings(Inputs(config(workspace, plans=(short,), shots=(3,))))
    other = plan(workspace, "other.json", 2, fingerprint="0123")
    with pytest.raises(StoreError, match="made for another data set"):
        Settings(Inputs(config(workspace, plans=(other,))))
    unchecked = plan(workspace, "unchecked.json", 2, fingerprint=None)
    assert "no data set fingerprint" in Settings(Inputs(config(workspace, plans=(unchecked,)))).remarks[0]


def sequences(inputs: Inputs, name: str, queries: str | None, fingerprint: str, age: int) -> Path:
    path = inputs.workspace.sequences / f"{inputs.dataset.name}-{inputs.dataset.task}-{name}.h5"
    chosen = {} if queries is None else {"queries": queries}
    split = inputs.queries if queries == "validation" else inputs.index
    with SequenceWriter(path, Provenance(chosen, fingerprint), 1, 1, 2, len(split)) as writer:
        for query in split.ids.tolist():
            one, ids = np.ones(1), inputs.index.ids[:2]
            writer.append(QueryResult(query, ids, ids[None, :1], one, one[:, None], one, one, 0.0, 0.0))
    os.utime(path, (age, age))
    return path


def test_sequences_of_the_evaluated_queries_are_found_by_what_they_say(workspace: Path) -> None:
    inputs = Inputs(config(workspace, methods=("oracle",), shots=(1,)))
    with pytest.raises(StoreError, match="no sequences for the validation queries") as caught:
        Settings(inputs)
    assert "icltool generate --queries validation" in str(caught.value.hint)
    own = inputs.dataset.fingerprint
    file = sequences(inputs, "a", "validation", own, 200)
    sequences(inputs, "b", "validation", own, 100)
    sequences(inputs, "c", "validation", "another", 300)
    train = sequences(inputs, "d", None, own, 400)
    (inputs.workspace.sequences / "shapes-caption-cut.h5").write_bytes(b"\x89HDF")
    assert newest_sequences(inputs, "validation") == file
    assert newest_sequences(inputs, "train") == train
    settings = Settings(inputs)
    assert settings.demonstrations(settings.groups[0][0]).tolist() == [[0]] * 6
    assert "upper bound" in settings.remarks[0]
    with_file = Settings(Inputs(config(workspace, methods=("oracle",), method_options={"oracle.file": str(file)})))
    assert with_file.methods[0].options["file"] == str(file)


def test_the_guard_reaches_methods_that_need_embeddings(workspace: Path) -> None:
    inputs = Inputs(config(workspace, methods=("i2i",), shots=(4,), leak_guard=("question",)))
    assert inputs.guard == {"image", "question"}
    index, queries = inputs.arrays(frozenset({"image"}), "tiny-clip")
    assert index.image is not None
    assert index.questions is not None
    assert index.contents is queries.contents is None
    away = Inputs(config(workspace, task="vqa", leak_guard=("question", "text"))).kept_away()
    assert away["question"] > 10, "the embedded world asks two questions"
    assert away["any"] >= away["question"] >= away["text"]


def test_a_checkpoint_goes_to_the_method_whose_learner_made_it(workspace: Path) -> None:
    folders = {name: workspace / "checkpoints" / f"{name}-shapes-caption-0" for name in ("lever-lm", "pointer")}
    for learner, folder in folders.items():
        folder.mkdir(parents=True)
        (folder / "min_vl.safetensors").write_bytes(b"")
        (folder / "training.json").write_text(json.dumps({"identity": {"learner": learner}}))
    other = workspace / "mine"
    other.mkdir()
    (other / "training.json").write_text(json.dumps({"identity": {"learner": "pointer"}}))
    both = Inputs(config(workspace, methods=("lever-lm", "pointer"), checkpoint=other))
    assert checkpoint_folder(both, "pointer", "pointer") == other
    assert checkpoint_folder(both, "lever-lm", "lever-lm") == folders["lever-lm"]
    alone = Inputs(config(workspace, methods=("lever-lm",), checkpoint=other))
    with pytest.raises(StoreError, match="was trained by pointer, lever-lm reads checkpoints of lever-lm"):
        checkpoint_folder(alone, "lever-lm", "lever-lm")
    (other / "training.json").unlink()
    assert checkpoint_folder(alone, "lever-lm", "lever-lm") == other, "nothing says whose it is"
    assert checkpoint_folder(Inputs(config(workspace)), "pointer", "pointer") == folders["pointer"]


def test_methods_after_one_another_are_settings_of_their_own(workspace: Path) -> None:
    options = {"methods": ("random", "random+bm25", "random>bm25:bm25.pool=12", "t2t+random"), "shots": (2, 5)}
    settings = Settings(Inputs(config(workspace, method_options={"random": {"fixed": False}}, **options)))
    groups = {(g[0].method.label, g[0].shots): g[0] for g in settings.groups}
    assert {label for label, _ in groups} == {"random", "random+bm25", "random+bm25:bm25.pool=12", "t2t+random"}
    rows = {key: settings.demonstrations(one) for key, one in groups.items()}
    for shots in (2, 5):
        alone, behind = rows["random", shots], rows["random+bm25", shots]
        assert (np.sort(alone, axis=1) == np.sort(behind, axis=1)).all(), "the same rows in another order"
        assert (rows["t2t+random", shots] != rows["random", shots]).any()
    pooled = rows["random+bm25:bm25.pool=12", 5]
    assert (rows["random+bm25:bm25.pool=12", 2] == pooled[:, -2:]).all(), "ranked, so the best stands last; and nested"
    method = groups["random+bm25:bm25.pool=12", 2].method
    assert method.options == {"random.fixed": False, "bm25.pool": 12}
    assert [part["retriever"] for part in method.identity["composed"]] == ["random", "bm25"]
    assert method.identity["composed"][1]["options"] == {"pool": 12}
    assert method.plugin == groups["random", 2].method.plugin, "each distribution once"
    upper = [m.label for m in settings.methods if m.reads_query_text]
    assert upper == ["random+bm25", "random+bm25:bm25.pool=12", "t2t+random"]
    assert len({one.digest for one in groups.values()}) == 8


@pytest.mark.parametrize(
    ("method", "fault"),
    [
        ("random+lever-lm", "lever-lm does not choose among the rows of another method|no .* checkpoint|no training"),
        ("random+votek", "votek does not choose among the rows of another method"),
        ("zero-shot+random", "zero-shot chooses no demonstrations"),
        ("random+live", "live chooses no demonstrations"),
        ("random+finetuned", "finetuned chooses no demonstrations"),
        ("random+bm26", "unknown method 'bm26'"),
        ("random+bm25:k1=3", "k1 does not name its method"),
        ("random+bm25:random.reversed_order=true", "reversed_order is for the last method, bm25"),
        ("random:pool=3", "pool=3 has no effect"),
    ],
)
def test_what_cannot_follow_is_refused(workspace: Path, method: str, fault: str) -> None:
    def choose() -> None:
        settings = Settings(Inputs(config(workspace, methods=(method,), shots=(2,))))
        settings.choose(settings.groups[0][0])

    with pytest.raises(IclError, match=fault):
        choose()
