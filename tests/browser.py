"""A headless Chromium, spoken to by the WebDriver protocol (W3C) of its own driver; nothing to install from PyPI."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
_ARGUMENTS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1400,1400"]
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"


def free_port() -> int:
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        return int(tried.getsockname()[1])


class Browser:
    """One window. Elements are named by CSS selectors and waited for."""

    def __init__(self, patience: float = 60.0) -> None:
        self.patience = patience
        assert DRIVER is not None
        port = free_port()
        self._process = subprocess.Popen(
            [DRIVER, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._base = f"http://127.0.0.1:{port}"
        self._session = ""
        try:
            self.until(lambda: self._call("GET", "/status")["ready"])
            options = {"binary": CHROMIUM, "args": _ARGUMENTS}
            capabilities = {
                "goog:chromeOptions": options,
                "goog:loggingPrefs": {"performance": "ALL", "browser": "ALL"},
            }
            session = self._call("POST", "/session", {"capabilities": {"alwaysMatch": capabilities}})
        except BaseException:
            self.close()
            raise
        self._session = f"/session/{session['sessionId']}"

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *about: object) -> None:
        self.close()

    def close(self) -> None:
        try:
            if self._session:
                self._call("DELETE", self._session)
        finally:
            self._process.terminate()
            self._process.wait(30)

    def open(self, address: str) -> None:
        self._of_session("POST", "/url", {"url": address})

    def click(self, css: str) -> None:
        self.until(lambda: self._of_session("POST", f"/element/{self._element(css)}/click", {}) is None)

    def type(self, css: str, text: str) -> None:
        self._of_session("POST", f"/element/{self._element(css)}/value", {"text": text})

    def value(self, css: str) -> str:
        """The value of a field; "" where it is not there."""
        value = self.run("const e = document.querySelector(arguments[0]); return e ? e.value : ''", css)
        return str(value or "")

    def count(self, css: str) -> int:
        return int(self.run("return document.querySelectorAll(arguments[0]).length", css))

    def run(self, code: str, *arguments: Any) -> Any:
        return self._of_session("POST", "/execute/sync", {"script": code, "args": list(arguments)})

    def requests(self) -> list[str]:
        """The addresses that were asked for since the last call."""
        messages = [
            json.loads(e["message"])["message"] for e in self._of_session("POST", "/se/log", {"type": "performance"})
        ]
        return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]

    def console(self) -> list[str]:
        """What the console was told since the last call: errors of scripts, and what a page's policy kept out."""
        return [str(entry["message"]) for entry in self._of_session("POST", "/se/log", {"type": "browser"})]

    def press(self, keys: str) -> None:
        """Types `keys` into whatever has the focus; special ones are those of the WebDriver standard."""
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self._of_session("POST", "/actions", {"actions": [{"type": "key", "id": "keys", "actions": actions}]})

    def command(self, name: str, **parameters: Any) -> Any:
        """A command of the DevTools protocol, such as Emulation.setDeviceMetricsOverride."""
        return self._of_session("POST", "/goog/cdp/execute", {"cmd": name, "params": parameters})

    def size(self, width: int, height: int, phone: bool = False) -> None:
        """The size of the view in CSS pixels, that of a phone if wanted."""
        self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone
        )

    def screenshot(self, file: Path) -> None:
        file.write_bytes(base64.b64decode(self._of_session("GET", "/screenshot")))

    def until(self, holds: Callable[[], Any]) -> Any:
        """What `holds` gives once it is true. Errors on the way count as false."""
        deadline = time.monotonic() + self.patience
        while True:
            try:
                if result := holds():
                    return result
                problem: object = "it stayed false"
            except (OSError, RuntimeError) as error:
                problem = error
            if time.monotonic() > deadline:
                raise TimeoutError(problem)
            time.sleep(0.1)

    def _element(self, css: str) -> str:
        selector = {"using": "css selector", "value": css}
        return str(self.until(lambda: self._of_session("POST", "/element", selector)[_ELEMENT]))

    def _of_session(self, method: str, path: str, data: Any = None) -> Any:
        return self._call(method, self._session + path, data)

    def _call(self, method: str, path: str, data: Any = None) -> Any:
        body = None if data is None else json.dumps(data).encode()
        request = urllib.request.Request(self._base + path, body, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(error.read().decode()[:300]) from error
