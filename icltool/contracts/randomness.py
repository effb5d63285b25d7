"""Random numbers keyed by their purpose, so that order, resuming and workers cannot change them."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable
from typing import Protocol, TypeVar

import numpy as np

from icltool.contracts.arrays import IntArray

#: The purpose of draws of queries, in every command that takes a sample of them.
QUERIES = "evaluate.queries"
#: The purpose of draws of queries from the index split.
TRAIN_QUERIES = "evaluate.train_queries"


class _HasId(Protocol):
    @property
    def id(self) -> int: ...


AnyExample = TypeVar("AnyExample", bound=_HasId)


def keyed_generator(seed: int, purpose: str, example_id: int = 0) -> np.random.Generator:
    """A generator that depends only on (seed, purpose, example id), never on how many draws came before.

    `purpose` names the draw (such as "sampler.random"), so that two components with one seed draw independently.
    """
    digest = hashlib.blake2b(f"{seed}\x00{purpose}\x00{example_id}".encode(), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest, "big"))


def drawn_ids(purpose: str, ids: IntArray) -> IntArray:
    """The positions of `ids`, int64 [n], in the order in which subsets take them. The order of two ids does not depend on
    the others."""
    start = f"{purpose}\x00"
    keys = [hashlib.blake2b(f"{start}{one}".encode(), digest_size=8).digest() for one in ids.tolist()]
    return np.lexsort((ids, np.array([int.from_bytes(key, "big") for key in keys], dtype=np.uint64))).astype(np.int64)


def drawn_examples(purpose: str, examples: Iterable[AnyExample], size: int) -> list[AnyExample]:
    """At most `size` of the examples, in their order: those that `drawn_ids` puts first. No more are held at a time."""
    start = f"{purpose}\x00"

    def rank(place: int, example: AnyExample) -> tuple[int, int, int, AnyExample]:
        key = hashlib.blake2b(f"{start}{example.id}".encode(), digest_size=8).digest()
        return int.from_bytes(key, "big"), example.id, place, example

    ranked = (rank(place, example) for place, example in enumerate(examples))
    smallest = heapq.nsmallest(size, ranked, key=lambda entry: entry[:3])
    return [example for _, _, _, example in sorted(smallest, key=lambda entry: entry[2])]


def drawn(purpose: str, total: int) -> IntArray:
    """All rows, int64 [total], in the order in which subsets take them: a smaller one is part of a larger one."""
    return keyed_generator(0, purpose).permutation(total).astype(np.int64)
