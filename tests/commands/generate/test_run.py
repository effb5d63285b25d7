"""Generating sequences on a small world, with the real model."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from icltool.cli.output import show
from icltool.commands.generate import run as generate
from icltool.commands.generate.options import GenerateConfig
from icltool.commands.generate.report import MeanScores
from icltool.contracts import QueryResult, Ticker
from icltool.errors import ConfigError, DataError, PluginError, StoreError
from icltool.execution.progress import for_terminal
from icltool.store.records import PreparedDataset, open_dataset
from icltool.store.sequences import SequenceFile, SequenceWriter
from icltool.store.workspace import Workspace
from tests.suites import apart

QUIET = for_terminal(quiet=True)


def config(workspace: Path, **options: Any) -> GenerateConfig:
    small = {"model": "tiny-idefics", "device": "cpu", "anchors": 4, "candidates": 6, "beam_size": 3, "shots": 2}
    return GenerateConfig(workspace=workspace, **{**small, **options})


def arrays(workspace: Path, **options: Any) -> dict[str, np.ndarray]:
    report = generate.run(config(workspace, **options), QUIET)
    assert report.path is not None
    return SequenceFile.open(report.path).arrays()


def assert_equal(actual: dict[str, np.ndarray], expected: dict[str, np.ndarray], tolerance: float = 0.0) -> None:
    assert set(actual) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(actual[name], values, rtol=0, atol=tolerance, err_msg=name)


def shapes(workspace: Path, task: str = "caption") -> PreparedDataset:
    return open_dataset(workspace / "datasets" / "shapes" / task)


class InterruptedProgress:
    """Progress that behaves like Ctrl-C after a number of items."""

    def __init__(self, after: int) -> None:
        self.left = after

    @contextmanager
    def task(self, description: str, total: int, noun: str, done: int = 0) -> Iterator[Ticker]:
        yield self

    def advance(self, amount: int = 1) -> None:
        self.left -= amount
        if self.left <= 0:
            raise KeyboardInterrupt

    def note(self, text: str) -> None: ...
    def say(self, text: str) -> None: ...
    def detail(self, text: str) -> None: ...


@contextmanager
def interrupted_after(anchors: int) -> Iterator[None]:
    """Expects the body to end by Ctrl-C, which comes when this many anchors are written."""
    append, left = SequenceWriter.append, anchors

    def interrupted(self: SequenceWriter, result: QueryResult) -> None:
        nonlocal left
        append(self, result)
        left -= 1
        if not left:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SequenceWriter, "append", interrupted)
        with pytest.raises(KeyboardInterrupt):
            yield


@pytest.mark.parametrize(("task", "order"), [("caption", "left"), ("vqa", "right")])
def test_stored_scores_are_those_of_the_prompts(workspace: Path, tiny_model: Any, task: str, order: str) -> None:
    result = arrays(workspace, task=task, construct_order=order, anchors=3)
    records = shapes(workspace, task).split("train")
    for q, query_id in enumerate(result["query_id"]):
        query = records[records.row_of(int(query_id))]
        [alone] = tiny_model.score([tiny_model.prompt(task, [], query)], 1)
        assert result["base_value"][q] == pytest.approx(np.exp(alone.mean), abs=1e-5)
        for beam in range(3):
            ids = result["icd_ids"][q, beam]
            assert set(ids) <= set(result["candidates"][q])
            icds = [records[records.row_of(int(i))] for i in ids]
            assert all(i.image_id != query.image_id and i.group != query.group for i in icds)
            [score] = tiny_model.score([tiny_model.prompt(task, icds, query)], 1)
            assert result["values"][q, beam] == pytest.approx(np.exp(score.mean), abs=1e-5)
            assert result["log_probs"][q, beam] == pytest.approx(score.log_prob, abs=1e-4)
        gains = result["step_scores"][q].sum(axis=1)
        np.testing.assert_allclose(gains, result["values"][q] - result["base_value"][q], atol=1e-9)


def test_an_interrupted_run_goes_on_to_the_same_content(workspace: Path, tmp_path: Path) -> None:
    whole = arrays(workspace, output=tmp_path / "whole.h5")
    target = tmp_path / "parts.h5"
    for _ in range(2):
        with interrupted_after(1):
            generate.run(config(workspace, output=target), QUIET)
    assert 1 <= len(SequenceFile.open(target)) < 4
    assert_equal(arrays(workspace, output=target), whole)


def test_anchors_that_are_searched_together_change_rounding_only(workspace: Path, tmp_path: Path) -> None:
    small = {"anchors": 5, "candidates": 5, "beam_size": 2}
    expected = arrays(workspace, output=tmp_path / "whole.h5", anchors_at_once=1, prefix_cache_mb=0, **small)
    for number, options in enumerate(({"anchors_at_once": 3}, {"prefix_cache_mb": 1}, {"image_workers": 1}, {})):
        result = arrays(workspace, output=tmp_path / f"{number}.h5", **small, **options)
        np.testing.assert_array_equal(result["icd_ids"], expected["icd_ids"])
        assert_equal(result, expected, 1e-5)


def test_a_group_that_was_begun_is_searched_again_as_a_whole(workspace: Path, tmp_path: Path) -> None:
    """Bit for bit the same, wherever it was interrupted; and what was finished is not written twice."""
    options = {"anchors": 7, "anchors_at_once": 3, "candidates": 4, "beam_size": 2}
    whole = arrays(workspace, output=tmp_path / "whole.h5", **options)
    for after in (1, 3, 5):
        target = tmp_path / f"after-{after}.h5"
        with interrupted_after(after):
            generate.run(config(workspace, output=target, **options), QUIET)
        assert len(SequenceFile.open(target)) == after
        assert_equal(arrays(workspace, output=target, **options), whole)


def test_the_report_tells_what_was_computed(workspace: Path) -> None:
    report = generate.run(config(workspace, anchors=2), QUIET)
    line = next(remark for remark in report.remarks if "prompts" in remark)
    numbers = [int(n.replace(",", "")) for n in re.findall(r"[\d,]*\d(?= (?:prompts|tokens computed|scored))", line)]
    prompts, computed, scored = numbers
    assert prompts == 2 * (1 + 6 + 3 * 5)
    assert computed < scored
    whole = generate.run(config(workspace, anchors=2, prefix_cache_mb=0, overwrite=True), QUIET)
    assert "tokens" not in " ".join(whole.remarks)


def test_images_on_disk_are_not_encoded_again(workspace: Path, tmp_path: Path) -> None:
    first = generate.run(config(workspace, output=tmp_path / "a.h5", image_cache_disk=True), QUIET)
    again = generate.run(config(workspace, output=tmp_path / "b.h5", image_cache_disk=True), QUIET)
    assert "images encoded" in first.remarks[-1]
    assert re.search(r", 0 images encoded, \d+ from the disk", again.remarks[-1])
    a, b = (SequenceFile.open(r.path).arrays() for r in (first, again) if r.path is not None)
    assert_equal(a, b)
    assert list((workspace / "cache").glob("image-features-*.h5"))


def test_remarks_of_the_disk_cache_are_reported(workspace: Path, tmp_path: Path) -> None:
    first = generate.run(config(workspace, output=tmp_path / "a.h5", image_cache_disk=True), QUIET)
    assert len(first.remarks) == 1
    (file,) = (workspace / "cache").glob("image-features-*.h5")
    file.write_text("hello")
    again = generate.run(config(workspace, output=tmp_path / "b.h5", image_cache_disk=True), QUIET)
    assert any(str(file) in remark and "started again" in remark for remark in again.remarks)
    file.unlink()
    small = config(workspace, output=tmp_path / "c.h5", image_cache_disk=True, image_cache_disk_mb=1)
    assert "limit" not in " ".join(generate.run(small, QUIET).remarks)


def test_fewer_sequences_than_beams_have_means_all_the_same(
    workspace: Path, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    report = generate.run(config(workspace, candidates=2, shots=1, beam_size=5, output=tmp_path / "a.h5"), QUIET)
    assert report.rows()[0]["mean gain of last beam"] is None
    assert not [w for w in recwarn if "empty slice" in str(w.message)]


def test_a_finished_run_is_found_up_to_date(workspace: Path) -> None:
    generate.run(config(workspace), QUIET)
    report = generate.run(config(workspace, batch_size=3), QUIET)
    assert report.rows()[0]["searched now"] == 0
    assert "up to date" in report.lines()[0]


@pytest.mark.parametrize("score", apart("training", ["increment"], ["increment", "cumulative"]))
def test_another_batch_size_gives_the_same_sequences(workspace: Path, tmp_path: Path, score: str) -> None:
    common = {"anchors": 5, "candidates": 9, "beam_size": 3, "beam_score": score}
    expected = arrays(workspace, output=tmp_path / "a.h5", batch_size=64, **common)
    for batch_size, cache in ((7, 64), (33, 0)):
        path = tmp_path / f"{batch_size}.h5"
        result = arrays(workspace, output=path, batch_size=batch_size, image_cache_mb=cache, **common)
        np.testing.assert_array_equal(result["icd_ids"], expected["icd_ids"])
        for name in ("values", "scores", "step_scores", "base_value"):
            np.testing.assert_allclose(result[name], expected[name], rtol=0, atol=1e-5)


@pytest.mark.parametrize("sampler", ["image-sim", "text-sim", "mix"])
def test_similarity_samplers_read_the_embeddings(workspace: Path, sampler: str) -> None:
    result = arrays(workspace, sampler=sampler, anchors=2, shots=1)
    assert result["candidates"].shape == (2, 6)
    assert all(len(set(row)) == 6 for row in result["candidates"].tolist())


def test_cider_values_are_cider_of_the_answers(workspace: Path) -> None:
    result = arrays(workspace, scorer="cider", anchors=2, shots=1, beam_size=2)
    assert np.isnan(result["log_probs"]).all()
    assert (result["values"] >= 0).all()
    assert result["values"].max() > result["base_value"].min()


def test_cosine_needs_no_model_and_prefers_similar_images(workspace: Path) -> None:
    report = generate.run(config(workspace, scorer="cosine", model="idefics-9b", anchors=3, shots=1), QUIET)
    assert report.path is not None
    assert "idefics" not in report.path.name
    values = SequenceFile.open(report.path).arrays()["values"]
    assert (np.diff(values, axis=1) <= 0).all()


def test_other_seeds_and_samplers_get_files_of_their_own(workspace: Path) -> None:
    options: list[dict[str, Any]] = [{}, {"seed": 1}, {"candidates": 7}, {"construct_order": "right"}]
    paths = {generate.run(config(workspace, anchors=1, shots=1, **o), QUIET).path for o in options}
    assert len(paths) == 4


def test_fewer_anchors_are_the_first_of_more(workspace: Path) -> None:
    few, many = arrays(workspace, anchors=2, shots=1), arrays(workspace, anchors=4, shots=1)
    assert set(few["query_id"]) < set(many["query_id"])


class TestBadInput:
    def test_nothing_prepared(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match="no data set is prepared") as caught:
            generate.run(config(tmp_path), QUIET)
        assert "icltool prepare" in str(caught.value.hint)

    def test_unknown_names_are_met_with_a_suggestion(self, workspace: Path) -> None:
        cases = {
            "sampler": ("randm", "random"),
            "scorer": ("infoscor", "infoscore"),
            "model": ("tiny-idefic", "tiny-idefics"),
        }
        for option, (wrong, right) in cases.items():
            with pytest.raises(PluginError, match=f"did you mean '{right}'"):
                generate.run(config(workspace, **{option: wrong}), QUIET)

    def test_unknown_options_of_a_component(self, workspace: Path) -> None:
        with pytest.raises(ConfigError, match="sampler 'mix'"):
            generate.run(config(workspace, sampler="mix", sampler_options={"colour": 1}), QUIET)

    def test_too_few_candidates(self, workspace: Path) -> None:
        with pytest.raises(DataError, match=r"candidates|rows"):
            generate.run(config(workspace, candidates=5000), QUIET)

    def test_embeddings_missing(self, workspace: Path) -> None:
        for file in (workspace / "embeddings").iterdir():
            file.unlink()
        with pytest.raises(StoreError, match="no embeddings") as caught:
            generate.run(config(workspace, sampler="image-sim"), QUIET)
        assert "icltool embed" in str(caught.value.hint)

    def test_a_file_of_other_options_is_not_overwritten(self, workspace: Path, tmp_path: Path) -> None:
        target = tmp_path / "mine.h5"
        generate.run(config(workspace, output=target, anchors=1, shots=1), QUIET)
        with pytest.raises(StoreError, match=r"mine\.h5"):
            generate.run(config(workspace, output=target, anchors=1, shots=1, seed=5), QUIET)
        generate.run(config(workspace, output=target, anchors=1, shots=1, seed=5, overwrite=True), QUIET)

    def test_missing_image(self, workspace: Path, tmp_path: Path) -> None:
        import shutil

        from icltool.commands.prepare import run as prepare
        from icltool.commands.prepare.options import PrepareConfig

        mine = tmp_path / "own"
        sizes: dict[str, Any] = {"index_images": 60, "validation_images": 12}
        prepare.run(PrepareConfig(workspace=mine, name="shapes", task="caption", options=sizes), QUIET)
        folder = mine / "datasets" / "shapes" / "source" / "mscoco" / "mscoco2017" / "train2017"
        shutil.rmtree(folder)
        with pytest.raises(DataError, match=r"image .*train2017.* does not exist"):
            generate.run(config(mine), QUIET)


def test_a_dry_run_plans_what_the_run_then_does(workspace: Path) -> None:
    plan = generate.run(config(workspace, anchors=3, dry_run=True), QUIET)
    assert plan.path is None
    assert [row["prompts"] for row in plan.rows()] == [3, 18, 45, 66]
    assert not list((workspace / "sequences").glob("*.h5"))
    done = generate.run(config(workspace, anchors=3), QUIET)
    assert str(done.path) in plan.remarks[-1]
    result = SequenceFile.open(done.path).arrays()  # type: ignore[arg-type]
    records = shapes(workspace).split("train")
    ids = np.unique(np.concatenate([result["candidates"].ravel(), result["query_id"]]))
    images = {records[records.row_of(int(i))].image_id for i in ids}
    assert any(line.startswith(f"{len(images)} images") for line in plan.remarks)
    again = generate.run(config(workspace, anchors=5, dry_run=True, output=done.path), QUIET)
    assert "an earlier run finished 3 of 5 anchors" in again.remarks
    assert "up to date" in generate.run(config(workspace, anchors=3, dry_run=True), QUIET).remarks[-1]


@pytest.mark.parametrize("scorer", ["infoscore", "cosine"])
def test_anchors_of_the_validation_split(workspace: Path, scorer: str) -> None:
    """Queries that will be evaluated get sequences from the index set, in a file of their own."""
    report = generate.run(config(workspace, anchors=2, queries="validation", scorer=scorer), QUIET)
    assert report.path is not None
    assert "-validation-" in report.path.name
    file = SequenceFile.open(report.path)
    assert file.provenance.configuration["queries"] == "validation"
    index, queries = shapes(workspace).split("train"), shapes(workspace).split("validation")
    assert set(file.query_ids) <= set(queries.ids.tolist())
    for result in file.results():
        query = queries[queries.row_of(result.query_id)]
        pool = [index[index.row_of(int(i))] for i in result.candidates]
        assert all(c.image_id != query.image_id and (not c.group or c.group != query.group) for c in pool)


def test_the_leak_guard_keeps_equal_questions_out_when_asked(workspace: Path) -> None:
    records = shapes(workspace, "vqa").split("train")

    def equal_questions(**options: Any) -> int:
        result = arrays(workspace, task="vqa", scorer="cosine", anchors=3, **options)
        questions = {int(i): records[records.row_of(int(i))].question for i in records.ids}
        return sum(
            questions[int(c)] == questions[int(q)]
            for q, pool in zip(result["query_id"], result["candidates"], strict=True)
            for c in pool
        )

    assert equal_questions() > 0
    assert equal_questions(leak_guard=("image", "question")) == 0


def test_a_model_that_cannot_be_loaded_leaves_no_file(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MODEL_CPK_DIR", raising=False)
    before = set(workspace.glob("sequences/*"))
    with pytest.raises(ConfigError, match="weights of idefics-80b"):
        generate.run(config(workspace, model="idefics-80b"), QUIET)
    assert set(workspace.glob("sequences/*")) == before


def test_more_shots_than_candidates_are_refused_before_the_search(workspace: Path) -> None:
    with pytest.raises(ConfigError, match="--shots 7 needs pools"):
        generate.run(config(workspace, shots=7), QUIET)


def test_an_unfinished_file_is_not_the_newest(workspace: Path) -> None:
    done = generate.run(config(workspace, anchors=2, scorer="cosine"), QUIET).path
    with interrupted_after(1):
        generate.run(config(workspace, anchors=3, scorer="cosine"), QUIET)
    assert Workspace(workspace).newest_sequences("shapes", "caption") == done


@pytest.mark.parametrize(
    ("values", "base", "rows"),
    [
        (
            [[0.25, 0.2001], [0.25, 0.2001]],
            [0.2, 0.2],
            [("none", "0.2000", ""), ("first beam", "0.2500", "+0.0500"), ("last of 2 beams", "0.2001", "+0.0001")],
        ),
        ([[0.2], [0.2 - 1e-12]], [0.2, 0.2], [("none", "0.2000", ""), ("first beam", "0.2000", "+0.0000")]),
        (
            [[12.5, np.nan]],
            [10.0],
            [("none", "10.00", ""), ("first beam", "12.50", "+2.50"), ("last of 2 beams", "-", "-")],
        ),
    ],
)
def test_mean_scores_as_texts(values: list[list[float]], base: list[float], rows: list[tuple[str, str, str]]) -> None:
    assert MeanScores.of(np.array(values), np.array(base)).rows() == rows


def test_the_table_says_what_the_score_is(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show(generate.run(config(workspace), QUIET))
    printed = capsys.readouterr().out
    assert "score: probability of the label given the demonstrations (InfoScore)" in printed
    assert "4 anchors (4 searched now), 2 demonstrations each, of 6 candidates" in printed
    assert not re.search(r"\bICDs?\b|-0\b", printed.partition("output: ")[0])  # pytest's folders end in -0
    assert max(map(len, printed.partition(" prompts, ")[0].splitlines())) <= 80
