"""Finds equal vectors."""

from __future__ import annotations

import numpy as np

from icltool.contracts import FloatArray, IntArray

_ROWS = 4096
_KEYS = np.random.default_rng(0).integers(0, 2**63, 2**16, dtype=np.uint64) * 2 + 1


def distinct_rows(vectors: FloatArray) -> tuple[IntArray, IntArray]:
    """(the first row of each distinct vector, int64 [U] ascending; the code of each row, its position in that array, int64
    [N]). Rows are distinguished by a 64-bit hash, and rows with the same hash are compared: equal codes always mean equal
    vectors. (Of vectors that differ but share a hash, the later ones each get a code of their own, even if they are equal.)
    -0.0 counts as 0.0.
    """
    hashes = np.empty(len(vectors), dtype=np.uint64)
    for start in range(0, len(vectors), _ROWS):
        hashes[start : start + _ROWS] = _hashes(vectors[start : start + _ROWS])
    _, first, codes = np.unique(hashes, return_index=True, return_inverse=True)
    representative = first[codes.reshape(-1)]
    others = np.flatnonzero(representative != np.arange(len(vectors)))
    for start in range(0, len(others), _ROWS):
        rows = others[start : start + _ROWS]
        apart = rows[(vectors[rows] != vectors[representative[rows]]).any(axis=1)]
        representative[apart] = apart
    distinct, codes = np.unique(representative, return_inverse=True)
    return distinct.astype(np.int64), codes.reshape(-1).astype(np.int64)


def _hashes(block: FloatArray) -> np.ndarray:
    """A 64-bit hash of each row, uint64 [n]: its words, mixed, times odd keys, summed."""
    bits = np.ascontiguousarray(block + np.float32(0.0)).view(np.uint32)
    if bits.shape[1] % 2:
        bits = np.pad(bits, ((0, 0), (0, 1)))
    words = np.ascontiguousarray(bits).view(np.uint64)
    words = words ^ (words >> np.uint64(29))
    words *= np.resize(_KEYS, words.shape[1])
    total: np.ndarray = words.sum(axis=1, dtype=np.uint64)
    return total
