"""Writes a world to disk in the published layouts of COCO 2017, VQAv2, PersonalityCaptions and Sherlock, for their readers.

Below the root: `mscoco/mscoco2017` (images, five captions each), `mscoco/mscoco2014` (the same images under their 2014
names), `vqav2` (questions, and ten answers each), `personality_captions` (captions in styles), `sherlock_dataset` with
`vcr1images` and `vg` (inferences about the shape's region), all of the same images; and `world.json`, which records what
was written.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from icltool.contracts import Progress
from icltool.errors import StoreError
from icltool.store.atomic import read_json, remove_folder_leftovers, take_place, writing
from icltool.store.locking import locked
from icltool.world.annotations import SPLITS, Shot, captions_file, near_duplicates, vqa_files
from icltool.world.regions import region_file, region_file_name, region_groups, region_image
from icltool.world.render import render
from icltool.world.scenes import Lexicon, Scene, dataset_lexicon, split_scenes
from icltool.world.styles import STYLES, image_hash, style_file, style_groups, style_splits

#: Increased whenever the files of a seed change.
VERSION = 2
INDEX_IMAGES, VALIDATION_IMAGES = 2000, 400
MANIFEST = "world.json"
_SCHEMA = "icltool.world"
_LARGEST_ID = 600_000  # COCO's image ids lie below it


@dataclass(frozen=True)
class WorldOptions:
    """The options that determine a world's content. Equal options give equal files. `seed` determines lexicon and held-out
    scenes and, with `renderings`, the images: another value of `renderings` gives other images, with other ids, of the same
    scenes with the same words.
    """

    seed: int = 0
    index_images: int = INDEX_IMAGES
    validation_images: int = VALIDATION_IMAGES
    renderings: int = 0
    version: int = VERSION

    @property
    def drawn_by(self) -> tuple[int, ...]:
        """The key, besides the purpose, by which images and their ids are drawn."""
        return (self.seed, self.renderings) if self.renderings else (self.seed,)


def write_world(root: Path, options: WorldOptions, progress: Progress) -> bool:
    """Writes the world of these options to `root`; returns False if it already exists. It is written to a temporary folder
    beside `root`, which is renamed when it is complete. A world of different options, or one with missing files, is
    replaced. Raises StoreError if `root` contains anything else, another process is writing it, the disk is full, or the
    folder is read-only.
    """
    root = Path(root)
    with writing(root):
        root.parent.mkdir(parents=True, exist_ok=True)
    with locked(root):
        with writing(root):
            remove_folder_leftovers(root, MANIFEST)
        if is_finished(root, options):
            return False
        if root.exists() and not _replaceable(root):
            raise StoreError(f"{root} contains something other than a world", "remove it, or choose another folder")
        temporary = root.with_name(f".{root.name}.{secrets.token_hex(4)}.tmp")
        try:
            with writing(root):
                _write(temporary, options, progress)
                take_place(temporary, root)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return True


def is_finished(root: Path, options: WorldOptions) -> bool:
    """Whether the world of these options is in `root`, with all the files that were written."""
    if not (root / MANIFEST).is_file():
        return False
    try:
        manifest = read_json(root / MANIFEST)
    except StoreError:
        return False
    if (
        not isinstance(manifest, dict)
        or manifest.get("schema") != _SCHEMA
        or manifest.get("options") != asdict(options)
    ):
        return False
    return bool(manifest.get("files") == _files(root))


def _files(root: Path) -> dict[str, int]:
    """The number of files in each folder."""
    counts = {}
    for folder, _, names in os.walk(root):
        names = [name for name in names if name != MANIFEST and not name.startswith(".")]
        if names:
            counts[Path(folder).relative_to(root).as_posix()] = len(names)
    return counts


def _replaceable(root: Path) -> bool:
    """Whether it is a world (of any options) or an empty folder."""
    if not root.is_dir():
        return False
    if not any(root.iterdir()):
        return True
    try:
        manifest = read_json(root / MANIFEST)
    except StoreError:
        return False
    return isinstance(manifest, dict) and manifest.get("schema") == _SCHEMA


def _write(folder: Path, options: WorldOptions, progress: Progress) -> None:
    shots = draw_shots(options)
    lexicon = dataset_lexicon(options.seed)
    total = options.index_images + options.validation_images
    with progress.task("rendering images", total, "images") as ticker:
        for split in SPLITS:
            coco = folder / "mscoco" / "mscoco2017" / f"{split}2017"
            older = folder / "mscoco" / "mscoco2014" / f"{split}2014"
            coco.mkdir(parents=True)
            older.mkdir(parents=True)
            for shot in shots[split]:
                image = render(shot.scene, np.random.default_rng([0xDA7A5E7, *options.drawn_by, shot.image_id]))
                path = coco / f"{shot.image_id:012d}.jpg"
                image.save(path, "JPEG", quality=95)
                _link(path, older / f"COCO_{split}2014_{shot.image_id:012d}.jpg")
                ticker.advance()
    annotations, questions = folder / "mscoco" / "mscoco2017" / "annotations", folder / "vqav2"
    annotations.mkdir()
    questions.mkdir()
    for split in SPLITS:
        _write_json(
            annotations / f"captions_{split}2017.json", captions_file(shots[split], lexicon, options.seed, split)
        )
        questions_content, answered = vqa_files(shots[split], lexicon, options.seed, split)
        _write_json(questions / f"v2_OpenEnded_mscoco_{split}2014_questions.json", questions_content)
        _write_json(questions / f"v2_mscoco_{split}2014_annotations.json", answered)
    for place in (annotations, questions):
        _write_json(place / "near_duplicates.json", near_duplicates(shots))
    _write_styles(folder, shots, lexicon, options)
    _write_regions(folder, shots, lexicon, options)
    _write_json(folder / MANIFEST, {"schema": _SCHEMA, "options": asdict(options), "files": _files(folder)})


def _write_styles(folder: Path, shots: Mapping[str, Sequence[Shot]], lexicon: Lexicon, options: WorldOptions) -> None:
    """PersonalityCaptions: the list of styles, a file of comments for each split, and the images by their hashes."""
    place = folder / "personality_captions"
    (place / "yfcc_images").mkdir(parents=True)
    (place / "personalities.txt").write_text("".join(f"{name}\n" for name in STYLES), encoding="utf-8")
    for split, split_shots in style_splits(shots).items():
        _write_json(place / f"{split}.json", style_file(split_shots, lexicon, options.seed, split))
    _write_json(place / "near_duplicates.json", style_groups(shots))
    for split in SPLITS:
        for shot in shots[split]:
            _link(_image(folder, split, shot), place / "yfcc_images" / f"{image_hash(shot)}.jpg")


def _write_regions(folder: Path, shots: Mapping[str, Sequence[Shot]], lexicon: Lexicon, options: WorldOptions) -> None:
    """Sherlock: a file of clues and inferences for each split, and the images at the paths given by their addresses."""
    (folder / "sherlock_dataset").mkdir()
    _write_json(folder / "sherlock_dataset" / "near_duplicates.json", region_groups(shots))
    for split in SPLITS:
        rows = region_file(shots[split], lexicon, options.drawn_by, split)
        _write_json(folder / "sherlock_dataset" / region_file_name(split), rows)
        for shot in shots[split]:
            target = folder / region_image(shot)
            target.parent.mkdir(parents=True, exist_ok=True)
            _link(_image(folder, split, shot), target)


def _image(folder: Path, split: str, shot: Shot) -> Path:
    return folder / "mscoco" / "mscoco2017" / f"{split}2017" / f"{shot.image_id:012d}.jpg"


def draw_shots(options: WorldOptions) -> dict[str, list[Shot]]:
    """The images of "train" (index scenes) and "val" (held-out scenes), by ascending image id.

    Ids are like COCO's, with gaps. Scenes occur equally often (within one), in random order.
    """
    rng = np.random.default_rng([0x5A075, *options.drawn_by])
    index, held_out = split_scenes(options.seed)
    total = options.index_images + options.validation_images
    ids = rng.choice(max(_LARGEST_ID, 10 * total), total, replace=False) + 1
    shots = {}
    for split, scenes, part in (
        ("train", index, ids[: options.index_images]),
        ("val", held_out, ids[options.index_images :]),
    ):
        drawn = _balanced(scenes, len(part), rng)
        shots[split] = [Shot(int(i), scene) for i, scene in zip(np.sort(part), drawn, strict=True)]
    return shots


def _balanced(scenes: Sequence[Scene], count: int, rng: np.random.Generator) -> list[Scene]:
    rounds = [scenes[i] for _ in range(count // len(scenes) + 1) for i in rng.permutation(len(scenes))][:count]
    return [rounds[i] for i in rng.permutation(count)]


def _link(source: Path, target: Path) -> None:
    """Makes a hard link to the file if the file system has them, else a copy. Raises OSError."""
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)


def _write_json(path: Path, content: Mapping[str, object] | Sequence[Mapping[str, object]]) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")
