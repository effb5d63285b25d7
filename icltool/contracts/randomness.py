"""Random numbers keyed by what they are drawn for, so that order, resumption and workers cannot change them."""

from __future__ import annotations

import hashlib

import numpy as np


def keyed_generator(seed: int, purpose: str, example_id: int = 0) -> np.random.Generator:
    """A generator that depends only on (seed, purpose, example id), never on how many draws came before.

    `purpose` names the draw ("sampler.random", say), so that two components with one seed draw independently.
    """
    digest = hashlib.blake2b(f"{seed}\x00{purpose}\x00{example_id}".encode(), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest, "big"))
