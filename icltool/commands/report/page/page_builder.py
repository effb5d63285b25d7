"""A page whose images are not made yet, and what the gathering of all kinds of pages shares."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from icltool.commands.report.page.content import Demonstration, Page, Query, Source, Thumbnail
from icltool.commands.report.page.examples import DatasetKey
from icltool.contracts import Example, keyed_generator
from icltool.results.privacy import without_places

Imaged = TypeVar("Imaged", Query, Demonstration)
#: Tasks whose queries are a text by itself, and those that ask for a style.


@dataclass(frozen=True)
class Draft:
    """`page` without images: its image numbers are positions in `references`, those of the images to be made.

    `references` are as `Example.image` has them; `large` are the positions of queries' images, the others are of
    demonstrations alone; `uses` counts how often an image would be seen, by position; paths are told from `workspace`.
    """

    page: Page
    references: tuple[str, ...]
    large: frozenset[int]
    uses: tuple[int, ...]
    workspace: Path

    def finished(self, images: Sequence[Thumbnail | None], remarks: Iterable[str] = ()) -> Page:
        """The page with these images, one for each reference, None where there is none; `remarks` are added to its own."""
        places: dict[int, int] = {}
        kept_images: list[Thumbnail] = []
        for position, image in enumerate(images):
            if image is not None:
                places[position] = len(kept_images)
                kept_images.append(image)
        return replace(
            self.page,
            images=tuple(kept_images),
            queries=tuple(_moved(query, places) for query in self.page.queries),
            demonstrations=tuple(_moved(one, places) for one in self.page.demonstrations),
            remarks=(*self.page.remarks, *(without_places(remark, self.workspace) for remark in remarks)),
        )

    def without_images(self) -> Page:
        """The page as it is when every image is left out."""
        return self.finished([None] * len(self.references))


def _moved(record: Imaged, places: dict[int, int]) -> Imaged:
    return replace(record, images=tuple(places[image] for image in record.images if image in places))


class Catalogue:
    """Collects queries, demonstrations and images, each once. Where an example is not known, only its id is shown."""

    def __init__(self) -> None:
        self.queries: list[Query] = []
        self.demonstrations: list[Demonstration] = []
        self._references: dict[str, int] = {}
        self._large: set[int] = set()
        self._uses: dict[int, int] = {}
        self._queries: dict[tuple[DatasetKey, int], int] = {}
        self._demonstrations: dict[tuple[DatasetKey, int, str], int] = {}

    def query(
        self,
        key: DatasetKey,
        id: int,
        dataset: str,
        example: Example | None,
        references: Iterable[str],
        images: Iterable[str],
    ) -> int:
        """The position of the query with this id; what else is given counts where it is new."""
        if (key, id) not in self._queries:
            self._queries[key, id] = len(self.queries)
            question = "" if example is None else question_text(example)
            positions = self._images(images, large=True)
            self.queries.append(Query(id, readable(dataset), question, tuple(map(readable, references)), positions))
        return self._queries[key, id]

    def demonstration(
        self, key: DatasetKey, id: int, example: Example | None, images: Iterable[str], rule: str = ""
    ) -> int:
        """The position of the demonstration with this id, as of `query`, with its label for the query's `rule`. To be asked
        once for each time it is shown."""
        label = "" if example is None else example.labels.get(rule, example.label)
        if (key, id, label) not in self._demonstrations:
            self._demonstrations[key, id, label] = len(self.demonstrations)
            texts = ("", "") if example is None else (question_text(example), readable(label))
            self.demonstrations.append(Demonstration(id, *texts, self._images(images, large=False)))
        position = self._demonstrations[key, id, label]
        for image in self.demonstrations[position].images:
            self._uses[image] += 1
        return position

    def known_query(self, key: DatasetKey, id: int) -> int | None:
        """The position of this query if it is there."""
        return self._queries.get((key, id))

    def known_demonstration(self, key: DatasetKey, id: int) -> int | None:
        """The position of this demonstration if it is there, with whichever label."""
        return next((place for (*known, _), place in self._demonstrations.items() if known == [key, id]), None)

    def draft(self, page: Page, workspace: Path) -> Draft:
        """`page` with what was collected, to be shared: what it says of files is without names, and told from the workspace."""
        page = _shared(page, workspace)
        whole = replace(page, queries=tuple(self.queries), demonstrations=tuple(self.demonstrations))
        uses = tuple(self._uses[position] for position in range(len(self._references)))
        return Draft(whole, tuple(self._references), frozenset(self._large), uses, workspace)

    def _images(self, images: Iterable[str], large: bool) -> tuple[int, ...]:
        """The positions of the images; "" is none."""
        positions = tuple(self._references.setdefault(image, len(self._references)) for image in images if image)
        for position in positions:
            self._uses.setdefault(position, 0)
        if large:
            self._large.update(positions)
        return positions


def _shared(page: Page, workspace: Path) -> Page:
    """The page with paths and names taken out of all texts but the data's own and the title."""

    @functools.cache
    def shortened(text: str) -> str:
        return without_places(text, workspace)

    def lines(pairs: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
        return tuple((shortened(name), shortened(value)) for name, value in pairs)

    return replace(
        page,
        sources=tuple(
            Source(
                shortened(one.title),
                shortened(_within(one.path, workspace)),
                lines(one.lines),
                tuple(map(shortened, one.remarks)),
            )
            for one in page.sources
        ),
        settings=tuple(replace(one, lines=lines(one.lines)) for one in page.settings),
        results=tuple(replace(one, missing=shortened(one.missing)) if one.missing else one for one in page.results),
        remarks=tuple(map(shortened, page.remarks)),
    )


def _within(path: str, workspace: Path) -> str:
    """The path told from the workspace where it lies in there, else as it is."""
    try:
        return Path(path).resolve().relative_to(workspace.resolve()).as_posix()
    except (OSError, RuntimeError, ValueError):
        return path


def question_text(example: Example) -> str:
    """What the prompt says of an example beside its image and its label: question, clue, style or the text to classify (not a
    caption, which is the label itself)."""
    text = "" if example.text == example.label else example.text
    return readable(example.question or example.style or text)


def readable(text: object) -> str:
    """The text as it is, but for lone surrogates, which no UTF-8 file can hold: they become U+FFFD."""
    plain = str(text)
    try:
        plain.encode()
    except UnicodeEncodeError:
        return plain.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return plain


def drawn(ids: Iterable[int], count: int, seed: int) -> list[int]:
    """`count` of the ids, ascending, at most all. Which ones depends on each id and the seed alone, so that a larger number
    keeps those of a smaller one."""
    known = sorted(set(ids))
    if count >= len(known):
        return known
    keys = [keyed_generator(seed, "report.queries", one).random() for one in known]
    return sorted(known[position] for position in np.argsort(keys, kind="stable")[:count].tolist())


def sample_remark(count: int, known: int, noun: str, seed: int) -> list[str]:
    """A line that says that the gallery is a sample, where it is."""
    if count >= known:
        return []
    return [f"the gallery has {count:,} of {known:,} {noun}, drawn with seed {seed}: --max-queries shows more"]
