"""Retrieval with the trained selector."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from icltool.contracts import IndexSet, IntArray, QuerySet

if TYPE_CHECKING:
    from icltool.learners.lever_lm.selector import LeverLMSelector


class LeverLMRetriever:
    """Greedy decoding of a Lever-LM checkpoint, in the order of the prompt.

    `folder` is the checkpoint folder, `checkpoint` is last, min_vl or min_tl, `batch_size` how many queries are
    decoded at once (no answer depends on it), `device` torch's name of a device (None: CUDA where there is any).
    Raises StoreError when the folder holds no such checkpoint.
    """

    #: Whose checkpoints it reads.
    learner = "lever-lm"
    ranked = False

    def __init__(
        self, folder: str | Path, checkpoint: str = "min_vl", batch_size: int = 256, device: str | None = None
    ) -> None:
        from icltool.learners.lever_lm.checkpoint import read_config

        self.folder, self.checkpoint, self.batch_size, self.device = Path(folder), checkpoint, batch_size, device
        _, self._options = read_config(self.folder)
        self._selector: LeverLMSelector | None = None

    @property
    def needs(self) -> frozenset[str]:
        """The embeddings that the checkpoint's variant reads."""
        return self._options.reads.needs

    @property
    def nested(self) -> bool:
        """False for a selector that generates from the query outwards: one more shot then goes to the front."""
        return not self._options.reverse_seq

    def retrieve(self, index: IndexSet, queries: QuerySet, shots: int, seed: int) -> IntArray:
        """See Retriever; `seed` changes nothing. Raises DataError for index sets or embeddings of others."""
        if self._selector is None:
            from icltool.learners.lever_lm.selector import LeverLMSelector

            self._selector = LeverLMSelector.load(self.folder, self.checkpoint, self.device)
        return self._selector.decode(index, queries, shots, self.batch_size)
