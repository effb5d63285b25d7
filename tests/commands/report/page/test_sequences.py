"""Pages of generated sequences: what the real stage wrote, and figures checked by hand."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from icltool.commands.generate import run as generate
from icltool.commands.generate.options import GenerateConfig
from icltool.commands.report.page.beam_figures import diversity, gains_by_beam, gains_by_step, hubness, worse_than_none
from icltool.commands.report.page.content import Page
from icltool.commands.report.page.sequences import NONE, sequences_page
from icltool.contracts import QueryResult
from icltool.errors import StoreError
from icltool.execution.progress import SilentProgress
from icltool.store.provenance import Provenance
from icltool.store.records import open_dataset
from icltool.store.sequences import SequenceFile, SequenceWriter


@pytest.fixture(scope="module")
def sequence_file(small_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sequences of six anchors of the small world, in a workspace of their own. Read only."""
    root = tmp_path_factory.mktemp("generated") / "ws"
    shutil.copytree(small_world / "datasets" / "shapes" / "vqa", root / "datasets" / "shapes" / "vqa")
    config = GenerateConfig(
        workspace=root, task="vqa", model="tiny-idefics", device="cpu", anchors=6, candidates=8, beam_size=3, shots=2
    )
    generate.run(config, SilentProgress())
    (path,) = (root / "sequences").glob("*.h5")
    return path


def page_of(path: Path, **options: int) -> Page:
    return replace(sequences_page(path, Path("nowhere"), **options).without_images(), made="")


def test_beams_are_those_of_the_file(sequence_file: Path) -> None:
    page = page_of(sequence_file)
    assert page.kind == "sequences"
    assert page.metrics == ("value", "log-probability")
    assert [s.method for s in page.settings] == [NONE, "beam 1", "beam 2", "beam 3"]
    assert [s.shots for s in page.settings] == [0, 2, 2, 2]
    by_query = {(r.setting, page.queries[r.query].id): r for r in page.results}
    index = open_dataset(sequence_file.parent.parent / "datasets" / "shapes" / "vqa").split("train")
    with SequenceFile.open(sequence_file) as file:
        results = list(file.results())
    for result in results:
        before = by_query[0, result.query_id]
        assert before.scores == {"value": result.base_value, "log-probability": result.base_log_prob}
        assert before.demonstrations == ()
        anchor = index[index.row_of(result.query_id)]
        query = page.queries[before.query]
        assert (query.question, query.references[0]) == (anchor.question, anchor.label)
        for beam, ids in enumerate(result.icd_ids.tolist()):
            actual = by_query[beam + 1, result.query_id]
            assert [page.demonstrations[d].id for d in actual.demonstrations] == ids
            assert [page.demonstrations[d].label for d in actual.demonstrations] == [
                index[index.row_of(one)].label for one in ids
            ]
            assert actual.scores["value"] == result.values[beam]
            assert actual.scores["log-probability"] == result.log_probs[beam]
            assert actual.scores["score"] == result.scores[beam]
            assert actual.gains["value"] == result.values[beam] - result.base_value
            assert actual.steps == tuple(result.step_scores[beam])
    assert len(page.results) == 6 * 4
    best = page.settings[1]
    assert best.metrics["value"].mean == pytest.approx(np.mean([r.values[0] for r in results]))
    assert best.gains["value"].mean == pytest.approx(np.mean([r.values[0] - r.base_value for r in results]))
    assert sum(best.outcomes["value"]) == 6
    assert dict(page.sources[0].lines)["beam size"] == "3"


def test_figures_are_of_all_anchors_and_the_gallery_is_a_sample(sequence_file: Path) -> None:
    whole, page = page_of(sequence_file), page_of(sequence_file, queries=2)
    assert page == page_of(sequence_file, queries=2)
    assert len(page.queries) == 2
    assert len(page.results) == 2 * 4
    assert page.remarks == ("the gallery has 2 of 6 anchors, drawn with seed 0: --max-queries shows more",)
    assert page.settings == whole.settings
    assert page.extra["anchors"] == {"shown": 2, "finished": 6, "total": 6}
    for name in ("gains", "steps", "worse", "diversity"):
        assert page.extra[name] == whole.extra[name]
    json.dumps(page.extra, allow_nan=False)
    top = whole.extra["hubness"]["top"]
    assert all(whole.demonstrations[entry["demonstration"]].id == entry["id"] for entry in top)
    assert whole.extra["hubness"]["index"] == 107


def test_without_the_data_set_the_numbers_are_there(sequence_file: Path, tmp_path: Path) -> None:
    alone = Path(shutil.copy(sequence_file, tmp_path / "alone.h5"))
    page, whole = page_of(alone), page_of(sequence_file)
    assert "no data set is prepared in nowhere" in page.remarks[0]
    assert [r.scores for r in page.results] == [r.scores for r in whole.results]
    assert {q.references for q in page.queries} == {()}
    assert page.extra["hubness"]["index"] is None
    actual = sequences_page(alone, sequence_file.parent.parent).without_images()
    assert actual.queries == whole.queries, "the given workspace has the data set"


def result(query_id: int, ids: list[list[int]], values: list[float], base: float) -> QueryResult:
    nothing = np.full(len(ids), math.nan)
    return QueryResult(
        query_id=query_id,
        candidates=np.arange(10),
        icd_ids=np.array(ids, dtype=np.int64).reshape(-1, 2),
        scores=np.array(values),
        step_scores=np.array([[v - base - 1, 1.0] for v in values]).reshape(-1, 2),
        values=np.array(values),
        log_probs=nothing,
        base_value=base,
        base_log_prob=math.nan,
    )


@pytest.fixture
def by_hand(tmp_path: Path) -> Path:
    """Three of four anchors, with two, two and one beams; the second gains nothing. Log-probabilities are not known."""
    path = tmp_path / "hand.h5"
    provenance = Provenance({"dataset": "photos", "task": "caption"}, "f00d")
    with SequenceWriter(path, provenance, 2, beam_size=2, candidates=10, total=4) as writer:
        writer.append(result(1, [[2, 3], [3, 2]], [5.0, 4.0], 1.0))
        writer.append(result(2, [[3, 4], [5, 6]], [1.0, 0.5], 2.0))
        writer.append(result(3, [[3, 7]], [3.0], 3.0))
    return path


def test_figures_by_hand(by_hand: Path) -> None:
    with SequenceFile.open(by_hand) as file:
        arrays = file.arrays()
    assert worse_than_none(arrays) == {"anchors": 3, "worse": 1, "share": pytest.approx(1 / 3)}
    gains = gains_by_beam(arrays)
    assert [(b["beam"], b["anchors"], b["mean"]) for b in gains["beams"]] == [(1, 3, 1.0), (2, 2, 0.75)]
    assert [sum(b["counts"]) for b in gains["beams"]] == [3, 2]
    assert gains["beams"][0]["positive"] == pytest.approx(1 / 3)
    assert 0.0 in gains["edges"]
    assert gains["edges"][0] <= -1.5
    assert gains["edges"][-1] >= 4
    steps = gains_by_step(arrays)["steps"]
    assert [s["mean"] for s in steps] == [0.0, 1.0]
    most = hubness(arrays, None)
    assert most["top"][0] == {"id": 3, "count": 4, "share": 1.0}
    assert (most["distinct"], most["chosen"], most["pool"]) == (6, 10, 10)
    assert most["times"] == [[1, 4], [2, 1], [4, 1]]
    every = np.array([4, 2, 1, 1, 1, 1, 0, 0, 0, 0.0])
    assert most["skewness"] == pytest.approx(((every - 1) ** 3).mean() / every.std() ** 3)
    assert most["top_share"] == 0.4
    assert diversity(arrays) == {"sequences": 5, "distinct": 5, "overlap": 0.5, "per_anchor": pytest.approx(8 / 3)}


def test_an_unfinished_file_without_log_probabilities(by_hand: Path) -> None:
    page = page_of(by_hand)
    assert page.metrics == ("value",)
    assert page.sources[0].remarks == ("unfinished: 3 of 4 anchors so far",)
    assert all("log-probability" not in r.scores for r in page.results)
    assert [s.queries for s in page.settings] == [3, 3, 2]
    assert [s.outcomes.get("value") for s in page.settings] == [None, (1, 1, 1), (1, 1, 0)]


def test_a_file_without_anchors(tmp_path: Path) -> None:
    path = tmp_path / "none.h5"
    with SequenceWriter(path, Provenance({}, "f00d"), 2, beam_size=2, candidates=10, total=4):
        pass
    page = page_of(path)
    assert page.results == ()
    assert page.extra["worse"] == {"anchors": 0, "worse": 0, "share": None}
    json.dumps(page.extra, allow_nan=False)


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.h5").write_text("no HDF5")
    for name in ("x.h5", "absent.h5"):
        with pytest.raises(StoreError, match=name):
            sequences_page(tmp_path / name, tmp_path)
