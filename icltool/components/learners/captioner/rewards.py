"""Rewards of captions, computed in parallel with the training."""

from __future__ import annotations

import multiprocessing
import pickle
import signal
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import numpy as np

from icltool.contracts import Float64Array, Metric, too_few_references
from icltool.errors import ConfigError

References = Sequence[Sequence[str]]
#: Images whose captions are scored at once. Fixed, so that rewards do not depend on the number of processes.
CHUNK = 4

_metric: Metric | None = None  # a worker's own


class Rewards:
    """A metric fitted on the references of the training examples, in `workers` processes, or in this one with 0.

    A process receives the fitted metric if it can be pickled, or else fits its own on the same references. `close` ends the
    processes. Raises ConfigError for a metric for which neither is possible.
    """

    def __init__(
        self, make: Callable[[str], Metric], name: str, corpus: Callable[[], Iterable[Sequence[str]]], workers: int
    ) -> None:
        if (fault := too_few_references(make(name), corpus)) is not None:
            raise fault
        self._pool: ProcessPoolExecutor | None = None
        self._metric: Metric | None = None
        if workers:
            start, arguments = _sendable(make, name, corpus)
            context = multiprocessing.get_context("spawn")  # a fork would share the device
            self._pool = ProcessPoolExecutor(workers, context, start, arguments)
        else:
            self._metric = _fitted(make, name, corpus())

    def submit(self, captions: Sequence[Sequence[str]], references: References) -> list[Future[Float64Array]]:
        """Starts scoring the captions of each image against its references."""
        jobs = []
        for low in range(0, len(captions), CHUNK):
            own = captions[low : low + CHUNK]
            own_references = [
                known for texts, known in zip(own, references[low : low + CHUNK], strict=True) for _ in texts
            ]
            jobs.append(self._begin([text for texts in own for text in texts], own_references))
        return jobs

    def _begin(self, captions: list[str], references: References) -> Future[Float64Array]:
        if self._pool is not None:
            try:
                return self._pool.submit(_score, captions, references)
            except BrokenProcessPool as error:
                raise _died() from error
        assert self._metric is not None
        done: Future[Float64Array] = Future()
        done.set_result(self._metric.score(captions, references))
        return done

    def result(self, jobs: Sequence[Future[Float64Array]]) -> Float64Array:
        """float64, one reward for each caption, in order. Raises ConfigError if a process has died."""
        try:
            return np.concatenate([job.result() for job in jobs]) if jobs else np.zeros(0)
        except BrokenProcessPool as error:
            raise _died() from error

    def __enter__(self) -> Rewards:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the processes; unfinished work is dropped."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)


def _died() -> ConfigError:
    return ConfigError(
        "a process that computes rewards has died",
        "it may have run out of memory; use --option reward_workers=0 to compute rewards in the training's process",
    )


def _fitted(make: Callable[[str], Metric], name: str, corpus: Iterable[Sequence[str]]) -> Metric:
    metric = make(name)
    metric.fit(corpus)
    return metric


def _sendable(
    make: Callable[[str], Metric], name: str, corpus: Callable[[], Iterable[Sequence[str]]]
) -> tuple[Callable[..., None], tuple[object, ...]]:
    """A process's initialiser with its arguments: a fitted metric, or what is needed to fit one."""
    metric = _fitted(make, name, corpus())
    if _picklable(metric):
        return _start, (metric,)
    if _picklable(make):
        return _start_from, (make, name, [tuple(texts) for texts in corpus()])
    raise ConfigError(f"metric {name} cannot be sent to other processes", "use --option reward_workers=0")


def _picklable(value: object) -> bool:
    try:
        pickle.dumps(value)
    except (pickle.PicklingError, TypeError, AttributeError, NotImplementedError):
        return False
    return True


def _start(metric: Metric) -> None:
    """Runs in a worker. Ignores Ctrl-C and SIGTERM, which are for the training's process; that process ends this one."""
    global _metric
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _metric = metric


def _start_from(make: Callable[[str], Metric], name: str, corpus: Iterable[Sequence[str]]) -> None:
    _start(_fitted(make, name, corpus))


def _score(captions: Sequence[str], references: References) -> Float64Array:
    assert _metric is not None
    return _metric.score(captions, references)
