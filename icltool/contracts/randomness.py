"""Random numbers keyed by what they are drawn for, so that order, resumption and workers cannot change them."""

from __future__ import annotations

import hashlib

import numpy as np

from icltool.contracts.arrays import IntArray

#: What queries are drawn for, by every command that takes some of them.
QUERIES = "evaluate.queries"


def keyed_generator(seed: int, purpose: str, example_id: int = 0) -> np.random.Generator:
    """A generator that depends only on (seed, purpose, example id), never on how many draws came before.

    `purpose` names the draw ("sampler.random", say), so that two components with one seed draw independently.
    """
    digest = hashlib.blake2b(f"{seed}\x00{purpose}\x00{example_id}".encode(), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest, "big"))


def drawn(purpose: str, total: int) -> IntArray:
    """All rows, int64 [total], in the order in which subsets take them: a smaller one is part of a larger one."""
    return keyed_generator(0, purpose).permutation(total).astype(np.int64)
