"""Retrieval with the trained selector."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from icltool.components.learners.lever_lm.checkpoint import read_config
from icltool.contracts import IndexSet, IntArray, QuerySet
from icltool.errors import ConfigError

if TYPE_CHECKING:
    from icltool.components.learners.lever_lm.selector import LeverLMSelector


class LeverLMRetriever:
    """Decoding of a Lever-LM checkpoint, in the order of the prompt.

    `folder` is the checkpoint folder, `checkpoint` is last, min_vl or min_tl, `beams` how many hypotheses are kept while
    a sequence is decoded (1: greedy, as published), `batch_size` how many queries are decoded at once (no answer depends
    on it), `device` torch's name of a device (None: CUDA where there is any). `components` is where to find the function
    ("package.module:name") that builds a component of a kind and a name; icltool's registration sets it. It is asked for
    the encoder of a checkpoint whose towers of CLIP were trained along.
    Raises StoreError when the folder holds no such checkpoint.
    """

    #: Whose checkpoints it reads.
    learner = "lever-lm"
    ranked = False

    def __init__(
        self,
        folder: str | Path,
        checkpoint: str = "min_vl",
        batch_size: int = 256,
        device: str | None = None,
        beams: int = 1,
        components: str | None = None,
    ) -> None:
        if type(beams) is not int or beams < 1:
            raise ConfigError(f"{self.learner}: beams is {beams!r}", "1 decodes greedily, 5 keeps five hypotheses")
        self.beams, self.components = beams, components
        self.folder, self.checkpoint, self.batch_size, self.device = Path(folder), checkpoint, batch_size, device
        self._config, self._options = read_config(self.folder)
        self._selector: LeverLMSelector | None = None

    @property
    def needs(self) -> frozenset[str]:
        """What the checkpoint's variant reads: stored embeddings, and "images" or "texts" for towers of its own."""
        return self._options.decoding_needs

    @property
    def nested(self) -> bool:
        """False for a selector that generates from the query outwards (one more shot then goes to the front), and with
        beams: the best shorter sequence need not begin the best longer one."""
        return not self._options.reverse_seq and self.beams == 1

    @property
    def encoder(self) -> str | None:
        """The encoder whose embeddings the selector was trained on; None where the checkpoint does not say."""
        name = self._config.provenance.get("encoder")
        return None if name is None else str(name)

    @property
    def query(self) -> str:
        """ "text" where the checkpoint's variant reads the query's text."""
        return "text" if "text" in self._options.reads.query else "image"

    def retrieve(self, index: IndexSet, queries: QuerySet, shots: int, seed: int) -> IntArray:
        """See Retriever; `seed` changes nothing. Raises DataError for index sets or embeddings of others.

        Features of the index set by towers of its own are kept in the folder `features` beside the checkpoint.
        """
        if self._selector is None:
            from icltool.components.learners.lever_lm.selector import LeverLMSelector

            builder = None if self.components is None else partial(_function(self.components), "encoders")
            self._selector = LeverLMSelector.load(self.folder, self.checkpoint, self.device, builder)
        return self._selector.decode(index, queries, shots, self.batch_size, self.beams)


def _function(target: str) -> Callable[..., Any]:
    """What "package.module:name" names. ConfigError when there is no such function."""
    module, _, name = target.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"lever-lm: components is {target!r}, which is not there: {error}") from error
    if not callable(found):
        raise ConfigError(f"lever-lm: components is {target!r}, which is no function")
    return cast("Callable[..., Any]", found)
