"""`nohup icltool … &`: a shell lets what it starts that way ignore Ctrl-C; SIGTERM ends it, and all that it started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from icltool.cli.boundary import INTERRUPTED
from icltool.store.sequences import SequenceFile
from tests.processes import PATIENCE, is_running, until

ROOT = Path(__file__).resolve().parents[2]
#: Tells its process and, once that has ended, how.
SHELL = 'nohup "$@" </dev/null & echo $!; wait $!; echo $?'
#: Scored by CIDEr, whose tokenizer is a Java process; two processes read the images, of which
#: one anchor needs enough for them to be started.
SEARCH = ["generate", "--dataset=shapes", "--task=caption", "--model=tiny-idefics", "--device=cpu", "--scorer=cider"]
SEARCH += ["--anchors=104", "--candidates=96", "--beam-size=2", "--shots=1", "--anchors-at-once=1", "--image-workers=2"]


@pytest.mark.reliability
@pytest.mark.skipif(not Path("/proc").exists(), reason="processes are looked up in /proc")
def test_sigterm_ends_it_and_what_it_started(workspace: Path) -> None:
    command = [sys.executable, "-m", "icltool", *SEARCH, "--quiet", "--workspace", str(workspace)]
    shell = subprocess.Popen(
        ["sh", "-c", SHELL, "sh", *command],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert shell.stdout is not None
    process = psutil.Process(int(shell.stdout.readline()))
    started: dict[int, str] = {}

    def works() -> bool:
        assert shell.poll() is None, "it ended before it could be stopped"
        for child in process.children(recursive=True):
            with suppress(psutil.Error):  # one that has ended meanwhile
                command = " ".join(child.cmdline())
                if child.name() == "java" or "preparing import serve" in command:
                    started[child.pid] = child.name()
        return len(started) == 3 and any(workspace.glob("sequences/[!.]*.h5"))

    try:
        until(works)
        assert "java" in started.values()
        process.send_signal(signal.SIGINT)  # it does not care
        [file] = workspace.glob("sequences/[!.]*.h5")
        before = len(SequenceFile.open(file))
        until(lambda: works() and len(SequenceFile.open(file)) > before)
        process.terminate()
        out, err = shell.communicate(timeout=PATIENCE)
        until(lambda: not any(map(is_running, started)))
    finally:
        if shell.poll() is None:
            process.kill()
            shell.wait()
    assert out.split() == ["143"]
    assert err.splitlines()[-1] == INTERRUPTED
    assert "Traceback" not in err
