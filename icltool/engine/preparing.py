"""Images are read and resized in worker processes, ahead of the device that encodes them.

Each worker process has a thread of this process that sends it a path over a pipe and waits for the picture. That needs
little more than a ThreadPoolExecutor, and does by construction what the ready-made ones have to be talked into. Nobody but
this process holds its end of a pipe, so a worker whose parent was killed reads the end of the pipe and leaves: the workers
of a ProcessPoolExecutor hold both ends of their queue and stay for ever. A worker may be killed at any moment: a pool's
shared result queue can hang after that. Paths may be announced at any time and asked for in another order: a DataLoader's
order is fixed, and its workers hand over large arrays in /dev/shm, which is small in many containers.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any, Literal

Reader = Callable[[str], Any]

#: Images that must be announced before workers are started: they take seconds to import what they need.
WORTH = 64
#: Images that are prepared ahead, for each worker; a 224 x 224 picture takes 0.6 MB, one of 980 x 980 11.5 MB.
AHEAD = 8
MOST_WORKERS = 8
_LEAVES = 5.0  # seconds that a killed worker is waited for
_VARIABLES = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


def worker_count(asked: int | Literal["auto"], device_type: str) -> int:
    """How many worker processes `asked` means. "auto": none where the model runs on the CPU, which they would only take
    from it, else one for each processor that this process may use but one, and MOST_WORKERS at most."""
    if asked != "auto":
        return asked
    if device_type == "cpu":
        return 0
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(MOST_WORKERS, usable - 1)


class ImagePipeline:
    """Prepares announced images ahead of their use, in `workers` processes; with 0 each when it is taken, in this one.

    `reader` is what PreparesImages.image_reader gives. At most `ahead` prepared images wait to be taken. Workers start once
    `worth` images wait, and end with `close`, with this process however it ends, or when one of them dies: then, and where
    they cannot be started, this process goes on alone and `notes` has a line about it. Ctrl-C does not reach them.

    To be used by one thread. Images must not be announced that are not going to be taken: they keep their place until
    others push them out.
    """

    def __init__(self, reader: Reader, workers: int = 0, ahead: int | None = None, worth: int = WORTH) -> None:
        self._reader = reader
        self._workers = workers
        self._ahead = max(1, workers * AHEAD if ahead is None else ahead)
        self._worth = worth
        self._place: dict[str, int] = {}  # of those that wait or are begun
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
        """Whether it is of any use to announce images."""
        return self._workers > 0

    def expect(self, paths: Iterable[str]) -> None:
        """Announces images in the order in which they will be taken. Those that wait already keep their place."""
        if self._workers < 1:
            return
        for path in paths:
            if path not in self._place:
                self._place[path] = self._announced
                self._announced += 1
                self._waiting[path] = None
        self._go_on()

    def ordered(self, paths: Sequence[str]) -> list[str]:
        """The paths as they should be taken: as they were announced, then those that were not."""
        return sorted(paths, key=lambda path: self._place.get(path, self._announced))

    def take(self, path: str) -> Any:
        """The prepared image. Raises what the reader raises for it, here, whoever prepared it."""
        future = self._begun.pop(path, None)
        if self._place.pop(path, None) is not None and future is None:
            del self._waiting[path]
            if len(self._begun) >= self._ahead:  # out of order: those that were meant to come before make way
                passed, unused = self._begun.popitem(last=False)
                del self._place[passed]
                unused.cancel()
        self._go_on()
        # a picture that no worker has begun is faster read here than waited for, while workers start above all
        prepared = None if future is None or future.cancel() else future.result()
        if prepared is not None:
            self.from_workers += 1
            return prepared
        self.from_here += 1
        return self._reader(path)

    def close(self) -> None:
        """Ends the workers. The pipeline can be used on; it then prepares images in this process."""
        self._workers = 0
        self._place.clear()
        self._waiting.clear()
        self._begun.clear()
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def _go_on(self) -> None:
        """Keeps `ahead` images in the hands of the workers; starts them when they are worth it."""
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


class _Pool:
    """Worker processes with a thread for each. `fault` says what went wrong with one of them; None: nothing."""

    def __init__(self, reader: Reader, workers: int) -> None:
        self._pickled = pickle.dumps(reader)
        self._context = multiprocessing.get_context("spawn")  # never fork a process that may hold a GPU
        self._own = threading.local()
        self._lock = threading.Lock()
        self._processes: list[multiprocessing.process.BaseProcess] = []
        self._closed = False
        self.fault: str | None = None
        self._threads = ThreadPoolExecutor(workers, "icltool-images", initializer=self._start)

    def submit(self, path: str) -> Future[Any]:
        """The prepared image to come; None where the worker could not prepare it."""
        return self._threads.submit(self._prepare, path)

    def close(self) -> None:
        """Kills the workers, which hold nothing of worth, and waits until they are gone."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            self._closed = True
            for process in self._processes:
                process.kill()
        self._threads.shutdown(wait=True)  # the threads see the ends of their pipes
        for process in self._processes:
            process.join(_LEAVES)

    def _start(self) -> None:
        """Run by each thread: starts its worker and waits until that is ready; until then the thread takes no path."""
        self._own.pipe = None
        if hasattr(
            signal, "pthread_sigmask"
        ):  # the worker inherits it: Ctrl-C in its first second is not for it either
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            with self._lock:
                if self._closed:
                    return
                here, there = self._context.Pipe()
                process = self._context.Process(target=serve, args=(there, self._pickled), daemon=True)
                try:
                    process.start()
                finally:
                    there.close()
                self._processes.append(process)
            here.recv()
            self._own.pipe = here
        except Exception as error:  # also what starting raises in a script without `if __name__ == "__main__"`
            self._failed(f"a process to prepare images could not be started ({type(error).__name__} {error})")

    def _prepare(self, path: str) -> Any:
        pipe: Connection | None = self._own.pipe
        if pipe is None or self.fault is not None:
            return None
        try:
            pipe.send(path)
            return pipe.recv()
        except (OSError, EOFError):
            self._own.pipe = None
            pipe.close()
            self._failed("a process that prepared images has died")
            return None

    def _failed(self, why: str) -> None:
        if not self._closed and self.fault is None:
            self.fault = why


def serve(pipe: Connection, pickled: bytes) -> None:
    """A worker process: prepares one path after the other until the pipe ends. None stands for one that it could not
    prepare: the parent does it again, and meets the error where it belongs."""
    with contextlib.suppress(ValueError, OSError):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.update(_VARIABLES)  # before the reader brings its libraries
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    with contextlib.suppress(EOFError, OSError):  # the parent is gone, or wants no more
        try:
            reader: Reader = pickle.loads(pickled)
        except Exception:  # the parent, who sees the end of the pipe, says so
            return
        torch = sys.modules.get("torch")
        if torch is not None:  # where the main module brought it, the environment came too late
            torch.set_num_threads(1)
        pipe.send(None)
        while True:
            path = pipe.recv()
            try:
                prepared = reader(path)
            except Exception:
                prepared = None
            pipe.send(prepared)
