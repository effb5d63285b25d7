"""Pages that are shared: no home folder and no user's name, whatever went wrong; the data's own texts as they are."""

from __future__ import annotations

import base64
import gzip
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from icltool.commands.report import run as report
from icltool.commands.report.options import ReportConfig
from icltool.commands.report.page.evaluations import evaluations_page
from icltool.commands.report.page.sequences import sequences_page
from icltool.execution.progress import SilentProgress
from icltool.store.atomic import read_json, write_json
from icltool.store.evaluations import read_predictions
from icltool.store.failures import write_failures
from icltool.store.provenance import Provenance
from icltool.store.sequences import SequenceWriter
from tests.commands.report.page.synthetic import big_evaluation
from tests.commands.report.page.test_sequences import result

PAYLOAD = re.compile(r"[A-Za-z0-9+/=]{400,}")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where ada.l keeps a workspace, with an evaluation of four queries and a sequences file that nothing is right with."""
    home_folder = tmp_path / "home" / "ada.l"
    folder = big_evaluation(home_folder, 4, 2, 1, different=4)
    monkeypatch.setenv("HOME", str(home_folder))
    monkeypatch.setenv("USER", "ada.l")
    shutil.rmtree(home_folder / "ws" / "datasets")
    content = read_json(folder / "results.json")
    content["provenance"]["configuration"] |= {
        "model_path": str(home_folder / "models" / "small"),
        "plan": str(home_folder / "ws" / "exports" / "plan.json"),
        "scratch": "/scratch/ada.l/cache",
    }
    content["results"][0]["extra"] = {
        "finetuned": {"file": str(home_folder / "tuned" / "best.safetensors")},
        "intervention": {"file": str(home_folder / "ws" / "checkpoints" / "v" / "last.safetensors")},
    }
    write_json(folder / "results.json", content)
    (folder / "predictions" / "method-1-1-shot-seed0.jsonl").unlink()
    rows = read_predictions(folder / "predictions" / "method-0-1-shot-seed0.jsonl")
    rows[0]["images"] = [str(home_folder / "images" / "gone.jpg")] * 2
    rows[0]["answer"] = "a letter to /home/ada.l/"
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "predictions" / "method-0-1-shot-seed0.jsonl").write_text(text)
    write_failures(folder / "results.json", [{"error": f"cannot read {home_folder}/images/1.jpg"}])
    (home_folder / "ws" / "sequences").mkdir()
    provenance = Provenance({"dataset": "photos", "task": "caption", "model_path": str(home_folder / "models")}, "f00d")
    path = home_folder / "ws" / "sequences" / "hand.h5"
    with SequenceWriter(path, provenance, 2, beam_size=2, candidates=10, total=4) as file:
        file.append(result(1, [[2, 3], [3, 2]], [5.0, 4.0], 1.0))
    write_failures(path, [{"error": f"cannot read {home_folder}/ws/images/1.jpg"}])
    return home_folder


def markup_and_data(page: Path) -> tuple[str, str]:
    """(the markup, what the page's script reads)."""
    html = page.read_text(encoding="utf-8")
    packed = next(text for text in PAYLOAD.findall(html) if text.startswith("H4sI"))
    return html.replace(packed, ""), gzip.decompress(base64.b64decode(packed)).decode()


@pytest.mark.parametrize("form", ["absolute", "relative"])
@pytest.mark.parametrize("kind", ["evaluations", "sequences"])
def test_no_home_and_no_name_is_in_the_file(home: Path, kind: str, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    workspace = home / "ws" if form == "absolute" else Path("ws")
    more: dict[str, Any] = {"sequences": workspace / "sequences" / "hand.h5"} if kind == "sequences" else {}
    outcome = report.run(ReportConfig(workspace=workspace, output=home / "page.html", **more), SilentProgress())
    html, payload = markup_and_data(home / "page.html")
    gallery = payload.replace("a letter to /home/ada.l/", "")
    assert str(home) not in html + gallery
    assert "ada.l" not in html + gallery
    assert not [line for line in outcome.lines() if "ada.l" in line]
    assert "photos (caption)" in html
    assert ("a letter to /home/ada.l/" in payload) == (kind == "evaluations")


def test_what_is_told_instead(home: Path) -> None:
    (folder,) = (home / "ws" / "evaluations").iterdir()
    draft = evaluations_page([folder], home / "ws")
    page = draft.finished([None] * len(draft.references), [f"1 image cannot be shown: {home}/images/gone.jpg"])
    (source,) = page.sources
    assert source.path == f"evaluations/{folder.name}"
    lines = dict(source.lines)
    assert (lines["model path"], lines["plan"]) == ("~/models/small", "exports/plan.json")
    assert lines["scratch"] == "/scratch/~/cache"
    assert dict(page.settings[0].lines) == {
        "fine-tuned weights": "~/tuned/best.safetensors",
        "intervention": "checkpoints/v/last.safetensors",
        "seconds for all answers": "1.0",
    }
    gone = f"evaluations/{folder.name}/predictions/method-1-1-shot-seed0.jsonl does not exist"
    assert {one.missing for one in page.results} == {"", gone}
    assert source.remarks == (
        "1 queries or anchors were given up, the first: cannot read ~/images/1.jpg; run `icltool evaluate` again",
        f"{gone}: its answers are not shown",
    )
    assert page.remarks[0].startswith("no data set is prepared in the workspace")
    assert page.remarks[-1] == "1 image cannot be shown: ~/images/gone.jpg"
    assert str(home / "images" / "gone.jpg") in draft.references, "they are read from there, and not shown"
    page = sequences_page(home / "ws" / "sequences" / "hand.h5", home / "ws").without_images()
    assert page.sources[0].path == "sequences/hand.h5"
    assert "cannot read images/1.jpg" in page.sources[0].remarks[-1]


def test_a_title_that_is_given_stays(home: Path) -> None:
    file = home / "ws" / "sequences" / "hand.h5"
    assert sequences_page(file, home / "ws", title="By ada.l").page.title == "By ada.l"
