"""Pages of evaluations that the real stages made: what they show is what results.json and the predictions hold."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from icltool.commands.evaluate import run as evaluate
from icltool.commands.evaluate.options import EvaluateConfig
from icltool.commands.report.page.content import Comparison, Page
from icltool.commands.report.page.evaluations import chosen_queries, evaluations_page
from icltool.commands.report.page.examples import DatasetKey
from icltool.commands.report.page.settings import corrected
from icltool.errors import StoreError
from icltool.execution.progress import SilentProgress
from icltool.results.intervals import Interval
from icltool.store.atomic import write_json
from icltool.store.evaluations import read_evaluation, read_predictions
from icltool.store.failures import write_failures
from icltool.store.records import open_dataset
from icltool.store.workspace import Workspace


@pytest.fixture(scope="module")
def read_only_workspace(small_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with two evaluations: captions with several seeds, shots and costs, and vqa in two orders. Read only."""
    root = tmp_path_factory.mktemp("report") / "ws"
    shutil.copytree(small_world / "embeddings", root / "embeddings")
    for task in ("caption", "vqa"):
        shutil.copytree(small_world / "datasets" / "shapes" / task, root / "datasets" / "shapes" / task)
    options: dict[str, Any] = {"workspace": root, "model": "tiny-idefics", "device": "cpu", "test_size": 5}
    caption = {"task": "caption", "shots": (1, 2), "seeds": (0, 1), "cost": True}
    for more in (caption, {"task": "vqa", "shots": (2,), "permutations": 2}):
        evaluate.run(EvaluateConfig(**options, **more, methods=("zero-shot", "random", "i2i")), SilentProgress())
    return root


@pytest.fixture
def world(read_only_workspace: Path, tmp_path: Path) -> Path:
    """The same workspace, to write into."""
    return Path(shutil.copytree(read_only_workspace, tmp_path / "copy"))


def folders(root: Path) -> list[Path]:
    """The caption evaluation, then the other."""
    return sorted((root / "evaluations").iterdir())


def page_of(root: Path, **options: Any) -> Page:
    return replace(evaluations_page(folders(root), root, **options).without_images(), made="")


def test_figures_are_those_of_the_results(read_only_workspace: Path) -> None:
    page, number = page_of(read_only_workspace), 0
    assert page.metrics == ("cider", "vqa-accuracy")
    assert [source.title for source in page.sources] == [f"shapes ({t}), tiny-idefics" for t in ("caption", "vqa")]
    for position, folder in enumerate(folders(read_only_workspace)):
        results = read_evaluation(folder).results
        for result in results:
            setting = page.settings[number]
            assert (setting.evaluation, setting.method, setting.shots, setting.seed) == (
                position,
                result.method,
                result.shots,
                result.seed,
            )
            assert {k: (v.mean, v.low, v.high) for k, v in setting.metrics.items()} == {
                k: (v.mean, v.low, v.high) for k, v in result.metrics.items()
            }
            gains = result.extra.get("gains", {}).get("metrics", {})
            assert {k: (v.mean, v.low, v.high) for k, v in setting.gains.items()} == {
                k: (v["mean"], v["low"], v["high"]) for k, v in gains.items()
            }
            assert {k: sum(v) for k, v in setting.outcomes.items()} == dict.fromkeys(gains, 5)
            if cost := result.extra.get("cost"):
                assert setting.cost["GFLOP"] == cost["flops"] / 1e9
                assert setting.cost["prompt tokens"] == cost["prompt_tokens"]
            number += 1
    assert number == len(page.settings)
    orders = next(s for s in page.settings if s.evaluation == 1 and s.method == "random")
    assert any(name.startswith("vqa-accuracy over 2 orders") for name, _ in orders.lines)


def test_comparisons_and_seeds_are_those_of_the_analysis(read_only_workspace: Path) -> None:
    page, analysis = page_of(read_only_workspace), read_evaluation(folders(read_only_workspace)[0]).analysis
    own = [c for c in page.comparisons if c.evaluation == 0]
    comparisons = {(c.first, c.second): (c.difference.mean, c.p) for c in own if c.second != "zero-shot"}
    assert comparisons == {
        (f"{d['a']} {d['shots']}-shot", f"{d['b']} {d['shots']}-shot"): (d["mean"], d["p"])
        for d in analysis["differences"]
    }
    against = {(c.first, c.seed) for c in own if c.second == "zero-shot"}
    assert against == {(f"random {k}-shot", seed) for k in (1, 2) for seed in (0, 1)} | {
        (f"i2i {k}-shot", None) for k in (1, 2)
    }
    assert all(c.p <= c.holm <= 1 for c in own)
    seeds = [{k: v for k, v in entry.items() if k != "evaluation"} for entry in page.extra["seeds"]]
    assert seeds == analysis["seeds"]
    assert {entry["value"] for entry in page.extra["types"]} >= {"what colour", "what shape"}
    json.dumps(page.extra, allow_nan=False)


def test_answers_are_those_of_the_predictions(read_only_workspace: Path) -> None:
    page = page_of(read_only_workspace)
    results = {(r.setting, page.queries[r.query].dataset, page.queries[r.query].id): r for r in page.results}
    count, number = 0, 0
    for folder, task in zip(folders(read_only_workspace), ("caption", "vqa"), strict=True):
        dataset = open_dataset(read_only_workspace / "datasets" / "shapes" / task)
        index, queries = dataset.split("train"), dataset.split("validation")
        for result in read_evaluation(folder).results:
            file = folder / "predictions" / f"{result.method}-{result.shots}-shot-seed{result.seed}.jsonl"
            for row in read_predictions(file):
                actual = results[number, f"shapes ({task})", row["query_id"]]
                assert (actual.prompt, actual.raw, actual.answer) == (row["prompt"], row["raw"], row["answer"])
                assert (actual.scores, actual.gains) == (row["scores"], row.get("gain", {}))
                assert {page.demonstrations[d].id for d in actual.demonstrations} >= set(row["copied"])
                assert [page.demonstrations[actual.demonstrations[c]].id for c in actual.copied] == row["copied"]
                assert actual.leaks == row["shared"]
                examples = index.rows([index.row_of(icd) for icd in row["icd_ids"]])
                demonstrations = [page.demonstrations[d] for d in actual.demonstrations]
                assert [(d.id, d.text, d.label) for d in demonstrations] == [
                    (e.id, e.question, e.label) for e in examples
                ]
                query = page.queries[actual.query]
                example = queries[queries.row_of(query.id)]
                assert (query.question, list(query.references)) == (example.question, row["references"])
                count += 1
            number += 1
    assert count == len(page.results) == 5 * len(page.settings)
    assert len(page.queries) == 10, "one for each data set and id, however many settings"


def test_images_are_listed_once(read_only_workspace: Path) -> None:
    draft = evaluations_page(folders(read_only_workspace), read_only_workspace)
    assert len(set(draft.references)) == len(draft.references)
    queries, demonstrations = draft.page.queries, draft.page.demonstrations
    assert draft.large == {image for query in queries for image in query.images}
    index = open_dataset(read_only_workspace / "datasets" / "shapes" / "caption").split("train")
    one = demonstrations[0]
    assert draft.references[one.images[0]] == index[index.row_of(one.id)].image
    uses = [d for r in draft.page.results for d in r.demonstrations if demonstrations[d].images == one.images]
    assert draft.uses[one.images[0]] == len(uses) > 0


def test_the_same_inputs_give_the_same_page(read_only_workspace: Path) -> None:
    assert page_of(read_only_workspace) == page_of(read_only_workspace)
    assert page_of(read_only_workspace, queries=4, seed=1) == page_of(read_only_workspace, queries=4, seed=1)


def test_a_sample_is_drawn_and_said(read_only_workspace: Path) -> None:
    page = page_of(read_only_workspace, queries=4)
    assert [q.dataset for q in page.queries] == ["shapes (caption)"] * 2 + ["shapes (vqa)"] * 2
    assert page.remarks == ("the gallery has 4 of 10 queries, drawn with seed 0: --max-queries shows more",)
    assert page.settings == page_of(read_only_workspace).settings, "tables are of all"
    more = {(q.dataset, q.id) for q in page_of(read_only_workspace, queries=8).queries}
    assert {(q.dataset, q.id) for q in page.queries} < more
    assert page_of(read_only_workspace, queries=-1).remarks == page_of(read_only_workspace, queries=10).remarks == ()
    assert not page_of(read_only_workspace, queries=0).results


def test_queries_of_more_evaluations_come_first() -> None:
    a, b = DatasetKey("a", "vqa", "f"), DatasetKey("b", "vqa", "f")
    known = [(a, range(100)), (a, range(90, 200)), (b, range(3))]
    chosen = chosen_queries(known, 20, 0)
    assert chosen[b] == [0, 1, 2]
    assert len(chosen[a]) == 17
    assert set(range(90, 100)) <= set(chosen[a])
    assert chosen[a] == sorted(chosen[a]) != list(range(17))
    assert chosen_queries(known, 20, 1) != chosen
    assert sum(map(len, chosen_queries(known, -1, 0).values())) == 203


def test_gains_are_computed_where_none_are_stored(world: Path) -> None:
    before = page_of(world)
    for file in folders(world)[0].glob("predictions/*.jsonl"):
        rows = [{k: v for k, v in row.items() if k != "gain"} for row in read_predictions(file)]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert page_of(world).results == before.results


def test_missing_predictions_are_said(world: Path) -> None:
    folder = folders(world)[0]
    gone, cut = (folder / "predictions" / f"random-{k}-shot-seed0.jsonl" for k in (1, 2))
    gone.unlink()
    cut.write_text(cut.read_text()[:-5])
    wrong = folder / "predictions" / "random-1-shot-seed1.jsonl"
    rows = read_predictions(wrong)
    wrong.write_text("".join(json.dumps({**row, "icd_ids": None}) + "\n" for row in rows))
    page = page_of(world)
    first, second, third = page.sources[0].remarks
    gone, cut = (path.relative_to(world) for path in (gone, cut))
    assert first.startswith(f"{gone} does not exist")
    assert second.startswith("the predictions of random, 1 shots, are malformed: query ")
    assert third.startswith(f"{cut}, line 5, is truncated")
    missing = [r for r in page.results if r.missing]
    assert len(missing) == 15
    assert {page.settings[r.setting].method for r in missing} == {"random"}
    assert all(not r.demonstrations and not r.scores for r in missing)


def test_work_that_was_given_up_is_said(world: Path) -> None:
    artefact = folders(world)[0] / "results.json"
    path = write_failures(artefact, [{"error": "the disk is gone", "count": 64}])
    line = "64 queries or anchors were given up, the first: the disk is gone; run `icltool evaluate` again"
    assert page_of(world).sources[0].remarks == (line,)
    path.write_text("[]")
    assert "cannot be read" in page_of(world).sources[0].remarks[0]


@pytest.mark.parametrize("how", ["gone", "anew", "cut"])
def test_without_the_data_set_answers_and_images_are_there(world: Path, how: str) -> None:
    before, folder = page_of(world), Workspace(world).dataset_folder("shapes", "vqa")
    if how == "gone":
        shutil.rmtree(folder)
    elif how == "cut":
        shutil.rmtree(folder / "train")
    else:
        manifest = json.loads((folder / "dataset.json").read_text())
        write_json(folder / "dataset.json", {**manifest, "fingerprint": "another"})
    draft = evaluations_page(folders(world), world)
    page = draft.without_images()
    (remark,) = page.remarks
    words = {"gone": "is not prepared in the workspace", "anew": "is another version than", "cut": "cannot be read"}[
        how
    ]
    assert words in remark
    assert remark.endswith("questions and the texts of demonstrations are missing")
    assert [r.answer for r in page.results] == [r.answer for r in before.results]
    assert [q.references for q in page.queries] == [q.references for q in before.queries]
    assert {d.label for d in page.demonstrations[-5:]} == {""}
    assert {q.question for q in page.queries[5:]} == (
        {q.question for q in before.queries[5:]} if how == "cut" else {""}
    )
    assert all(d.images for d in (*draft.page.demonstrations, *draft.page.queries))


def test_a_data_set_in_the_given_workspace_counts_too(world: Path, tmp_path: Path) -> None:
    before = page_of(world)
    elsewhere = Path(shutil.move(folders(world)[0], tmp_path / "lent"))
    page = evaluations_page([elsewhere], world).without_images()
    assert page.remarks == ()
    assert page.queries == before.queries[:5]


def test_two_versions_of_a_data_set_are_two(world: Path) -> None:
    other = Path(shutil.copytree(folders(world)[1], world / "evaluations" / "z"))
    content = json.loads((other / "results.json").read_text())
    content["provenance"]["configuration"] |= {"dataset_fingerprint": "0123456789ab", "num_beams": 7}
    write_json(other / "results.json", content)
    page = page_of(world)
    labels = list(dict.fromkeys(q.dataset for q in page.queries))
    assert labels[0] == "shapes (caption)"
    assert labels[2] == "shapes (vqa), 01234567"
    assert len(page.queries) == 15
    assert page.sources[2].title == ("shapes (vqa), tiny-idefics, num beams 7, dataset fingerprint 0123456789ab")


def test_hostile_texts_pass_through(world: Path) -> None:
    file = folders(world)[0] / "predictions" / "i2i-1-shot-seed0.jsonl"
    hostile = '<script>alert("x")</script>&amp;\u202e\x00'
    rows = read_predictions(file)
    rows[0] |= {"answer": hostile, "prompt": hostile, "raw": hostile + "\ud800", "references": [hostile]}
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    results = [r for r in page_of(world).results if r.answer == hostile]
    assert [(r.prompt, r.raw) for r in results] == [(hostile, hostile + "\ufffd")]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[:-20], "is truncated or malformed"),
        (lambda text: text.replace('"better":', '"best":', 1), r"results\.json is malformed: KeyError 'better'"),
        (
            lambda text: text.replace('"differences": [', '"differences": [3, '),
            r"results\.json is malformed: TypeError",
        ),
        (lambda text: "{}", "holds no evaluation results"),
    ],
)
def test_a_damaged_results_file_is_an_error(world: Path, change: Any, message: str) -> None:
    file = folders(world)[0] / "results.json"
    file.write_text(change(file.read_text()))
    with pytest.raises(StoreError, match=message):
        evaluations_page(folders(world), world)


def test_results_without_a_configuration_are_shown(world: Path) -> None:
    file = folders(world)[0] / "results.json"
    content = json.loads(file.read_text())
    write_json(file, {**content, "provenance": {"seed": 0}})
    page = evaluations_page([file], world).without_images()
    assert page.sources[0].title == file.parent.name
    assert len(page.results) == 5 * len(page.settings)
    assert "does not say which data set" in page.remarks[0]


def test_holm_correction_by_hand() -> None:
    """Of 0.01, 0.04 and 0.03: 3 x 0.01, then 2 x 0.03, then max(0.06, 0.04)."""
    tests = [
        Comparison(0, "a", "b", metric, Interval(0, 0, 0), p)
        for metric, p in (("m", 0.01), ("m", 0.04), ("m", 0.03), ("m", math.nan), ("n", 0.9))
    ]
    holm = [test.holm for test in corrected(tests)]
    assert holm[:3] == pytest.approx([0.03, 0.06, 0.06])
    assert math.isnan(holm[3])
    assert holm[4] == 0.9
