"""Which queries are measured, and for which calls."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from icltool.commands.evaluate import costs
from icltool.commands.evaluate.inputs import Inputs
from icltool.commands.evaluate.settings import Settings
from icltool.commands.evaluate.units import Conditions
from icltool.components.models.idefics.idefics import IdeficsModel
from icltool.engine.query_cost import QueryCost
from icltool.errors import ConfigError
from icltool.execution.progress import SilentProgress
from icltool.store.evaluations import SettingResult
from tests.commands.evaluate.test_interventions import config
from tests.commands.evaluate.vectors import vectors


def test_the_sample_is_fixed_spread_and_without_repetition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "SAMPLE", 8)
    rows = costs.sample(400)
    assert rows.tolist() == sorted(set(rows.tolist())) == costs.sample(400).tolist()
    assert len(rows) == costs.SAMPLE
    assert rows.max() - rows.min() > 100
    assert costs.sample(3).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, False), ({"cost": True}, True), ({"live": True}, True), ({"live": True, "cost": False}, False)],
)
def test_costs_are_measured_where_something_stands_in_unless_told_otherwise(
    workspace: Path, tiny_model: IdeficsModel, tmp_path: Path, options: dict[str, Any], expected: bool
) -> None:
    values = dict(options)
    if values.pop("live", False):
        values["vectors"] = (vectors(tmp_path / "v.safetensors", tiny_model, 0.0),)
    assert costs.should_measure(Settings(Inputs(config(workspace, **values)))) is expected


class Steered:
    """Notes what is in force while a query is measured."""

    def __init__(self) -> None:
        self.now, self.seen = "", list[tuple[int, int, str]]()


class One:
    """Stands in for a worker that always has the same session."""

    def __init__(self, session: Steered, inputs: Inputs) -> None:
        self._session, self.progress, self.inputs = session, SilentProgress(), inputs
        self.used: list[Path | None] = []
        self.weights: Path | None = None

    def use(self, weights: Path | None) -> None:
        self.used.append(weights)

    def session(self) -> Steered:
        return self._session

    @contextmanager
    def applying(self, under: Conditions) -> Iterator[None]:
        self._session.now = under.label
        yield
        self._session.now = ""


def test_settings_take_turns_query_by_query(
    workspace: Path, tiny_model: IdeficsModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = vectors(tmp_path / "v.safetensors", tiny_model, 0.0)
    settings = Settings(
        Inputs(config(workspace, methods=("live", "random"), vectors=(live,), shots=(1, 2), seeds=(0, 1)))
    )
    session, full = Steered(), 2

    def cost(_: Any, requests: Any, *options: Any) -> QueryCost:
        [request] = requests
        shots = len(request.demonstrations)
        session.seen.append((request.query.id, shots, session.now))
        if shots == full:
            raise ConfigError("out of memory", "")
        return QueryCost(1, "cpu", 10.0, None, float(len(session.seen)))

    monkeypatch.setattr(costs, "query_cost", cost)
    monkeypatch.setattr(costs, "SAMPLE", 3)
    measured, faults = costs.measured_together(One(session, settings.inputs), costs.cost_sample(settings))  # type: ignore[arg-type]
    first, other, third = (setting.key for setting in costs.firsts(settings))
    one = measured[first]
    queries = settings.inputs.queries.ids[settings.inputs.query_rows[costs.sample(6)]].tolist()
    turns = [(0, "live"), (1, "")]
    expected = [(query, *turn) for query in queries for turn in turns]
    expected.insert(2, (queries[0], 2, ""))  # which does not fit, and is not tried again
    assert session.seen == expected
    assert (one["queries"], one["prompt_tokens"], one["flops"], one["seconds"]) == (3, 10.0, None, 4.0)
    assert measured[other]["call"] == one["call"]
    assert "out of memory" in str(faults[third])
    assert faults.keys() | measured.keys() == {first, other, third}


def test_no_query_is_begun_after_the_budget_and_all_weights_answer_the_same_ones(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(Inputs(config(workspace, methods=("zero-shot", "random"), shots=(1,))))
    seen: list[int] = []
    clock = iter(range(0, 1000, 10))

    def cost(_: Any, requests: Any, *options: Any) -> QueryCost:
        seen.append(requests[0].query.id)
        return QueryCost(1, "cpu", None, None, 1.0)

    monkeypatch.setattr(costs, "query_cost", cost)
    monkeypatch.setattr(costs, "SAMPLE", 4)
    monkeypatch.setattr(costs, "BUDGET", 40.0)  # 20 seconds for each of the two weights, at 10 a query
    monkeypatch.setattr(costs.time, "monotonic", lambda: next(clock))
    whole = costs.cost_sample(settings)
    one, other = whole.settings
    whole = replace(whole, settings=(one, other._replace(under=Conditions(Path("tuned")))))
    measured, faults = costs.measured_together(One(Steered(), settings.inputs), whole)  # type: ignore[arg-type]
    ids = settings.inputs.queries.ids[whole.query_rows].tolist()
    assert len(ids) == 4
    assert seen == ids[:2] * 2
    assert not faults
    assert [measurement["queries"] for measurement in measured.values()] == [2, 2]


@pytest.mark.parametrize(
    ("calls", "options", "reused"),
    [
        (("a", "a"), {}, True),
        (("a", "b"), {}, False),
        (("a", None), {}, False),
        (("a", ""), {}, False),
        (("a", "b"), {"cost": False}, True),
    ],
)
def test_costs_of_several_calls_are_measured_again(
    workspace: Path, calls: tuple[str | None, str | None], options: dict[str, Any], reused: bool
) -> None:
    settings = Settings(
        Inputs(config(workspace, methods=("zero-shot", "random"), shots=(1,), **{"cost": True, **options}))
    )
    results: dict[Any, SettingResult] = {}
    for setting, call in zip(costs.firsts(settings), calls, strict=True):
        cost = {} if call is None else {"cost": {"call": call} if call else {}}
        results[setting.key] = SettingResult(*setting.key, 6, {}, 1.0, {"digest": setting.digest, **cost})
    results["i2i", 1, 0] = SettingResult("i2i", 1, 0, 6, {}, 1.0, {"cost": {"call": "z"}})
    before = dict(results)
    costs.set_apart(results, settings)
    assert (results == before) is reused
    assert results["i2i", 1, 0].extra["cost"], "it is no setting of this call"
    if not reused:
        assert all(set(r.extra) == {"digest"} for r in list(results.values())[:2])
