"""The index set of one prepared data set with the queries of another, which read as one data set."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import numpy as np

from icltool.contracts import NO_IMAGE, Example, IntArray, group_code
from icltool.contracts.json import Json
from icltool.store.prepared import PreparedDataset, Records

#: Between the names of the two in the name of a pair: QUERIES+INDEX.
BESIDE = "+"


def pair_name(queries: str, index: str) -> str:
    """What artefacts of the two data sets call them."""
    return f"{queries}{BESIDE}{index}"


def pair_fingerprint(queries: str, index: str) -> str:
    """A hash of both fingerprints."""
    return hashlib.blake2b(f"{queries}\n{index}".encode(), digest_size=16).hexdigest()


def names_of_pair(name: str, prepared: Collection[str]) -> tuple[str, str] | None:
    """(queries, index) of the prepared data sets that the name of a pair is made of; None for any other name."""
    if name in prepared:
        return None
    places = [place for place, character in enumerate(name) if character == BESIDE]
    pairs = ((name[:place], name[place + 1 :]) for place in places)
    return next(((q, i) for q, i in pairs if q in prepared and i in prepared), None)


class PairedDataset(PreparedDataset):
    """`split("train")` is the index set of `index`; every other split, the task and the metrics are those of `queries`.

    Ids of the two may be equal, and mean different examples. Their images are compared by their identities if both data sets
    name images alike (`namespaces`, of queries and index, are equal); else no image of one is an image of the other.
    """

    def __init__(self, queries: PreparedDataset, index: PreparedDataset, namespaces: tuple[str, str]) -> None:
        super().__init__(queries.folder, queries.manifest)
        self.queries, self.index = queries, index
        self.name = pair_name(queries.name, index.name)
        self.fingerprint = pair_fingerprint(queries.fingerprint, index.fingerprint)
        self.splits = ("train", *(split for split in queries.splits if split != "train"))
        self.moved = {**index.moved, **queries.moved}
        self._apart = namespaces[1] if namespaces[0] != namespaces[1] else ""

    def part(self, split: str) -> PreparedDataset:
        """See PreparedDataset."""
        return self.index if split == "train" else self.queries

    def identity(self) -> dict[str, Json]:
        """See PreparedDataset."""
        fingerprints: dict[str, Json] = {"queries": self.queries.fingerprint, "index": self.index.fingerprint}
        return {"query_dataset": self.queries.name, "index_dataset": self.index.name, "fingerprints": fingerprints}

    def image_files(self) -> list[str]:
        """See PreparedDataset."""
        return sorted({*self.queries.image_files(), *self.index.image_files()})

    def changed_images(self, own: Path) -> int:
        """See PreparedDataset."""
        return self.queries.changed_images(own) + self.index.changed_images(own)

    def check_images(self) -> None:
        """See PreparedDataset."""
        self.queries.check_images()
        self.index.check_images()

    def split(self, name: str) -> Records:
        """See PreparedDataset."""
        if name not in self._opened:
            records = self.part(name).split(name)
            if self._apart and name == "train":
                records = _RecordsApart(records, self._apart)
            self._opened[name] = records
        return self._opened[name]


class _RecordsApart(Records):
    """Records whose images and near-duplicate groups are none of another data set's. Texts that serve as the identity of an
    example without an image stay the same."""

    def __init__(self, records: Records, namespace: str) -> None:
        super().__init__(records.folder, records._rows, records._moved)
        self._namespace = namespace
        self._with_image = np.array([bool(image) for image in records.images], dtype=bool)
        self.image_ids = np.where(self._with_image, self._apart(records.image_ids), records.image_ids)
        self.more_image_ids = None if records.more_image_ids is None else self._apart(records.more_image_ids)
        self.groups = np.where(self._with_image, self._apart(records.groups), records.groups)

    def _apart(self, codes: IntArray) -> IntArray:
        distinct, places = np.unique(codes, return_inverse=True)
        own = np.array([self._code(code) for code in distinct.tolist()], dtype=np.int64)
        result: IntArray = own[places].reshape(codes.shape)
        return result

    def _code(self, code: int) -> int:
        return code if code in (-1, NO_IMAGE) else group_code(f"{self._namespace}\x00{code}")

    def _here(self, example: Example) -> Example:
        example = super()._here(example)
        if not example.image:
            return example
        return replace(
            example,
            image_id=self._code(example.image_id),
            more_image_ids=tuple(map(self._code, example.more_image_ids)),
            group=f"{self._namespace}: {example.group}" if example.group else "",
        )
