"""Learning rates: the formulas, and what a real run uses at every step."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import pytest

from icltool.components.learners.captioner.options import CaptionerOptions
from icltool.components.learners.captioner.schedules import Moment, rate
from icltool.contracts import Example
from icltool.contracts.options import options_from
from tests.components.learners.captioner.sets import fine_tuned, fine_tuning_set
from tests.components.learners.captioner.test_resuming import Ending

#: 35 captions in batches of 4: 9 batches an epoch, 5 steps of two batches, the last of one.
BATCHES, STEPS, EPOCHS = 9, 5, 3


def expected(kind: str, options: dict[str, Any]) -> list[float]:
    """The rates of all steps, written down once more: batch by batch and step by step."""
    lr, low, start, rates = options["lr"], options.get("min_lr", 0.0), options.get("warmup_lr", 0.0), []
    total = STEPS * EPOCHS
    for epoch in range(EPOCHS):
        used = 0.0
        for batch in range(BATCHES):
            if kind == "blip2":  # the published training sets the rate before every batch
                if epoch == 0:
                    used = min(lr, start + (lr - start) * batch / options["warmup_steps"])
                else:
                    used = (lr - low) * 0.5 * (1.0 + math.cos(math.pi * epoch / EPOCHS)) + low
            if batch % 2 == 0 and batch != BATCHES - 1:
                continue
            number = len(rates)
            if kind != "blip2":
                rise = round(options["warmup"] * total)
                if number + 1 <= rise:
                    used = start + (lr - start) * (number + 1) / rise
                elif kind == "constant":
                    used = lr
                elif kind == "polynomial":
                    used = lr + (low - lr) * (number - rise) / (total - rise)
                else:
                    used = low + (lr - low) * (1 + math.cos((number - rise) / (total - rise) * math.pi)) / 2
            rates.append(used)
    return rates


def recorded(folder: Path) -> list[float]:
    """The rate of each step from the logs, those of an interrupted run included."""
    actual: dict[int, float] = {}
    for log in (folder / "logs").glob("metrics*.csv"):
        for row in csv.DictReader(log.open()):
            if row.get("lr"):
                known = actual.setdefault(int(row["step"]), float(row["lr"]))
                assert known == float(row["lr"])  # steps that were made twice had the same rate
    assert sorted(actual) == list(range(1, STEPS * EPOCHS + 1))
    return [actual[step] for step in sorted(actual)]


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("blip2", {"lr": 1e-3, "warmup_lr": 1e-8, "warmup_steps": 6}),
        ("blip2", {"lr": 1e-3, "min_lr": 1e-5, "warmup_steps": 20}),
        ("polynomial", {"lr": 5e-4, "min_lr": 1e-7, "warmup": 0.25}),
        ("cosine", {"lr": 5e-4, "min_lr": 1e-5, "warmup_lr": 1e-6, "warmup": 0.2}),
        ("constant", {"lr": 5e-4, "warmup": 0.4}),
    ],
)
def test_a_run_uses_the_formulas_at_every_step(
    examples: list[Example], tmp_path: Path, kind: str, options: dict[str, Any]
) -> None:
    options = {**options, "schedule": kind, "epochs": EPOCHS, "accumulate": 2, "save_every": 2}
    options["trainer"] = {"log_every_n_steps": 1}
    with pytest.raises(KeyboardInterrupt):
        fine_tuned(fine_tuning_set(examples), tmp_path, Ending(12), **options)
    fine_tuned(fine_tuning_set(examples), tmp_path, **options)
    assert recorded(tmp_path) == pytest.approx(expected(kind, options), rel=1e-12)


def test_blip2_rises_over_a_thousand_batches_as_published() -> None:
    options = CaptionerOptions(lr=1e-5, warmup_lr=1e-8, schedule="blip2", epochs=5)
    at = [rate(options, Moment(0, batch, batch, 10**5)) for batch in (0, 500, 1000, 4000)]
    assert at == pytest.approx([1e-8, (1e-8 + 1e-5) / 2, 1e-5, 1e-5])
    later = [rate(options, Moment(epoch, 17, 10**4, 10**5)) for epoch in range(1, 5)]
    assert later == pytest.approx([0.5e-5 * (1 + math.cos(math.pi * epoch / 5)) for epoch in range(1, 5)])


def test_rates_at_the_edges() -> None:
    falling = CaptionerOptions(lr=1.0, min_lr=0.1, schedule="polynomial", warmup=0.0)
    assert rate(falling, Moment(0, 0, 0, 1)) == 1.0
    assert rate(falling, Moment(0, 0, 10, 10)) == pytest.approx(0.1)
    steps = CaptionerOptions(lr=1.0, schedule="cosine", warmup_steps=4, warmup=0.9)
    assert [rate(steps, Moment(0, s, s, 8)) for s in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rate(steps, Moment(0, 0, 7, 4)) >= 0  # a warm-up that is longer than the training


@pytest.mark.parametrize("schedule", ["cosine", "polynomial", "constant"])
def test_a_short_training_reaches_its_rate(schedule: str) -> None:
    options = options_from("captioner", CaptionerOptions, {"schedule": schedule, "warmup_steps": 1000, "lr": 1e-3})
    rates = [rate(options, Moment(0, step, step, 20)) for step in range(20)]
    assert max(rates) == pytest.approx(1e-3)
    assert rates[0] < rates[5] < rates[9]
