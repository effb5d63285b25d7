"""Sherlock (arXiv:2202.04800): what a clue in a region of an image lets one infer. One example per inference, in the order
of the official files."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import Field

from icltool.components.datasets.distractors import Pool
from icltool.components.datasets.images import MissingImages, check_decoding, is_empty, sample
from icltool.components.datasets.near_duplicates import groups_file, read_groups
from icltool.components.datasets.official import counted, few, repeated
from icltool.components.datasets.places import chosen_root, find_file, first_holding, on_disk
from icltool.components.datasets.reader import FileReader
from icltool.components.datasets.sherlock_files import TRAIN, VALIDATION, Box, Images, Observation, read_observations
from icltool.contracts import (
    Example,
    Options,
    PreparedSplit,
    Progress,
    ReadReport,
    Region,
    group_code,
    with_regions,
)
from icltool.contracts.images import ShowMode, image_size
from icltool.errors import DataError

#: Our split -> its file.
_FILES = {"train": TRAIN, "validation": VALIDATION}
_HINT = f"put {TRAIN} and {VALIDATION} of Sherlock's page into sherlock_dataset there; or their zip archives"
_IMAGES = (
    "put VCR's images into vcr1images, Visual Genome's into vg/images/VG_100K and vg/images/VG_100K_2, or their "
    "archives vcr1images.zip, vg/images.zip and vg/images2.zip; all below --root or SHERLOCK_PATH. "
    "--option missing=skip leaves out records without their image"
)
_RESTORE = "the image is damaged; download it or unpack its archive again"


@dataclass(frozen=True)
class Places:
    """The files by our split name, and where the images are looked for."""

    files: Mapping[str, Path]
    images: Images


@dataclass(frozen=True)
class Observations:
    """One split: what was observed, all inferences about each region, and what was left out."""

    observations: list[Observation]
    by_region: Mapping[object, tuple[str, ...]]
    remarks: tuple[str, ...]


class SherlockOptions(Options):
    """How images and choices are shown."""

    show: ShowMode = Field(
        "highlight",
        description="how to show a clue's region: highlight it in colour, as published; hide it; black out all else (only); or "
        "crop the image to it",
    )
    distractors: int = Field(
        99, ge=1, description="number of inferences about other images among the choices of a query"
    )
    missing: MissingImages = Field(
        "refuse", description="what to do with records whose image is missing: stop with an error, or skip them"
    )


class SherlockReader(FileReader):
    """Reads `sherlock_dataset/sherlock_{train,val_with_split_idxs}_v1_1.json`, and the images of VCR in `vcr1images` and of
    Visual Genome in `vg/images`, below `root` or SHERLOCK_PATH. Zip archives need not be unpacked.

    An example is one inference: its label, with the clue as question and text, and the image's regions shown as
    `show` says: "highlight" (in colour, as published), "hide", "only" (all else blackened) or "crop". The references are
    all inferences about the same regions of the same image, the label first. The id is a code of the record's
    instance_id, so that an example keeps it in another file or order; the image id is a code of the image's place in its
    release. `answer_type` is the image's source, "vcr" or "vg", by which evaluations are broken down. Records without clue or
    inference, or whose regions lie outside of their image, are left out, and remarked on. Where an image has another size
    than its record says, and the same shape, its regions are scaled. `missing=skip` leaves records out whose image is not
    there.

    Task "inference-choice": the query's choices are its inference and `distractors` inferences about other images, drawn by
    the query's id from its part of the validation file (`split_idx`; the whole file where it is missing); none of them reads
    as one of the references. Demonstrations need no choices and have none.
    """

    name = "sherlock"
    tasks = ("inference", "inference-choice")

    options_model = SherlockOptions

    def __init__(self, options: SherlockOptions) -> None:
        self.options = options

    def read(self, root: Path | None, task: str, workspace: Path, progress: Progress) -> Iterator[PreparedSplit]:
        """See DatasetReader. Splits are parsed one after another."""
        places = self.find(root)
        for name in _FILES:
            with progress.task(f"reading {places.files[name].name}", 1, "files") as ticker:
                split = observations(places.files[name], name)
                split = self._present(split, places)
                by_path = {places.images.find(o): o for o in split.observations}
                scales = _scales(places.files[name], by_path)
                ticker.advance()
            groups = read_groups(places.files["train"], name)
            yield PreparedSplit(
                name, len(split.observations), self._examples(split, places, task, name, groups, scales)
            )

    def find(self, root: Path | None) -> Places:
        """The paths of files and images. Raises DataError if a file is missing."""
        start = chosen_root(root, ("SHERLOCK_PATH",), self.name)
        names = list(_FILES.values())
        archives = [f"{name}.zip" for name in names]
        base = first_holding([start / "sherlock_dataset", start / "sherlock", start], names, archives)
        if base is None:
            raise DataError(
                f"no Sherlock in {start}: neither sherlock_dataset nor the folder itself has {TRAIN}", _HINT
            )
        files = {}
        for name, file in _FILES.items():
            path = find_file(base, file, [f"{file}.zip"])
            if path is None:
                raise DataError(f"{base} lacks {file}", _HINT)
            files[name] = path
        return Places(files, Images(start))

    def look(self, root: Path | None, task: str, verify: bool, progress: Progress | None) -> ReadReport:
        places = self.find(root)
        remarks: list[str] = []
        for name in _FILES:
            path = places.files[name]
            split = observations(path, name)
            read_groups(places.files["train"], name)
            whole, split = split, self._present(split, places)
            if len(split.observations) < len(whole.observations):
                left = counted(len(whole.observations) - len(split.observations), "record")
                remarks.append(f"{name}: {left} left out because their images are missing")
            by_image = list({o.image: o for o in split.observations}.values())
            paths = [places.images.find(o) for o in by_image]
            missing = [o.image for o, place in zip(by_image, paths, strict=True) if not place]
            if missing:
                raise DataError(
                    f"{path} names {counted(len(missing), 'image')} missing from {places.images.start}: {few(missing)}",
                    _IMAGES,
                )
            check_decoding(path.parent, paths, path.name, _RESTORE, verify, progress)
            looked_at = dict(zip(paths, by_image, strict=True))
            if not verify:
                looked_at = {place: looked_at[place] for place in sample(list(looked_at), f"sizes of {name}")}
            remarks += split.remarks
            if other := _scales(path, looked_at):
                remarks.append(
                    f"{name}: {len(other)} of {counted(len(looked_at), 'image')} checked have another size than recorded; "
                    f"their regions are scaled: {few(list(other))}"
                )
            if task == "inference-choice" and name == "validation":
                remarks += self._too_few(split)
        files = on_disk([*places.files.values(), *groups_file(places.files["train"]), *places.images.archives()])
        return ReadReport(files, tuple(remarks))

    def _present(self, split: Observations, places: Places) -> Observations:
        """The observations whose images are there, where others are to be left out; all of them where none is."""
        if self.options.missing == "refuse":
            return split
        present = [o for o in split.observations if (place := places.images.find(o)) and not is_empty(place)]
        return replace(split, observations=present) if present else split

    def _examples(
        self,
        split: Observations,
        places: Places,
        task: str,
        name: str,
        groups: Mapping[int, str],
        scales: Mapping[str, tuple[float, float]],
    ) -> Iterator[Example]:
        choosing = task == "inference-choice" and name == "validation"
        pools = _pools(split.observations) if choosing else {}
        for observation in split.observations:
            scale = scales.get(observation.image)
            regions = [Region(*box) if scale is None else _scaled(box, scale) for box in observation.boxes]
            image_id = group_code(observation.image)
            references = _references(split, observation)
            identifier = group_code(observation.instance)
            yield Example(
                id=identifier,
                image=with_regions(places.images.find(observation), regions, self.options.show),
                image_id=image_id,
                text=observation.clue,
                label=observation.inference,
                references=references,
                question=observation.clue,
                group=groups.get(image_id, ""),
                answer_type=observation.source,
                choices=pools[observation.chunk].choices(
                    identifier, observation.image, references, self.options.distractors
                )
                if choosing
                else (),
            )

    def _too_few(self, split: Observations) -> list[str]:
        """A remark if queries have fewer distractors than requested. Raises DataError if one has none."""
        pools = _pools(split.observations)
        counts = [
            len(
                pools[o.chunk].choices(group_code(o.instance), o.image, _references(split, o), self.options.distractors)
            )
            - 1
            for o in split.observations
        ]
        few_ones = [count for count in counts if count < self.options.distractors]
        if few_ones and not min(few_ones):
            raise DataError(
                f"{VALIDATION}: {few_ones.count(0):,} of {len(counts):,} queries have no distractor, that is, no different "
                "inference about another image",
                "prepare only the task inference (--task inference), or use the whole file",
            )
        if not few_ones:
            return []
        return [
            f"validation: {len(few_ones):,} of {len(counts):,} queries have fewer than {self.options.distractors} distractors, "
            f"{min(few_ones)} at least"
        ]


def observations(path: Path, name: str) -> Observations:
    """What a file holds for our split `name`. DataError that names the file, where an instance is listed twice or nothing is
    left."""
    listed = read_observations(path)
    remarks = [
        f"{name}: {counted(number, 'record')} {why} left out"
        for why, number in Counter(entry for entry in listed if isinstance(entry, str)).items()
    ]
    records = [entry for entry in listed if isinstance(entry, Observation)]
    if not records:
        raise DataError(
            f"{path} has no inferences; {'; '.join(remarks) or 'it is empty'}", "get the official file again"
        )
    twice = repeated([group_code(o.instance) for o in records])
    if twice is not None:
        instance = next(o.instance for o in records if group_code(o.instance) == twice)
        raise DataError(f"{path} lists instance {instance} more than once", "get the official file again")
    by_region: dict[object, list[str]] = {}
    for record in records:
        by_region.setdefault(record.region, []).append(record.inference)
    return Observations(records, {region: tuple(texts) for region, texts in by_region.items()}, tuple(remarks))


def _references(split: Observations, observation: Observation) -> tuple[str, ...]:
    """All inferences about the region, the observation's own first, each once."""
    return tuple(dict.fromkeys((observation.inference, *split.by_region[observation.region])))


def _pools(records: Sequence[Observation]) -> dict[int, Pool]:
    """What distractors are drawn from, by part of the file."""
    texts: dict[int, list[tuple[str, str]]] = {}
    for record in records:
        texts.setdefault(record.chunk, []).append((record.image, record.inference))
    return {chunk: Pool("sherlock distractors", of_chunk) for chunk, of_chunk in texts.items()}


def _scales(path: Path, by_path: Mapping[str, Observation]) -> dict[str, tuple[float, float]]:
    """By image that has another size than its record says: by how much its regions are to be scaled, (x, y).

    DataError naming those of another aspect ratio, by more than what rounding to whole pixels explains: nobody knows where
    the regions lie in them.
    """
    sized = [place for place in by_path if by_path[place].size]
    with ThreadPoolExecutor(max_workers=min(8, (os.cpu_count() or 1) + 1)) as pool:
        sizes = dict(zip(sized, pool.map(image_size, sized), strict=True))
    scales: dict[str, tuple[float, float]] = {}
    cut: list[str] = []
    for place, size in sizes.items():
        recorded = by_path[place].size
        if size == recorded:
            continue
        across, down = size[0] / recorded[0], size[1] / recorded[1]
        if abs(across - down) * min(recorded) > max(1.0, across, down):
            cut.append(f"{by_path[place].image} ({size[0]} x {size[1]}, recorded {recorded[0]} x {recorded[1]})")
        scales[by_path[place].image] = across, down
    if cut:
        raise DataError(
            f"{path}: {counted(len(cut), 'image')} with another aspect ratio than recorded: {few(cut)}",
            "get the uncropped images of the release that the records describe",
        )
    return scales


def _scaled(box: Box, scale: tuple[float, float]) -> Region:
    """A box in pixels of an image that is `scale` (x, y) times the recorded one; it keeps one pixel at least."""
    (left, top, width, height), (across, down) = box, scale
    return Region(round(left * across), round(top * down), max(1, round(width * across)), max(1, round(height * down)))
