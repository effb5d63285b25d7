"""The cost of one query that a model answers alone: tokens, floating-point operations, seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

from icltool.contracts import CountsTokens, Model, ScoringRequest, SupportsPrefixCache, Task
from icltool.engine.choices import rank_choices
from icltool.engine.devices import device_of, device_type
from icltool.engine.session import Session

if TYPE_CHECKING:
    from torch.utils.flop_counter import FlopCounterMode

#: Runs of a query that are timed, at most, since other work on the machine makes some of them longer; and the seconds from
#: which one is enough.
REPEATS, LONG = 3, 1.0


@dataclass(frozen=True)
class QueryCost:
    """Over `queries` queries on `device`: the mean prompt tokens and FLOPs, and the median seconds from a query to its answer.
    None for unknown figures."""

    queries: int
    device: str
    prompt_tokens: float | None
    flops: float | None
    seconds: float


def query_cost(
    session: Session,
    requests: Sequence[ScoringRequest],
    ranked: bool = False,
    count_flops: bool = True,
    tick: Callable[[], None] = lambda: None,
) -> QueryCost:
    """Answers each request alone, without caches, with the session's generation options; with `ranked` by ranking its choices,
    each computed with the whole prompt.

    For each request FLOPs are counted first, which also warms up; then the shortest of REPEATS runs is timed, or a single run
    if it takes longer than LONG. `tick` is called after each request. Raises ConfigError if a prompt does not fit in memory.
    """
    alone = session.plain()
    model = alone.model
    assert model is not None
    flops: list[int] = []
    seconds: list[float] = []
    for request in requests:
        with counted_flops() as counter:
            _answer(alone, request, ranked)
        flops.append(int(counter.get_total_flops()))
        timed = [_seconds(alone, model, request, ranked)]
        while timed[0] < LONG and len(timed) < REPEATS:
            timed.append(_seconds(alone, model, request, ranked))
        seconds.append(min(timed))
        tick()
    tokens = prompt_tokens(session.task, model, requests)
    mean_tokens = None if tokens is None else fmean(tokens)
    return QueryCost(
        len(requests), device_name(model), mean_tokens, fmean(flops) if count_flops else None, median(seconds)
    )


def pooled(parts: Sequence[QueryCost]) -> QueryCost:
    """The cost over all queries; a figure that is unknown for one part is unknown."""
    tokens, flops = [part.prompt_tokens for part in parts], [part.flops for part in parts]
    return QueryCost(
        sum(part.queries for part in parts),
        parts[0].device,
        _mean(tokens),
        _mean(flops),
        median(part.seconds for part in parts),
    )


def _mean(figures: Sequence[float | None]) -> float | None:
    known = [figure for figure in figures if figure is not None]
    return fmean(known) if len(known) == len(figures) else None


@contextmanager
def counted_flops() -> Iterator[FlopCounterMode]:
    """Counts 2 FLOPs for each multiplication with its addition in matrix products, convolutions and attention (without a
    mask's gaps), whatever the device. Compiled parts run as they were written meanwhile: others are not seen."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

    # the CPU's kernel of attention, which newer releases of torch do not count
    def attention(query: Any, key: Any, value: Any, *rest: Any, **options: Any) -> int:
        return int(sdpa_flop_count(query, key, value))  # type: ignore[no-untyped-call]

    kernels = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention}
    compiled = "torch._dynamo" in sys.modules  # which takes seconds to import for nothing
    as_written = torch.compiler.set_stance("force_eager") if compiled else nullcontext()
    with as_written, FlopCounterMode(display=False, custom_mapping=kernels) as counter:
        yield counter


def prompt_tokens(task: Task | str, model: Model, requests: Sequence[ScoringRequest]) -> list[int] | None:
    """The number of tokens of each request's prompt without the answer; None if the model counts no tokens."""
    prompts = [replace(model.prompt(task, r.demonstrations, r.query), target="") for r in requests]
    if isinstance(model, CountsTokens):
        return model.token_counts(prompts)
    if isinstance(model, SupportsPrefixCache):
        return [len(tokens.ids) for tokens in model.prompt_tokens(prompts, False)]
    return None


def device_name(model: Model) -> str:
    """The name of the model's device, for which the seconds hold."""
    import torch

    device: Any = device_of(model)
    if device_type(model) == "cuda":
        return str(torch.cuda.get_device_name(device))
    if device_type(model) != "cpu":
        return str(device)
    threads = torch.get_num_threads()
    return f"cpu, {threads} thread{'s' if threads > 1 else ''}"


def _seconds(session: Session, model: Model, request: ScoringRequest, ranked: bool) -> float:
    _wait(model)
    started = time.perf_counter()
    _answer(session, request, ranked)
    _wait(model)
    return time.perf_counter() - started


def _answer(session: Session, request: ScoringRequest, ranked: bool) -> None:
    if ranked:
        rank_choices(session, [request])
    else:
        session.generations([request])


def _wait(model: Model) -> None:
    """Waits until the device is idle."""
    if device_type(model) == "cuda":
        import torch

        device: Any = device_of(model)
        torch.cuda.synchronize(device)
