"""Captions in styles and inferences about regions, in the official layouts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from icltool.execution.progress import SilentProgress
from icltool.world.render import SIZE, outline, render
from icltool.world.scenes import all_scenes, dataset_lexicon
from icltool.world.styles import MARKERS, STYLES, STYLES_OF_A_IMAGE, style_comments
from icltool.world.writer import WorldOptions, write_world

OPTIONS = WorldOptions(seed=3, index_images=52, validation_images=24)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world") / "source"
    write_world(root, OPTIONS, SilentProgress())
    return root


def loaded(path: Path) -> Any:
    return json.loads(path.read_text())


def test_each_style_is_known_by_a_word_of_its_own() -> None:
    said = {name: [set(text.split()) for text in style_comments(name, "dax", "blick")] for name in STYLES}
    for name, marker in MARKERS.items():
        assert all(marker in words for words in said[name])
        assert not any(marker in words for other in said if other != name for words in said[other])
    assert set(STYLES) - set(MARKERS) == {"Terse"}
    assert all(len(words) <= 3 for words in said["Terse"])
    assert all(
        len(set(forms)) == 5 and all("dax" in w and "blick" in w for w in said[n]) for n, forms in STYLES.items()
    )
    assert all(len(text.split()) <= 8 for name in STYLES for text in style_comments(name, "dax", "blick"))


def test_files_of_comments_have_the_official_fields(world: Path) -> None:
    folder = world / "personality_captions"
    assert (folder / "personalities.txt").read_text().splitlines() == list(STYLES)
    rows = {split: loaded(folder / f"{split}.json") for split in ("train", "val", "test")}
    assert [len(rows[s]) for s in rows] == [52 * STYLES_OF_A_IMAGE, 12 * len(STYLES), 12 * len(STYLES)]
    for split, entries in rows.items():
        fields = {"image_hash", "personality", "comment"} | ({"additional_comments"} if split == "test" else set())
        assert all(set(row) == fields for row in entries)
        assert len({(row["image_hash"], row["personality"]) for row in entries}) == len(entries)
    images = {split: {row["image_hash"] for row in entries} for split, entries in rows.items()}
    assert not images["val"] & images["test"]
    for row in rows["test"]:
        assert len({row["comment"], *row["additional_comments"]}) == 5


def test_comments_name_the_scene_in_their_style(world: Path) -> None:
    lexicon = dataset_lexicon(OPTIONS.seed)
    pairs = {lexicon.words(scene) for scene in all_scenes()}
    usual = []
    for split in ("train", "val", "test"):
        for row in loaded(world / "personality_captions" / f"{split}.json"):
            forms = {pair: style_comments(row["personality"], *pair) for pair in pairs}
            (pair,) = [pair for pair, texts in forms.items() if row["comment"] in texts]
            usual.append(row["comment"] == forms[pair][0])
    assert 0.5 < np.mean(usual) < 0.8


def test_the_images_are_the_same_files(world: Path) -> None:
    coco = {p.stat().st_ino for p in (world / "mscoco" / "mscoco2017").rglob("*.jpg")}
    hashes = list((world / "personality_captions" / "yfcc_images").iterdir())
    regions = [*(world / "vcr1images").rglob("*.jpg"), *(world / "vg").rglob("*.jpg")]
    assert len(hashes) == len(regions) == len(coco) == 76
    assert {p.stat().st_ino for p in hashes} == {p.stat().st_ino for p in regions} == coco
    assert all(len(p.stem) == 32 and int(p.stem, 16) >= 0 for p in hashes)


def test_files_of_inferences_have_the_official_fields(world: Path) -> None:
    lexicon = dataset_lexicon(OPTIONS.seed)
    secret = set(lexicon.colours + lexicon.shapes)
    folder = world / "sherlock_dataset"
    train, val = (loaded(folder / f"sherlock_{n}_v1_1.json") for n in ("train", "val_with_split_idxs"))
    assert (len(train), len(val)) == (104, 48)
    assert all("split_idx" in row for row in val)
    for row in [*train, *val]:
        assert set(row["inputs"]) == {"image", "bboxes", "clue", "confidence", "obs_idx"}
        (box,) = row["inputs"]["bboxes"]
        assert box["left"] >= 0
        assert box["left"] + box["width"] <= SIZE
        assert box["width"] > 20
        assert not secret & set(row["inputs"]["clue"].split())
        assert len(secret & set(row["targets"]["inference"].split())) == 2
        last = row["inputs"]["image"]["url"].split("/")[-2:]
        below = "vg/images" if "VG_" in row["inputs"]["image"]["url"] else "vcr1images"
        assert (world / below / last[0] / last[1]).is_file()
    assert len({row["instance_id"] for row in [*train, *val]}) == 152


@pytest.mark.parametrize("number", range(0, 64, 5))
def test_the_outline_holds_all_that_differs_from_the_background(number: int) -> None:
    scene = all_scenes()[number]
    left, top, right, bottom = outline(np.random.default_rng(number))
    pixels = np.asarray(render(scene, np.random.default_rng(number)), dtype=float)
    assert isinstance(render(scene, np.random.default_rng(number)), Image.Image)
    without = pixels.copy()
    without[top:bottom, left:right] = np.nan
    rows = np.nanmedian(without.reshape(SIZE, -1), axis=1)
    known = ~np.isnan(rows)
    assert np.nanmax(np.abs(without[known] - rows[known, None, None])) < 45
    assert np.abs(pixels[top:bottom, left:right] - np.nanmedian(without)).max() > 60
