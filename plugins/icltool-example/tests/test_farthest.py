from __future__ import annotations

import numpy as np
from icltool_example.farthest import FarthestSampler

from icltool.testing import check_sampler, make_anchors, make_index


def test_it_conforms() -> None:
    check_sampler(FarthestSampler)


def test_pools_begin_with_the_least_similar() -> None:
    index = make_index(90)
    anchors = make_anchors(index, [5, 17])
    pools = FarthestSampler().sample(index, anchors, 8, seed=0)
    assert index.image is not None
    unit = index.image / np.linalg.norm(index.image, axis=1, keepdims=True)
    for row, pool in zip((5, 17), pools, strict=True):
        similarity = unit @ unit[row]
        assert (np.diff(similarity[pool]) >= -1e-6).all()
        others = np.setdiff1d(np.arange(90), pool)
        assert similarity[pool].max() <= similarity[others].min() + 1e-6
