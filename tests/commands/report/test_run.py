"""`icltool report`: one file that holds the page, within its size, written whole or not at all."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest
from pydantic import ValidationError

from icltool.commands.report import run as report
from icltool.commands.report.options import ReportConfig
from icltool.contracts import StageReport
from icltool.errors import ConfigError, StoreError
from icltool.execution.progress import SilentProgress
from icltool.store.provenance import Provenance
from icltool.store.sequences import SequenceWriter
from tests.commands.report.page.synthetic import big_evaluation
from tests.commands.report.page.test_sequences import result


@pytest.fixture(scope="module")
def read_only_workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with two evaluations of six queries by two methods with two shots. Read only."""
    root = tmp_path_factory.mktemp("big")
    folder = big_evaluation(root, 6, 2, 2, different=8)
    shutil.copytree(folder, folder.with_name("another"))
    (root / "ws" / "sequences").mkdir()
    provenance = Provenance({"dataset": "photos", "task": "caption"}, "f00d")
    with SequenceWriter(
        root / "ws" / "sequences" / "hand.h5", provenance, 2, beam_size=2, candidates=10, total=4
    ) as file:
        file.append(result(1, [[2, 3], [3, 2]], [5.0, 4.0], 1.0))
    return root / "ws"


@pytest.fixture
def world(read_only_workspace: Path, tmp_path: Path) -> Path:
    """The same workspace, to write into; its images are shared."""
    return Path(shutil.copytree(read_only_workspace, tmp_path / "ws"))


def _run(world: Path, **options: object) -> StageReport:
    return report.run(ReportConfig.model_validate({"workspace": world, **options}), SilentProgress())


def test_every_evaluation_of_the_workspace_is_shown(world: Path) -> None:
    outcome = _run(world)
    assert outcome.path == world / "exports" / "report.html"
    (row,) = outcome.rows()
    size = outcome.path.stat().st_size
    assert row == {
        "content": "evaluations",
        "settings": 4,
        "queries": 6,
        "images": "30 of 30",
        "MB": round(size / 1e6, 2),
        "file": str(outcome.path),
    }
    text = outcome.path.read_text(encoding="utf-8")
    assert text.count("data:image/webp;base64,") == 30
    assert "0badcafe" in text
    assert [p.name for p in outcome.path.parent.iterdir()] == ["report.html"], "nothing else is left behind"


@pytest.mark.parametrize("newest", [0, 1])
def test_the_newest_evaluation_comes_first(newest: int, world: Path) -> None:
    files = sorted(world.glob("evaluations/*/results.json"))
    for file in files:
        os.utime(file, (1000, 2000 if file == files[newest] else 1000))
    text = _run(world, images=False).path.read_text(encoding="utf-8")
    first, second = (text.index(files[place].parent.name) for place in (newest, 1 - newest))
    assert first < second


def test_some_evaluations_by_path_or_name(world: Path) -> None:
    outcome = _run(world, evaluations=["another", world / "evaluations" / "another" / "results.json"], images=False)
    assert outcome.rows()[0]["settings"] == 4
    once = _run(world, evaluations=["another", world / "evaluations" / "another"], overwrite=True, images=False)
    assert once.rows()[0]["settings"] == 2, "a folder that is given twice is one"
    with pytest.raises(StoreError, match="absent does not exist"):
        _run(world, evaluations=["absent"], overwrite=True)
    with pytest.raises(StoreError, match="is a workspace") as caught:
        _run(world, evaluations=[world])
    assert caught.value.hint == f"use --workspace {world}"


def test_queries_and_images_that_are_left_out_are_said(world: Path) -> None:
    few = _run(world, max_queries=2, images=False)
    assert few.rows()[0]["images"] == "0 of 10"
    assert few.lines() == ["the gallery has 2 of 6 queries, drawn with seed 0: --max-queries shows more"]
    without = few.path.stat().st_size
    limit = without / 1e6 + 0.03
    some = _run(world, max_mb=limit, overwrite=True)
    assert without < some.path.stat().st_size <= limit * 1e6
    tight = _run(world, max_mb=0.01, overwrite=True)
    assert tight.rows()[0]["images"] == "0 of 30"
    first, second = tight.lines()
    assert first == "30 of 30 images are left out to keep the page small: --max-mb allows more"
    assert re.search(r"more than --max-mb: without any query it has 0\.0\d MB, give a larger --max-mb", second)
    (line,) = _run(world, max_mb=without / 1e6 - 0.0002, overwrite=True, images=False).lines()
    assert line.endswith("more than --max-mb, by its texts alone: give a smaller --max-queries")


def test_sequences_are_a_page_of_their_own(world: Path) -> None:
    file = world / "sequences" / "hand.h5"
    outcome = _run(world, sequences=file, images=False)
    assert outcome.path == world / "exports" / "hand.html"
    assert outcome.rows()[0]["content"] == "sequences"
    assert any("unfinished: 1 of 4 anchors so far" in line for line in outcome.lines())
    assert any("another version" in line for line in outcome.lines())
    with pytest.raises(ConfigError, match="cannot be combined"):
        _run(world, sequences=file, evaluations=["another"])


def test_what_is_there_stays_unless_overwritten(world: Path, tmp_path: Path) -> None:
    output = tmp_path / "deep" / "page.html"
    _run(world, output=output, title="Mine <b>", images=False)
    assert "Mine &lt;b&gt;" in output.read_text(encoding="utf-8")
    before = output.read_bytes()
    with pytest.raises(StoreError, match=r"page\.html already exists"):
        _run(world, output=output)
    assert output.read_bytes() == before
    _run(world, output=output, overwrite=True, images=False)
    assert output.read_bytes() != before
    with pytest.raises(StoreError, match="is a folder"):
        _run(world, output=tmp_path, overwrite=True)
    file = world / "sequences" / "hand.h5"
    with pytest.raises(StoreError, match="is also the input"):
        _run(world, sequences=file, output=file, overwrite=True)


def test_nothing_to_show(tmp_path: Path) -> None:
    with pytest.raises(StoreError) as caught:
        _run(tmp_path)
    assert "icltool evaluate" in str(caught.value.hint)
    with pytest.raises(StoreError, match=r"absent\.h5"):
        _run(tmp_path, sequences=tmp_path / "absent.h5")
    assert not (tmp_path / "exports").exists()


@pytest.mark.parametrize(
    "wrong", [{"max_mb": 0}, {"max_mb": "inf"}, {"max_queries": -2}, {"seed": -1}, {"colour": "red"}]
)
def test_options_are_checked(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ReportConfig.model_validate(wrong)
    assert "output" not in ReportConfig().identity()
