"""Reads and resizes images in worker processes, ahead of the device that encodes them.

Each worker process has a thread of this process that sends it a path over a pipe and waits for the image. That needs little
more than a ThreadPoolExecutor and subprocess, and avoids problems of the standard pools. Only this process holds its ends
of the pipes, so a worker whose parent was killed reads end of file and exits (some seconds later if it is still importing),
whereas workers of a ProcessPoolExecutor hold both ends of their queue and stay for ever. A worker may be killed at any
moment; a pool's shared result queue can hang after that. The main module is not imported again, so that a script needs no
`if __name__ == "__main__"`. Paths may be announced at any time and taken in another order; a DataLoader's order is fixed,
and its workers pass large arrays through /dev/shm, which is small in many containers. The pipes carry pickles between this
process and its own children only, as in multiprocessing; no file is unpickled.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal

Reader = Callable[[str], Any]

#: The number of images to announce before workers are started: they take seconds to import what they need.
WORTH = 64
#: Images prepared ahead per worker until the size of one is known; then as many as fit into this many bytes (a 224 x
#: 224 image takes 0.6 MB, one of 980 x 980 11.5 MB), at least two per worker.
AHEAD, AHEAD_BYTES = 8, 512 << 20
MOST_WORKERS = 8
_LEAVES = 5.0  # seconds to wait for a killed worker
_VARIABLES = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "CUDA_VISIBLE_DEVICES": "",
    "PYTHONSAFEPATH": "1",
}


def worker_count(workers: int | Literal["auto"], device_type: str) -> int:
    """The number of worker processes. "auto": none if the model runs on the CPU, for which they would compete, else one
    fewer than the usable cores, and at most MOST_WORKERS."""
    if workers != "auto":
        return workers
    if device_type == "cpu":
        return 0
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(MOST_WORKERS, usable - 1)


#: Exceptions of communication with a process that has ended or could not start.
_ENDED = (OSError, EOFError, pickle.UnpicklingError, ValueError)


class ImagePipeline:
    """Prepares announced images ahead of their use in `workers` processes; with 0 workers, each in this process when it is
    taken. `reader` is the result of PreparesImages.image_reader. At most `ahead` prepared images wait to be taken. Workers
    start once `worth` images are waiting, and end with `close`, with this process however it ends, or when one of them
    dies. In that case, or if they cannot be started (for example, because the main module defines the reader's class), this
    process continues alone and `notes` has a line about it. Ctrl-C does not reach them. For use by one thread. Do not
    announce images that will not be taken: they occupy their place until others displace them.
    """

    def __init__(self, reader: Reader, workers: int = 0, ahead: int | None = None, worth: int = WORTH) -> None:
        self._reader = reader
        self._workers = workers
        self._ahead = max(1, workers * AHEAD if ahead is None else ahead)
        self._by_size = ahead is None
        self._worth = worth
        self._place: dict[str, int] = {}  # of those that are waiting or in progress
        self._announced = 0
        self._waiting: OrderedDict[str, None] = OrderedDict()
        self._begun: OrderedDict[str, Future[Any]] = OrderedDict()
        self._pool: _Pool | None = None
        self.notes: list[str] = []
        #: Images that workers prepared, and images that this process prepared itself.
        self.from_workers = 0
        self.from_here = 0

    @property
    def works_ahead(self) -> bool:
        """Whether announcing images has an effect."""
        return self._workers > 0

    def expect(self, paths: Iterable[str]) -> None:
        """Announces images in the order in which they will be taken. Those that are already waiting keep their place."""
        if self._workers < 1:
            return
        for path in paths:
            if path not in self._place:
                self._place[path] = self._announced
                self._announced += 1
                self._waiting[path] = None
        self._go_on()

    def ordered(self, paths: Sequence[str]) -> list[str]:
        """The paths in the order in which to take them: announced ones in their order, then the others."""
        return sorted(paths, key=lambda path: self._place.get(path, self._announced))

    def take(self, path: str) -> Any:
        """The prepared image. Raises what the reader raises for it, in this process, even if a worker prepared it."""
        future = self._begun.pop(path, None)
        if self._place.pop(path, None) is not None and future is None:
            del self._waiting[path]
            if len(self._begun) >= self._ahead:  # out of order: images announced before this one give way
                passed, unused = self._begun.popitem(last=False)
                del self._place[passed]
                unused.cancel()
        self._go_on()
        # reading an image that no worker has begun is faster than waiting, especially while workers start
        prepared = None if future is None or future.cancel() else future.result()
        if prepared is not None:
            self.from_workers += 1
            if self._by_size:
                self._by_size = False
                self._ahead = max(2 * self._workers, AHEAD_BYTES // max(1, _size(prepared)))
            return prepared
        self.from_here += 1
        return self._reader(path)

    def close(self) -> None:
        """Ends the workers. The pipeline remains usable and prepares images in this process."""
        self._workers = 0
        self._place.clear()
        self._waiting.clear()
        self._begun.clear()
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def _go_on(self) -> None:
        """Keeps the workers supplied with `ahead` images; starts them when it is worth it."""
        if self._pool is None and (self._workers < 1 or len(self._waiting) < self._worth):
            return
        if self._pool is None:
            try:
                self._pool = _Pool(self._reader, self._workers)
            except (pickle.PicklingError, TypeError, AttributeError) as error:
                self._alone(f"the model's image reader cannot be pickled ({error})")
                return
        if self._pool.fault is not None:
            self._alone(self._pool.fault)
            return
        while self._waiting and len(self._begun) < self._ahead:
            path, _ = self._waiting.popitem(last=False)
            self._begun[path] = self._pool.submit(path)

    def _alone(self, why: str) -> None:
        self.notes.append(f"{why}: images are prepared in the main process")
        self.close()


def _size(prepared: Any) -> int:
    """Bytes of a prepared image, an array or a mapping of arrays."""
    parts = prepared.values() if hasattr(prepared, "values") else [prepared]
    return sum(int(getattr(part, "nbytes", 0)) for part in parts)


class _Pool:
    """Worker processes with a thread for each. `ready` of them have started. `fault` describes the failure of a worker;
    None if there is none."""

    def __init__(self, reader: Reader, workers: int) -> None:
        self._reader = pickle.dumps(reader)
        self._own = threading.local()
        self._lock = threading.Lock()
        self._workers: list[_Worker] = []
        self._closed = False
        self.ready = 0
        self.fault: str | None = None
        self._threads = ThreadPoolExecutor(workers, "icltool-images", initializer=self._start)

    @property
    def processes(self) -> list[int]:
        """Ids of the processes that were started."""
        return [worker.process.pid for worker in self._workers]

    def submit(self, path: str) -> Future[Any]:
        """A future of the prepared image; its result is None if the worker could not prepare it."""
        return self._threads.submit(self._prepare, path)

    def close(self) -> None:
        """Kills the workers, which hold no state worth keeping, and waits until they are gone."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            self._closed = True
            for worker in self._workers:
                worker.process.kill()
        self._threads.shutdown(wait=True)  # the threads read end of file from their pipes
        for worker in self._workers:
            worker.close()

    def _start(self) -> None:
        """Run by each thread: starts its worker and waits until it is ready; until then the thread takes no path."""
        self._own.worker = None
        if hasattr(
            signal, "pthread_sigmask"
        ):  # the worker inherits it: Ctrl-C must not reach it in its first second either
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            with self._lock:
                if self._closed:
                    return
                worker = _Worker()
                self._workers.append(worker)
            worker.ask(self._reader)
            self._own.worker = worker
            with self._lock:
                self.ready += 1
        except _ENDED as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else "it ended at once"
            self._failed(f"a process to prepare images could not be started ({why})")

    def _prepare(self, path: str) -> Any:
        worker: _Worker | None = self._own.worker
        if worker is None or self.fault is not None:
            return None
        try:
            return worker.ask(path)
        except _ENDED:
            self._own.worker = None
            self._failed("a process that prepared images has died")
            return None

    def _failed(self, why: str) -> None:
        if not self._closed and self.fault is None:
            self.fault = why


class _Worker:
    """A process that runs `serve`. Its messages are pickled, by this code for this code."""

    def __init__(self) -> None:
        paths = os.pathsep.join(path for path in sys.path if path)
        self.process = subprocess.Popen(
            [sys.executable or "python", "-c", f"from {__name__} import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # an error that matters also occurs in the parent
            env={**os.environ, **_VARIABLES, "PYTHONPATH": paths},
        )

    def ask(self, message: Any) -> Any:
        """The answer. Raises one of _ENDED if the process has ended."""
        to, back = self.process.stdin, self.process.stdout
        assert to is not None
        assert back is not None
        pickle.dump(message, to, pickle.HIGHEST_PROTOCOL)
        to.flush()
        return pickle.load(back)

    def close(self) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_LEAVES)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):  # data that could no longer be sent
                    pipe.close()


def serve() -> None:
    """A worker process: takes the pickled reader, then prepares one path after the other until its input ends. It answers
    None for an image that it could not prepare: the parent prepares it again and raises the error in the right place."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # libraries must not print into the answers
    with contextlib.suppress(EOFError, OSError):  # the parent has exited or closed the pipe
        reader: Reader = pickle.loads(pickle.load(sys.stdin.buffer))
        prepared = None
        while True:
            pickle.dump(prepared, answers, pickle.HIGHEST_PROTOCOL)
            answers.flush()
            path = pickle.load(sys.stdin.buffer)
            try:
                prepared = reader(path)
            except Exception:
                prepared = None
