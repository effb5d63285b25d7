"""Serves a page on which a model answers queries.

Reads: datasets/<name>/<task>/, if one is prepared
Writes: nothing; images of the page are kept in a temporary folder until it is closed
"""

from __future__ import annotations

import errno
import importlib.util
import ipaddress
import os
import socket
import sys
import tempfile
import threading
import webbrowser
from typing import TYPE_CHECKING

from icltool.commands.app.options import AppConfig
from icltool.commands.app.origin import SameOrigin
from icltool.commands.app.session import AppSession
from icltool.commands.caption.answer_session import AnswerSession
from icltool.commands.caption.styles import prepared_styles, styles_in, styles_of_dataset, styles_of_model
from icltool.config.tasks import named_task, task_of
from icltool.contracts import Progress, StageReport, Task
from icltool.errors import ConfigError, StoreError
from icltool.store.records import open_dataset
from icltool.store.workspace import Workspace

if TYPE_CHECKING:
    from icltool.store.records import PreparedDataset

#: Set before gradio is imported: no telemetry, no list of runs in the browser, no questions to the hub.
_QUIET = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_RUN_HISTORY": "False",
    "GRADIO_SHARE": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
_FIRST_PORT, _PORTS = 7860, 100
_LARGEST_UPLOAD = "64mb"


def run(config: AppConfig, progress: Progress) -> StageReport:
    """Serves until Ctrl-C or SIGTERM.

    Raises ConfigError without gradio, for a port in use and a task that the model does not know, StoreError for a data set
    that is not prepared, and what loading the model raises.
    """
    if importlib.util.find_spec("gradio") is None:
        raise ConfigError("icltool app needs the package gradio", "pip install 'icltool[app]'")
    config.check_model(progress)
    port = _port(config)
    dataset, task = _dataset(config)
    listed = styles_in(config.styles) if config.styles is not None else []
    with AnswerSession(config, task, progress) as answers:
        session = AppSession(answers, dataset, listed or _styles(config, answers, dataset))
        if session.examples:
            answers.check((), session.example(0))
        name = f"{config.model_name}: {task.name}" + (f" ({dataset.name})" if dataset is not None else "")
        address = _serve(config, session, name, port, progress)
    return StageReport(f"the page at {address} is closed", ())


def _dataset(config: AppConfig) -> tuple[PreparedDataset | None, Task]:
    """The data set and the task; without a name and a prepared data set, None and the task."""
    workspace = Workspace(config.workspace)
    try:
        chosen = workspace.choose_dataset(config.dataset, config.task)
    except StoreError:
        if config.dataset is not None or workspace.prepared():
            raise
        return None, _free_text(named_task(config.task or "caption"))
    dataset = open_dataset(workspace.dataset_folder(*chosen))
    return dataset, _free_text(task_of(dataset))


def _free_text(task: Task) -> Task:
    if task.ranked:
        raise ConfigError(f"--task {task.name} chooses from a list of answers and writes none", "give another --task")
    return task


def _styles(config: AppConfig, answers: AnswerSession, dataset: PreparedDataset | None) -> list[str]:
    if "style" not in answers.task.fields:
        return []
    own = styles_of_model(answers.model) or (styles_of_dataset(dataset) if dataset is not None else [])
    return own or prepared_styles(config.workspace, None)


def _port(config: AppConfig) -> int:
    """A free port. ConfigError if that of --port is in use."""
    ports = [config.port] if config.port is not None else range(_FIRST_PORT, _FIRST_PORT + _PORTS)
    for port in ports:
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(config.host, port, type=socket.SOCK_STREAM)[0]
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
                return port
        except socket.gaierror:
            raise ConfigError(f"--host {config.host} is not an address", "for this machine only: 127.0.0.1") from None
        except OSError as error:
            reason = error.strerror or str(error)
            if error.errno == errno.EADDRINUSE and config.port is not None:
                raise ConfigError(
                    f"port {port} of {config.host} is already in use",
                    "give another --port, or leave it out to use a free one",
                ) from error
    raise ConfigError(f"cannot serve at {config.host}:{ports[-1]}: {reason}", "give another --port or --host")


def _serve(config: AppConfig, session: AppSession, name: str, port: int, progress: Progress) -> str:
    """Serves until the process is interrupted. The page's address."""
    before = {key: os.environ.get(key) for key in (*_QUIET, "GRADIO_TEMP_DIR")}
    with tempfile.TemporaryDirectory(prefix="icltool-app-") as folder:
        os.environ.update({**_QUIET, "GRADIO_TEMP_DIR": folder})
        try:
            return _until_interrupted(config, session, name, port, progress)
        finally:
            for key, value in before.items():
                if value is None:
                    os.environ.pop(key, None)
                else:
                    os.environ[key] = value


def _until_interrupted(config: AppConfig, session: AppSession, name: str, port: int, progress: Progress) -> str:
    from starlette.middleware import Middleware

    from icltool.commands.app.page import CSS, build_page  # imports gradio, which reads the environment

    page = build_page(session, name, config.shots if session.dataset is not None else 0, config.seed)
    try:
        _, address, _ = page.launch(
            server_name=config.host,
            server_port=port,
            share=False,
            allowed_paths=[],
            app_kwargs={"middleware": [Middleware(SameOrigin, host=config.host)]},
            inbrowser=False,
            prevent_thread_lock=True,
            quiet=True,
            show_error=False,
            footer_links=[],
            ssr_mode=False,
            mcp_server=False,
            pwa=False,
            enable_monitoring=False,
            max_file_size=_LARGEST_UPLOAD,
            css=CSS,
        )
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"cannot serve at {config.host}:{port}: {reason}", "give another --port") from error
    try:
        progress.say(f"{name} at {address} (stop with Ctrl-C)")
        if not _loopback(config.host):
            progress.say(f"warning: everyone who can reach {config.host} can use the model and see the data set")
        if config.browser and _has_screen():
            webbrowser.open(address)
        threading.Event().wait()
    except KeyboardInterrupt:
        pass
    finally:
        page.close(verbose=False)
    return str(address)


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _has_screen() -> bool:
    """Whether a browser would open in a window: without one it may be a program in the terminal."""
    return sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
