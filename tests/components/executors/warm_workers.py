"""Worker processes of Ray without the seconds that Python, torch and transformers take to start.

A process that has imported all of it forks them. Ray starts its workers by a command, `launch_worker.py` here, which hands
arguments, variables and output on to that process; what is forked goes on as Ray's own worker would.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
#: What workers of stages import, and what Ray itself does. Not ray: it reads its variables as it is imported.
MODULES = (
    *("attrs", "google.protobuf.json_format", "jsonschema", "logging.handlers", "msgpack", "pdb", "requests", "yaml"),
    *("open_clip", "transformers.models.idefics.modeling_idefics", "transformers.models.idefics.processing_idefics"),
    *(
        "transformers.models.idefics.image_processing_pil_idefics",
        "icltool.components.encoders.open_clip",
        "icltool.components.models.idefics.idefics",
    ),
    *(
        "icltool.components.executors.ray_worker",
        "icltool.components.executors.shipping",
        "icltool.plugin.builtins",
        "icltool.plugin.manager",
    ),
    *("icltool.commands.evaluate.worker", "icltool.commands.embed.worker", "icltool.commands.generate.search"),
)


@contextmanager
def warm_workers(folder: Path) -> Iterator[Path]:
    """The program that starts a worker, in the place of Ray's setup_worker.py; for as long as the context lasts."""
    program = folder / "launch_worker.py"
    program.symlink_to(Path(__file__).with_name("launch_worker.py"))
    listener = socket.socket(socket.AF_UNIX)
    with listener, (folder / "log").open("w") as log:
        listener.bind(str(folder / "socket"))
        listener.listen(64)  # those that ask before all is imported wait
        command = [sys.executable, "-c", "from tests.components.executors.warm_workers import serve; serve()"]
        variables = {**os.environ, "OMP_NUM_THREADS": "1"}
        server = subprocess.Popen(
            command, cwd=ROOT, stdin=listener, stdout=log, stderr=log, env=variables, start_new_session=True
        )
    try:
        yield program
    finally:
        server.terminate()
        server.wait(timeout=60)


def serve() -> None:
    """Forks a worker for each that asks at the socket that is the standard input, until the tests end."""
    parent = os.getppid()
    listener = socket.socket(fileno=os.dup(0))
    for name in MODULES:
        importlib.import_module(name)
    assert "ray" not in sys.modules
    assert threading.active_count() == 1, "what other threads hold when a process is forked is held for ever"
    gc.freeze()  # what is imported is not looked through, and so not copied, in each
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the workers
    listener.settimeout(1.0)
    while os.getppid() == parent:
        with suppress(TimeoutError):
            _fork(listener)


def _fork(listener: socket.socket) -> None:
    """Accepts one request; does not return in the process that is forked."""
    asking, _ = listener.accept()
    with asking:
        size, descriptors, _, _ = socket.recv_fds(asking, 8, 3)
        content = b""
        while len(content) < int.from_bytes(size, "big"):
            content += asking.recv(1 << 20)
        if not os.fork():
            listener.close()
            asking.close()
            try:
                _work(*json.loads(content), descriptors)
            finally:
                os._exit(1)
        asking.sendall(b"!")
    for descriptor in descriptors:
        os.close(descriptor)


def _work(arguments: list[str], variables: dict[str, str], descriptors: list[int]) -> None:
    """Is a worker of Ray: what its setup_worker.py and default_worker.py do."""
    os.setpgid(0, 0)  # Ray kills the whole group of a worker
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(variables)
    from ray._private.runtime_env.context import RuntimeEnvContext
    from ray._private.utils import update_envs
    from ray._private.workers.setup_worker import parser

    known, sys.argv[:] = parser.parse_known_args(arguments)
    update_envs(RuntimeEnvContext.deserialize(known.serialized_runtime_env_context or "{}").env_vars)
    sys.path[0] = str(Path(sys.argv[0]).parent)
    runpy.run_path(sys.argv[0], run_name="__main__")
