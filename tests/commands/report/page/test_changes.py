"""What changed after an evaluation, or is not finished, is said on its page; other options of a method have another name."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from icltool.commands.report.page.evaluations import evaluations_page
from icltool.commands.report.page.sequences import sequences_page
from icltool.commands.report.page.table import digits_for, gain_digits
from icltool.store.atomic import read_json, write_json
from icltool.store.provenance import Provenance
from icltool.store.records import open_dataset
from icltool.store.sequences import SequenceWriter
from tests.commands.report.page.markup import metric_table
from tests.commands.report.page.synthetic import big_evaluation, photo
from tests.commands.report.page.test_sequences import result


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An evaluation of three queries by one method with one shot: six images."""
    return big_evaluation(tmp_path, 3, 1, 1, different=6)


def overwrite(root: Path, *numbers: int) -> None:
    """Other images in the place of these, a minute from now."""
    for number in numbers:
        path = root / "photos" / f"{number:06d}.jpg"
        photo(99, 64, 48).save(path)
        os.utime(path, (time.time() + 60,) * 2)


def prepared_anew(root: Path) -> None:
    path = root / "ws" / "datasets" / "photos" / "caption" / "dataset.json"
    write_json(path, {**read_json(path), "fingerprint": "another"})


def test_images_that_changed_are_counted(folder: Path, tmp_path: Path) -> None:
    assert evaluations_page([folder], tmp_path / "ws").page.remarks == ()
    overwrite(tmp_path, 0, 4)
    draft = evaluations_page([folder], tmp_path / "ws")
    line = "photos (caption): 2 of 6 images changed after the model had seen them: they may not be what the model saw"
    assert draft.page.remarks == (line,)
    assert len(draft.references) == 6


def test_changed_images_of_another_version_are_left_out(folder: Path, tmp_path: Path) -> None:
    overwrite(tmp_path, 0, 4)
    moved = tmp_path / "photos" / "000001.jpg"
    time.sleep(0.05)
    shutil.copy2(moved, tmp_path / "old.jpg")
    (tmp_path / "old.jpg").replace(moved)
    prepared_anew(tmp_path)
    draft = evaluations_page([folder], tmp_path / "ws")
    assert "is another version" in draft.page.remarks[0]
    line = "photos (caption): 3 of 6 images changed after the model had seen them: they are left out"
    assert draft.page.remarks[1] == line
    assert [Path(one).name for one in draft.references] == ["000002.jpg", "000003.jpg", "000005.jpg"]
    assert draft.page.queries[0].images == ()


def test_sequences_count_them_too(folder: Path, tmp_path: Path) -> None:
    dataset = open_dataset(tmp_path / "ws" / "datasets" / "photos" / "caption")
    provenance = Provenance({"dataset": "photos", "task": "caption"}, dataset.fingerprint)
    path = tmp_path / "ws" / "sequences" / "hand.h5"
    path.parent.mkdir()
    tiny = result(3, [[4, 5], [5, 4]], [0.5 + 2.5e-6, 0.5 + 1e-6], 0.5)
    with SequenceWriter(path, provenance, 2, beam_size=2, candidates=10, total=1) as file:
        file.append(tiny)
    assert sequences_page(path, tmp_path / "ws").page.remarks == ()
    overwrite(tmp_path, 5)
    page = sequences_page(path, tmp_path / "ws").page
    assert page.remarks[0].startswith("photos (caption): 1 of 3 images changed after")
    assert "+0.0000025" in metric_table(page, page.settings, "value", gains=True)
    assert "0.500 " in metric_table(page, page.settings, "value").replace("0.5000", "0.500")
    assert gain_digits(page, "value", [0.25]) == 4


def test_digits_in_which_values_count() -> None:
    assert [digits_for([top, -top / 2, None], 4) for top in (0.0, 3.0, 0.01, 2.5e-6, 1e-30)] == [4, 4, 4, 7, 12]


def test_an_interrupted_evaluation_says_so(folder: Path, tmp_path: Path) -> None:
    for shots in (1, 2):
        (folder / "predictions" / f".i2i-{shots}-shot-seed0.jsonl.part").write_text("{}\n")
    (source,) = evaluations_page([folder], tmp_path / "ws").page.sources
    assert source.remarks == (
        "unfinished: 2 settings begun (i2i-1-shot-seed0, i2i-2-shot-seed0); run `icltool evaluate` again to go on",
    )


def test_options_of_methods_are_told_and_tell_apart(folder: Path, tmp_path: Path) -> None:
    def give(to: Path, **options: Any) -> None:
        content = read_json(to / "results.json")
        content["results"][0]["extra"] = {"options": options, "gains": {"metrics": {}}}
        write_json(to / "results.json", content)

    give(folder, index="ivf", pool=8)
    page = evaluations_page([folder], tmp_path / "ws").page
    assert page.settings[0].method == "method-0"
    assert dict(page.settings[0].lines)["method options"] == "index=ivf, pool=8"
    other = Path(shutil.copytree(folder, folder.with_name("z")))
    give(other, index="hnsw", pool=8)
    page = evaluations_page([folder, other], tmp_path / "ws").page
    assert [one.method for one in page.settings] == ["method-0 (index=ivf)", "method-0 (index=hnsw)"]
