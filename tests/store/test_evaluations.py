"""results.json and predictions: written whole, read back equal, refused when damaged."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from icltool.errors import StoreError
from icltool.store.evaluations import (
    Evaluation,
    MetricResult,
    PartialAnswers,
    SettingResult,
    predictions_file,
    read_evaluation,
    read_predictions,
    write_predictions,
    write_results,
)

PROVENANCE = {"model": "tiny", "seed": 3, "plugins": {"cider": "icltool 0.1.0"}}


def _results() -> list[SettingResult]:
    metrics = {"cider": MetricResult(51.25, 48.0, 54.5), "word-accuracy": MetricResult(1 / 3, 0.25, 0.5)}
    return [
        SettingResult("zero-shot", 0, 0, 400, metrics, 12.5, {"prompt_tokens": 30}),
        SettingResult("lever-lm", 4, 1, 400, metrics, 20.0),
    ]


def _row(query_id: int, **changes: Any) -> dict[str, Any]:
    row = {
        "query_id": query_id,
        "group": "red-square",
        "icd_ids": [4, 2],
        "prompt": "Caption:a dax\u2028blick\nCaption:",
        "images": ["/data/4.png"],
        "raw": ' a "dax"\n',
        "answer": "a dax — ü",
        "references": ["a dax blick"],
        "scores": {"cider": 0.1 + 0.2},
    }
    return {**row, **changes}


def test_results_come_back_equal(tmp_path: Path) -> None:
    path = write_results(tmp_path / "evaluation", _results(), PROVENANCE)
    assert path == tmp_path / "evaluation" / "results.json"
    for place in (tmp_path / "evaluation", path):
        assert read_evaluation(place) == Evaluation(tmp_path / "evaluation", _results(), PROVENANCE, {})


def test_results_are_plain_json_even_without_a_number(tmp_path: Path) -> None:
    odd = SettingResult("i2i", 1, 0, 0, {"cider": MetricResult(math.nan, math.nan, math.inf)}, extra={"x": math.nan})
    path = write_results(tmp_path, [odd], {})

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    (back,) = read_evaluation(tmp_path).results
    assert math.isnan(back.metrics["cider"].mean)
    assert back.extra == {"x": None}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"schema": "icltool-results", "ver', "truncated or malformed"),
        ("[]", "holds no evaluation results"),
        ('{"schema": "other"}', "holds no evaluation results"),
        ('{"schema": "icltool-results", "version": 99}', "schema version 99"),
        ('{"schema": "icltool-results", "version": 1}', "malformed"),
        ('{"schema": "icltool-results", "version": 1, "results": [{"method": "i2i"}], "provenance": {}}', "malformed"),
        ('{"schema": "icltool-results", "version": 1, "results": [3], "provenance": {}}', "malformed"),
        ('{"schema": "icltool-results", "version": 1, "results": [], "provenance": 3}', "malformed"),
    ],
)
def test_damaged_results_name_the_file(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(StoreError, match=message) as caught:
        read_evaluation(tmp_path)
    assert str(tmp_path / "results.json") in caught.value.message
    assert caught.value.hint


def test_the_analysis_comes_back_and_older_files_have_none(tmp_path: Path) -> None:
    write_results(tmp_path, _results(), PROVENANCE)
    assert read_evaluation(tmp_path).analysis == {}
    path = write_results(tmp_path, _results(), PROVENANCE, {"key": "x", "differences": [{"mean": math.nan, "p": 0.5}]})
    assert read_evaluation(path).analysis == {"key": "x", "differences": [{"mean": None, "p": 0.5}]}
    assert (read_evaluation(path).results, read_evaluation(path).provenance) == (_results(), PROVENANCE)
    path.write_text(json.dumps({**json.loads(path.read_text()), "analysis": [1]}))
    with pytest.raises(StoreError, match="analysis is not an object"):
        read_evaluation(tmp_path)


def test_missing_results_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"results\.json does not exist"):
        read_evaluation(tmp_path)


def test_predictions_lie_where_they_are_looked_for(tmp_path: Path) -> None:
    path = predictions_file(tmp_path, "lever-lm", 4, 1)
    assert path == tmp_path / "predictions" / "lever-lm-4-shot-seed1.jsonl"
    other = predictions_file(tmp_path, "lever-lm", 4, 1, order=2)
    assert other == tmp_path / "predictions" / "lever-lm-4-shot-seed1-order2.jsonl"


@pytest.mark.parametrize("name", ["", "../up", "a/b", "a\\b", ".hidden"])
def test_method_names_cannot_leave_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="file name"):
        predictions_file(tmp_path, name, 1, 0)


def test_predictions_come_back_equal(tmp_path: Path) -> None:
    path = predictions_file(tmp_path, "i2i", 2, 0)
    rows = [_row(i, extra="kept") for i in range(50)]
    assert write_predictions(path, iter(rows)) == 50
    assert read_predictions(path) == rows
    assert path.read_bytes().count(b"\n") == 50


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(st.tuples(st.text(), st.lists(st.text(), max_size=3), st.floats(allow_nan=False, allow_infinity=False)))
)
def test_any_text_and_number_comes_back_equal(tmp_path: Path, items: list[tuple[str, list[str], float]]) -> None:
    rows = [_row(i, answer=a, references=r, scores={"m": s}) for i, (a, r, s) in enumerate(items)]
    path = tmp_path / "any.jsonl"
    write_predictions(path, rows)
    assert read_predictions(path) == rows


def test_a_failure_on_the_way_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    write_predictions(path, [_row(1)])

    def failing() -> Iterator[dict[str, Any]]:
        yield _row(2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_predictions(path, failing())
    with pytest.raises(ValueError, match="lacks answer"):
        write_predictions(path, [{k: v for k, v in _row(3).items() if k != "answer"}])
    assert read_predictions(path) == [_row(1)]
    assert [p.name for p in tmp_path.iterdir()] == ["p.jsonl"]


@pytest.mark.parametrize("damage", [b'{"query_id": 3', b"[1]\n", b"\xff\xfe\n", b'{"query_id": 3}\n'])
def test_damaged_predictions_name_file_and_line(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "p.jsonl"
    write_predictions(path, [_row(1), _row(2)])
    path.write_bytes(path.read_bytes() + damage)
    with pytest.raises(StoreError, match=r"p\.jsonl, line 3"):
        read_predictions(path)


def test_missing_predictions_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"absent\.jsonl does not exist"):
        read_predictions(tmp_path / "absent.jsonl")


def test_an_unwritable_folder_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"results\.json"):
        write_results(tmp_path / "file", _results(), {})


class TestPartialAnswers:
    EXPECTED = tuple((query_id, (4, 2)) for query_id in range(7))

    def part(self, folder: Path, digest: str = "d1") -> PartialAnswers:
        return PartialAnswers(predictions_file(folder, "i2i", 2, 0), digest)

    def filled(self, folder: Path, rows: int) -> PartialAnswers:
        part = self.part(folder)
        assert part.resume(self.EXPECTED) == []
        for low in range(0, rows, 2):
            part.append([_row(i) for i in range(low, min(low + 2, rows))])
        return part

    def test_chunks_come_back_and_can_be_added_to(self, tmp_path: Path) -> None:
        self.filled(tmp_path, 4)
        again = self.part(tmp_path)
        assert again.resume(self.EXPECTED) == [_row(i) for i in range(4)]
        again.append([_row(4), _row(5)])
        again.append([_row(6)])
        assert self.part(tmp_path).resume(self.EXPECTED) == [_row(i) for i in range(7)], "the last chunk is shorter"
        again.remove()
        again.remove()
        assert list((tmp_path / "predictions").iterdir()) == []
        assert again.resume(self.EXPECTED) == []

    def test_there_is_no_file_before_the_first_chunk(self, tmp_path: Path) -> None:
        part = self.part(tmp_path)
        assert part.resume(self.EXPECTED) == []
        assert list((tmp_path / "predictions").iterdir()) == []
        part.append([_row(0)], 0, {"seconds": 1.5, "remark": "slow"})
        again = self.part(tmp_path)
        assert again.resume(self.EXPECTED) == [_row(0)]
        assert again.facts == [{"seconds": 1.5, "remark": "slow"}]

    def test_a_file_of_version_1_is_read_and_continued_in_that_version(self, tmp_path: Path) -> None:
        path = self.part(tmp_path).path
        path.parent.mkdir(parents=True)
        head = {"schema": "icltool-answers", "version": 1, "digest": "d1"}
        lines = [head, _row(0), {"chunk": "end", "start": 0, "told": {"seconds": 1.5}}]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        part = self.part(tmp_path)
        assert part.resume(self.EXPECTED) == [_row(0)]
        assert part.facts == [{"seconds": 1.5}]
        part.append([_row(1)], 1, {"seconds": 2.5})
        assert json.loads(path.read_text().split("\n")[-2]) == {"chunk": "end", "start": 1, "told": {"seconds": 2.5}}
        assert part.resume(self.EXPECTED) == [_row(0), _row(1)]
        assert part.facts == [{"seconds": 1.5}, {"seconds": 2.5}]

    def test_a_new_file_has_version_2(self, tmp_path: Path) -> None:
        part = self.part(tmp_path)
        part.resume(self.EXPECTED)
        part.append([_row(0)], 0, {"seconds": 1.5})
        head, _, end = map(json.loads, part.path.read_text().split("\n")[:-1])
        assert head["version"] == 2
        assert end == {"chunk": "end", "start": 0, "facts": {"seconds": 1.5}}

    @pytest.mark.parametrize("version", [0, 3, None, [1]])
    def test_a_file_of_another_version_does_not_count(self, tmp_path: Path, version: object) -> None:
        part = self.filled(tmp_path, 2)
        head, rest = part.path.read_text().split("\n", 1)
        part.path.write_text(json.dumps({**json.loads(head), "version": version}) + "\n" + rest)
        assert self.part(tmp_path).resume(self.EXPECTED) == []

    def test_chunks_of_another_size_count(self, tmp_path: Path) -> None:
        self.filled(tmp_path, 4)
        part = self.part(tmp_path)
        part.append([_row(4), _row(5), _row(6)])
        assert len(part.resume(self.EXPECTED)) == 7
        part.append([_row(9)])
        assert len(part.resume(self.EXPECTED)) == 7, "more rows than queries"

    def test_chunks_in_any_order(self, tmp_path: Path) -> None:
        part = self.part(tmp_path)
        assert part.resume(self.EXPECTED) == []
        part.append([_row(5), _row(6)], 5)
        part.append([_row(2), _row(3)], 2)
        again = self.part(tmp_path)
        assert again.resume(self.EXPECTED) == []
        assert again.out_of_order == {2: [_row(2), _row(3)], 5: [_row(5), _row(6)]}
        again.append([_row(0), _row(1)], 0)
        assert again.resume(self.EXPECTED) == [_row(i) for i in range(4)]
        assert list(again.out_of_order) == [5]
        again.append([_row(4)], 4)
        assert again.resume(self.EXPECTED) == [_row(i) for i in range(7)]
        assert again.out_of_order == {}

    def test_a_chunk_at_another_place_than_it_says_does_not_count(self, tmp_path: Path) -> None:
        part = self.filled(tmp_path, 2)
        part.append([_row(2)], 3)
        part.append([_row(4)], 4)
        assert self.part(tmp_path).resume(self.EXPECTED) == [_row(0), _row(1)]

    @pytest.mark.parametrize("cut", [1, 5, 40])
    def test_a_torn_chunk_is_dropped_as_a_whole(self, tmp_path: Path, cut: int) -> None:
        part = self.filled(tmp_path, 6)
        part.path.write_bytes(part.path.read_bytes()[:-cut])
        assert part.resume(self.EXPECTED) == [_row(i) for i in range(4)]
        part.append([_row(4), _row(5)])
        assert len(part.resume(self.EXPECTED)) == 6

    def test_every_cut_leaves_whole_chunks(self, tmp_path: Path) -> None:
        part = self.filled(tmp_path, 6)
        content = part.path.read_bytes()
        for length in range(0, len(content), 7):
            part.path.write_bytes(content[:length])
            rows = part.resume(self.EXPECTED)
            assert rows == [_row(i) for i in range(len(rows))]
            assert len(rows) % 2 == 0
            assert part.resume(self.EXPECTED) == rows

    def test_other_settings_queries_and_demonstrations_do_not_count(self, tmp_path: Path) -> None:
        self.filled(tmp_path, 6)
        other = [(q, (4, 2) if q != 3 else (2, 4)) for q in range(7)]
        assert len(self.part(tmp_path).resume(other)) == 2
        self.part(tmp_path).remove()
        self.filled(tmp_path, 4)
        other_part = self.part(tmp_path, "d2")
        assert other_part.resume(self.EXPECTED) == []
        other_part.append([_row(0), _row(1)])
        first = self.part(tmp_path)
        assert len(first.resume(self.EXPECTED)) == 4, "what the first one answered is still there"
        first.remove()
        assert len(self.part(tmp_path, "d2").resume(self.EXPECTED)) == 2, "and each has its own, whoever is done first"

    def test_a_file_whose_first_line_was_cut_is_taken_over(self, tmp_path: Path) -> None:
        part = self.filled(tmp_path, 2)
        part.path.write_bytes(part.path.read_bytes()[:20])
        self.filled(tmp_path, 4)
        self.part(tmp_path).remove()
        assert list((tmp_path / "predictions").iterdir()) == []

    def test_an_unwritable_folder_is_one_clear_line(self, tmp_path: Path) -> None:
        (tmp_path / "predictions").write_text("")
        with pytest.raises(StoreError, match=r"i2i-2-shot-seed0"):
            self.part(tmp_path).resume(self.EXPECTED)
