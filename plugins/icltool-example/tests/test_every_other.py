from __future__ import annotations

import numpy as np
from icltool_example.every_other import EveryOther

from icltool.testing import check_retriever, make_index, make_queries


def test_it_conforms() -> None:
    check_retriever(EveryOther)


def test_every_other_row_is_taken() -> None:
    index = make_index(30)
    among = np.array([[7, 3, 9, 1], [4, 8, 2, -1]])
    rows = EveryOther().retrieve(index, make_queries(index, [20, 21]), 2, seed=0, among=among)
    assert rows.tolist() == [[7, 9], [4, 2]]
