"""No demonstrations at all."""

from __future__ import annotations

import numpy as np

from icltool.contracts import IndexSet, IntArray, QuerySet
from icltool.errors import ConfigError


class ZeroShot:
    """The model answers from the query alone."""

    needs: frozenset[str] = frozenset()
    ranked = False
    nested = True

    def retrieve(self, index: IndexSet, queries: QuerySet, shots: int, seed: int) -> IntArray:
        """int64 [Q, 0]. Raises ConfigError for any other number of shots."""
        if shots != 0:
            raise ConfigError(
                f"method 'zero-shot' gives no demonstrations, but --shots asks for {shots}", "use --shots 0"
            )
        return np.empty((len(queries), 0), dtype=np.int64)
