"""LIVE: what keeping the teacher's answers saves, what gradient checkpointing saves, and what vectors cost at evaluation."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from icltool.components.interventions.shift import shifting
from icltool.components.learners.interventions.checkpointing import checkpointed
from icltool.components.learners.interventions.draws import Draws
from icltool.components.learners.interventions.module import InterventionModule
from icltool.components.learners.live.learner import Live
from icltool.components.learners.live.options import LiveOptions
from icltool.components.learners.live.vectors import LiveVectors
from icltool.contracts import GenerationOptions
from icltool.engine.query_cost import counted_flops
from tests.benchmarks.engine.data import make_run
from tests.benchmarks.engine.models import adapter
from tests.components.learners.interventions.sets import intervention_set
from tests.components.learners.synthetic import RecordingProgress

SIZE, EXAMPLES, SHOTS, BATCH = "60m", 24, 16, 8
#: Rounds of the comparison of answers with and without vectors, in turn.
ROUNDS = 7

pytestmark = pytest.mark.benchmark


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return adapter(SIZE, tmp_path_factory.mktemp("model"), torch.device("cpu"), "float32")


@pytest.fixture(scope="module")
def data(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return made_set(model, tmp_path_factory.mktemp("images"))


def made_set(model: Any, folder: Path) -> Any:
    run = make_run(folder, 1, max(64, EXAMPLES))
    training_set = intervention_set(model, run.anchors[0][1][:EXAMPLES])
    training_set.features([e.image for e in run.anchors[0][1][:EXAMPLES]])  # encoding is the same on both sides, once
    return training_set


class EpochClock(RecordingProgress):
    """When each epoch ended."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []

    def detail(self, text: str) -> None:
        if text.startswith("epoch"):
            self.times.append(time.perf_counter())

    def epochs(self) -> list[float]:
        """Seconds of each epoch but the first."""
        return [b - a for a, b in zip(self.times, self.times[1:], strict=False)]


def test_an_epoch_with_the_teacher_s_answers_kept(
    data: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Prints seconds per epoch of both, the first one apart. What is asserted: equal losses where all is kept."""
    medians, losses = {}, {}
    for draws in (None, 1):
        clock, teacher_options = EpochClock(), {} if draws is None else {"teacher_draws": draws, "teacher_top_k": 0}
        learner = Live(
            LiveOptions(
                shots=SHOTS,
                max_train_size=EXAMPLES,
                epochs=3,
                batch_size=BATCH,
                accumulate=1,
                lr=1e-2,
                **teacher_options,
            )
        )
        outcome = learner.learn_intervention(data, tmp_path / str(draws), 0, clock)
        medians[draws], losses[draws] = statistics.median(clock.epochs()), outcome.history[0]["loss"]
    assert losses[1] == pytest.approx(losses[None], rel=1e-5)  # the first epoch has the same demonstrations
    with capsys.disabled():
        print(
            f"\nLIVE, an epoch of {EXAMPLES} examples, {SHOTS}-shot teacher: {medians[None]:.2f} s with fresh demonstrations, "
            f"{medians[1]:.2f} s with kept answers (after the first epoch): {medians[None] / medians[1]:.1f} x"
        )


def peak_allocation(work: Callable[[], Any]) -> int:
    """The most bytes that torch held on the CPU at a time in `work`, above what it held before."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]  # type: ignore[union-attr]
    held = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


def test_memory_with_gradient_checkpointing(model: Any, data: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Prints the most memory that a step takes above the weights, of both. What is asserted: equal gradients, less memory."""
    peaks, gradients = {}, []
    for checkpointing in (True, False):
        options = LiveOptions(shots=1, grad_checkpointing=checkpointing)
        torch.manual_seed(0)
        module = InterventionModule(LiveVectors(model, options), data, Draws(data, EXAMPLES, 0), options, 0)
        module.distils = False  # the teacher keeps nothing for a backward pass

        def step(module: InterventionModule = module) -> None:
            module.backward(module.total(module.losses(range(BATCH))))

        with checkpointed(model.checkpointed_layers() if checkpointing else ()):
            peaks[checkpointing] = peak_allocation(step)
        gradients.append(module.student.vectors.grad)
    assert torch.allclose(*gradients, rtol=1e-4, atol=1e-7)
    assert peaks[True] < peaks[False]
    with capsys.disabled():
        print(
            f"\nLIVE, a step of {BATCH} examples: {peaks[False] / 2**20:.0f} MiB above the weights, with gradient "
            f"checkpointing {peaks[True] / 2**20:.0f} MiB: {peaks[True] / peaks[False]:.2f} of it"
        )


def _seconds(work: Callable[[], Any]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


class _Operations(TorchDispatchMode):
    """Counts the operations that torch runs."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def _counted(work: Callable[[], Any]) -> tuple[int, int]:
    """(floating-point operations of matrix products, operations of torch)."""
    with counted_flops() as flops:
        work()
    with _Operations() as operations:
        work()
    return flops.get_total_flops(), operations.count


def test_answers_with_vectors_cost_what_plain_zero_shot_costs(
    model: Any, data: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Prints the ratio of processor time, medians over rounds in turn; both write the same number of tokens. What is asserted:
    FLOPs within 3 %, and few operations beside them for each layer."""
    prompts = Draws(data, EXAMPLES, 0).plain_prompts(range(BATCH))
    features = data.features([path for p in prompts for path in p.images])
    options = GenerationOptions(max_new_tokens=10, num_beams=3)
    shifts = 1e-4 * torch.randn(model.base_model().sites, model.base_model().width)  # too small for other answers

    def plain() -> list[str]:
        return list(model.generate(prompts, options, BATCH, features))

    def shifted() -> list[str]:
        with shifting(model, shifts.__getitem__):
            return list(model.generate(prompts, options, BATCH, features))

    assert plain() == shifted()
    flops, operations = zip(*(_counted(work) for work in (plain, shifted)), strict=True)
    assert flops[0] <= flops[1] <= 1.03 * flops[0]
    layers = model.base_model().sites
    assert operations[1] - operations[0] <= 9 * layers * options.max_new_tokens
    times: dict[str, list[float]] = {"plain": [], "shifted": []}
    for _ in range(ROUNDS):
        times["plain"].append(_seconds(plain))
        times["shifted"].append(_seconds(shifted))
    ratios = [b / a for a, b in zip(times["plain"], times["shifted"], strict=True)]
    with capsys.disabled():
        print(
            f"\nanswers with vectors: {flops[1] / flops[0]:.4f} x the FLOPs, {operations[1] / operations[0] - 1:.1%} more "
            f"operations, {statistics.median(ratios):.3f} x the processor time of plain zero-shot "
            f"({min(ratios):.3f} to {max(ratios):.3f} in {ROUNDS} rounds, 59 M parameters, {BATCH} queries, 3 beams)"
        )
