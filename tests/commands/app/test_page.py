"""`icltool app`: refusals, and the page in a browser where there is one."""

from __future__ import annotations

import importlib.util
import signal
import socket
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from icltool.cli.app import run
from icltool.contracts import Example
from icltool.store.records import open_dataset
from icltool.store.workspace import Workspace
from tests.browser import CHROMIUM, DRIVER, Browser, free_port
from tests.cli.test_bad_input import refusal
from tests.processes import PATIENCE, Child, until

MODEL = ["--model=tiny-idefics", "--device=cpu"]
with_gradio = pytest.mark.skipif(importlib.util.find_spec("gradio") is None, reason="needs gradio")


def write_down_addresses(file: Path) -> None:
    """Every address that this process connects to or looks up from now on goes into `file`."""
    log = file.open("a")

    def spy(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "socket.connect" and isinstance(arguments[1], tuple):
            print(arguments[1][0], file=log, flush=True)
        elif event == "socket.getaddrinfo":
            print(arguments[0], file=log, flush=True)

    sys.addaudithook(spy)


@contextmanager
def served(tmp_path: Path, *arguments: str) -> Iterator[str]:
    """The address of a page, while it is served. It must end by itself after Ctrl-C, without a word of Python."""
    port = free_port()

    def work() -> int:
        tempfile.tempdir = str(tmp_path)
        write_down_addresses(tmp_path / "asked")
        return run(["app", *MODEL, f"--port={port}", "--no-browser", *arguments])

    with Child(work) as child:
        address = f"http://127.0.0.1:{port}/"
        until(lambda: child.poll() is not None or f"at {address}" in child.err)
        assert child.poll() is None, child.err
        yield address
        child.send_signal(signal.SIGINT)
        assert child.wait() == 0, child.err
        assert "is closed" in child.out
        assert "Traceback" not in child.err
        assert not list(tmp_path.glob("icltool-app-*")), "images of the page are gone"
        assert set((tmp_path / "asked").read_text().split()) <= {"127.0.0.1", "localhost"}


def test_without_gradio(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    err = refusal(capsys, "app", "--model=tiny-idefics")
    assert "icltool app needs the package gradio" in err
    assert "hint: pip install 'icltool[app]'" in err


@with_gradio
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--port", "TAKEN"], "port TAKEN of 127.0.0.1 is already in use"),
        (["--host", "no.such.host.invalid"], "--host no.such.host.invalid is not an address"),
        (["--task=captoin"], "did you mean 'caption'"),
        (["--task=classification"], "no data set for task 'classification' is prepared"),
        (["--dataset=cocoo"], "cocoo"),
        (["--model=tiny-idefix"], "did you mean 'tiny-idefics'"),
        (["--port=0"], "--port"),
        (["--styles=gone.txt"], "gone.txt cannot be read"),
    ],
)
def test_calls_that_do_not_fit(
    arguments: list[str], words: str, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        options = [a.replace("TAKEN", port) for a in arguments]
        err = refusal(capsys, "app", *MODEL, "--workspace", str(workspace), *options)
    assert words.replace("TAKEN", port) in err


@pytest.mark.external
@with_gradio
def test_the_page_is_served_to_this_machine_alone(workspace: Path, tmp_path: Path) -> None:
    with served(tmp_path, f"--workspace={workspace}", "--task=caption") as address:
        with urllib.request.urlopen(address, timeout=PATIENCE) as answer:
            page = answer.read().decode()
        assert "tiny-idefics: caption (shapes)" in page
        secret = workspace / "datasets" / "shapes" / "caption" / "dataset.json"
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(f"{address}gradio_api/file={secret}", timeout=PATIENCE)


@pytest.mark.external
@pytest.mark.skipif(CHROMIUM is None or DRIVER is None, reason="needs chromium and chromedriver")
@with_gradio
def test_the_page_in_a_browser(workspace: Path, tmp_path: Path) -> None:
    """An example with random demonstrations, chosen ones, an image of one's own, and one that is none."""
    with served(tmp_path, f"--workspace={workspace}", "--task=caption", "--shots=2") as address, Browser() as browser:
        browser.open(address)
        browser.click("#ask")
        browser.until(lambda: "choose an image first" in browser.value("#status textarea"))
        browser.click("#examples button.thumbnail-item")
        browser.until(lambda: browser.count("#image img"))
        browser.click("#ask")
        browser.until(lambda: browser.value("#answer textarea"))
        assert browser.value("#prompt textarea").count("<image>") == 3
        queries = open_dataset(Workspace(workspace).dataset_folder("shapes", "caption")).split("validation")
        assert tuple(browser.value("#references textarea").splitlines()) in {e.references for e in queries}
        browser.until(lambda: browser.count("#demonstrations img") == 2)
        assert browser.count("#status textarea") == 0

        browser.run("document.querySelectorAll('#how input')[2].click()")
        browser.type("#words textarea", "a\ue007")
        browser.click("#found button.thumbnail-item")
        browser.until(lambda: browser.count("#taken img") == 1)
        browser.click("#ask")
        browser.until(lambda: browser.value("#prompt textarea").count("<image>") == 2)

        broken = tmp_path / "broken.jpg"
        broken.write_text("no image")
        browser.type("#own input[type=file]", str(broken))
        browser.until(lambda: "broken.jpg is no image of a known format" in browser.value("#status textarea"))
        browser.click("#own button[aria-label*='emove'], #own button[aria-label*='lear']")
        browser.type("#own input[type=file]", queries.images[3])
        browser.until(lambda: browser.count("#status textarea") == 0)
        browser.click("#ask")
        browser.until(lambda: not browser.value("#references textarea") and browser.value("#answer textarea"))
        requests = [url for url in browser.requests() if not url.startswith((address, "data:", "blob:"))]
        assert requests == []


@pytest.mark.external
@pytest.mark.skipif(CHROMIUM is None or DRIVER is None, reason="needs chromium and chromedriver")
@with_gradio
def test_styles_in_a_browser(small_world: Path, tmp_path: Path) -> None:
    """Without a prepared data set, with a list of styles: an unknown one is told of on the page."""
    (tmp_path / "styles.txt").write_text("Happy\nSweet\n")
    image = open_dataset(Workspace(small_world).dataset_folder("shapes", "caption")).split("train").images[0]
    options = ["--task=style", f"--styles={tmp_path / 'styles.txt'}", f"--workspace={tmp_path / 'none'}"]
    with served(tmp_path, *options) as address, Browser() as browser:
        browser.open(address)
        browser.type("#own input[type=file]", image)
        browser.until(lambda: browser.count("#image img"))
        browser.type("#style input", "Sweeet\ue007")
        browser.click("#ask")
        browser.until(lambda: "unknown style 'Sweeet'" in browser.value("#status textarea"))
        assert "did you mean 'Sweet'" in browser.value("#status textarea")
        for _ in "Sweeet":
            browser.type("#style input", "\ue003")
        browser.type("#style input", "Happy\ue007")
        browser.click("#ask")
        browser.until(lambda: "Happy" in browser.value("#prompt textarea"))
        assert browser.value("#answer textarea")


def test_several_images_stand_side_by_side(tmp_path: Path) -> None:
    from icltool.commands.app.page import _image

    files = [tmp_path / "a.png", tmp_path / "b.png"]
    Image.new("RGB", (40, 20), "red").save(files[0])
    Image.new("RGB", (10, 30), "blue").save(files[1])
    one = Example(1, str(files[0]), 1, "which?", "left", ("left",))
    both = _image(replace(one, more_images=(str(files[1]),), more_image_ids=(2,)))
    assert both is not None
    assert both.size == (50, 30)
    assert [both.getpixel(place) for place in ((5, 5), (45, 25), (5, 25))] == [
        (255, 0, 0),
        (0, 0, 255),
        (255, 255, 255),
    ]
    assert (_image(one) or both).size == (40, 20)
    assert _image(replace(one, image="")) is None
