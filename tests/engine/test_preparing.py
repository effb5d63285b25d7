"""Images from workers are those of this process, in any order, and no worker stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import icltool
from icltool.engine import preparing
from icltool.engine.preparing import ImagePipeline, worker_count
from icltool.errors import DataError
from tests.engine import readers
from tests.engine.readers import NumberReader, SurroundingsReader, UnimportableReader
from tests.processes import PATIENCE, Child, is_running, until


def take(pipeline: ImagePipeline, number: int) -> int:
    """Takes the image, which must be the right one; the process that prepared it."""
    prepared = pipeline.take(str(number))
    assert prepared["pixels"].tolist() == [number] * 3
    return int(prepared["process"])


def ready(pipeline: ImagePipeline) -> None:
    """Waits until all workers are there and each image that they may prepare now is prepared."""
    until(lambda: pipeline._pool is not None and pipeline._pool.ready == pipeline._workers)
    until(lambda: all(future.done() for future in pipeline._begun.values()))


def test_without_workers_all_is_prepared_here() -> None:
    pipeline = ImagePipeline(NumberReader())
    assert not pipeline.works_ahead
    pipeline.expect(map(str, range(500)))
    assert {take(pipeline, n) for n in (3, 1, 999)} == {os.getpid()}
    assert (pipeline.from_workers, pipeline.from_here) == (0, 3)
    assert pipeline._pool is None
    with pytest.raises(DataError, match="image bad cannot be read"):
        pipeline.take("bad")


def test_workers_prepare_what_is_announced_in_any_order() -> None:
    pipeline = ImagePipeline(NumberReader(0.001), workers=2, ahead=6, worth=10)
    rng = np.random.default_rng(0)
    pipeline.expect(map(str, range(9)))
    assert pipeline._pool is None, "nine images are not worth workers"
    pipeline.expect(map(str, range(5, 60)))
    ready(pipeline)
    processes = {take(pipeline, n) for n in range(6)}
    assert os.getpid() not in processes, "they were ready"
    for _ in range(300):
        if rng.random() < 0.3:
            start = int(rng.integers(0, 100))
            pipeline.expect(map(str, range(start, start + int(rng.integers(1, 20)))))
        else:
            processes.add(take(pipeline, int(rng.integers(0, 120))))
        assert len(pipeline._begun) <= 6
        assert len(pipeline._place) == len(pipeline._begun) + len(pipeline._waiting)
    while len(processes - {os.getpid()}) < 2:
        pipeline.expect(map(str, range(120, 130)))
        ready(pipeline)
        processes.update(take(pipeline, n) for n in range(120, 130))
    assert pipeline.notes == []
    assert pipeline._pool is not None
    workers = pipeline._pool.processes
    pipeline.close()
    assert take(pipeline, 7) == os.getpid()
    assert not any(_exists(worker) for worker in workers)


def test_images_are_ordered_as_announced() -> None:
    pipeline = ImagePipeline(NumberReader(), workers=1, ahead=2, worth=100)
    pipeline.expect(["5", "1", "9", "5", "3"])
    assert pipeline.ordered(["3", "8", "1", "9", "7", "5"]) == ["5", "1", "9", "3", "8", "7"]
    take(pipeline, 5)
    assert pipeline.ordered(["5", "1"]) == ["1", "5"]
    pipeline.close()


def test_an_unreadable_image_is_an_error_only_where_it_is_taken() -> None:
    pipeline = ImagePipeline(NumberReader(), workers=1, worth=1)
    pipeline.expect(["bad 1", "1", "bad 2", "2"])
    ready(pipeline)
    assert os.getpid() not in {take(pipeline, 1), take(pipeline, 2)}
    with pytest.raises(DataError) as caught:
        pipeline.take("bad 2")
    assert (caught.value.message, caught.value.hint) == ("image bad 2 cannot be read", "restore it")
    assert pipeline.notes == []
    pipeline.close()


def test_a_worker_has_one_thread_and_no_gpu() -> None:
    pipeline = ImagePipeline(SurroundingsReader(), workers=1, worth=1)
    pipeline.expect(["1"])
    ready(pipeline)
    prepared = pipeline.take("1")
    pipeline.close()
    assert prepared.pop("process") != os.getpid()
    assert prepared == {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def test_a_dead_worker_costs_time_and_nothing_else() -> None:
    pipeline = ImagePipeline(NumberReader(0.01), workers=2, worth=1)
    pipeline.expect(map(str, range(100)))
    ready(pipeline)
    assert pipeline._pool is not None
    workers = pipeline._pool.processes
    os.kill(workers[0], signal.SIGKILL)
    for number in range(1000):
        take(pipeline, number)
        pipeline.expect([str(number + 100)])
        if pipeline.notes:
            break
    assert pipeline.notes == ["a process that prepared images has died: images are prepared in the main process"]
    assert not any(_exists(worker) for worker in workers)


@pytest.mark.parametrize(
    ("reader", "note"), [(lambda path: path, "cannot be pickled"), (UnimportableReader(), "could not be started")]
)
def test_a_reader_that_cannot_travel_stays_here(
    reader: Callable[[str], str], note: str, capfd: pytest.CaptureFixture[str]
) -> None:
    pipeline = ImagePipeline(reader, workers=2, worth=1)
    pipeline.expect(map(str, range(10**4)))
    until(lambda: pipeline.take("0") == "0" and bool(pipeline.notes))
    assert len(pipeline.notes) == 1
    assert note in pipeline.notes[0]
    assert capfd.readouterr().err == ""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked up in /proc")
@pytest.mark.parametrize("ending", ["kill at once", "kill", "Ctrl-C at once", "Ctrl-C"])
def test_no_worker_stays_behind(ending: str, tmp_path: Path) -> None:
    """The parent is killed, or the terminal sends Ctrl-C to all, while workers start and when they work."""
    file = tmp_path / "workers"

    def work() -> None:
        sys.argv = ["readers", str(file), "start" if "at once" in ending else "wait"]
        readers.main()

    with Child(work) as child:
        until(lambda: file.exists() or child.poll() is not None)
        workers = [int(word) for word in file.read_text().split()]
        assert all(map(is_running, workers))
        if ending.startswith("kill"):
            child.send_signal(signal.SIGKILL)
        else:
            os.killpg(child.pid, signal.SIGINT)
        assert child.wait() == (-signal.SIGKILL if ending.startswith("kill") else 130)
        until(lambda: not any(map(is_running, workers)))
    assert (child.out, child.err) == ("", "")


def _exists(process: int) -> bool:
    """Also of one that ended and was not waited for."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_script_needs_no_guard(tmp_path: Path) -> None:
    """Workers do not run the main module again."""
    script = tmp_path / "script.py"
    script.write_text(
        "from tests.engine.readers import NumberReader\n"
        "from icltool.engine.preparing import ImagePipeline\n"
        "print('once')\n"
        "pipeline = ImagePipeline(NumberReader(0.01), workers=2, worth=1)\n"
        "while pipeline.from_workers < 3:\n"
        "    pipeline.expect(map(str, range(20)))\n"
        "    for number in range(20):\n"
        "        pipeline.take(str(number))\n"
        "print(pipeline.notes)\n"  # it leaves without closing
    )
    answer = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": str(Path(icltool.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    assert (answer.stdout, answer.stderr) == ("once\n[]\n", "")


def test_how_many_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    assert worker_count(3, "cpu") == 3
    assert worker_count("auto", "cpu") == 0
    for processors, workers in ((1, 0), (4, 3), (64, 8)):
        monkeypatch.setattr(preparing.os, "sched_getaffinity", lambda _, n=processors: set(range(n)), raising=False)
        assert worker_count("auto", "cuda") == workers
