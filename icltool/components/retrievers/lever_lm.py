"""Retrieval with the trained selector."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pydantic import Field

from icltool.components.learners.lever_lm.checkpoint import read_config
from icltool.contracts import IndexSet, IntArray, Options, QuerySet
from icltool.errors import ConfigError

if TYPE_CHECKING:
    from icltool.components.learners.lever_lm.selector import LeverLMSelector


class SelectorOptions(Options):
    """Which weights to load, and how to decode sequences."""

    folder: Path = Field(description="checkpoint folder")
    checkpoint: str = Field(
        "min_vl", description="weights to load: min_vl (lowest validation loss), min_tl (lowest training loss) or last"
    )
    batch_size: int = Field(256, ge=1, description="queries to decode at once; does not change the result")
    device: str | None = Field(None, description="device to run on; default: a GPU if there is one")
    beams: int = Field(1, ge=1, description="number of beams; 1 decodes greedily")
    components: str | None = Field(
        None, description="function that builds an encoder with trained towers, as package.module:name; set by icltool"
    )


class LeverLMRetriever:
    """Decodes sequences, in prompt order, with a Lever-LM checkpoint. The function `components` builds a component from a
    kind and a name; icltool's registration sets it. It builds the encoder of a checkpoint whose CLIP towers were trained
    along. Raises StoreError if the folder holds no such checkpoint.
    """

    options_model = SelectorOptions
    #: The learner whose checkpoints it reads.
    learner = "lever-lm"
    ranked = False

    def __init__(self, options: SelectorOptions) -> None:
        self.options = options
        self._config, self._trained = read_config(options.folder)
        self._selector: LeverLMSelector | None = None

    @property
    def needs(self) -> frozenset[str]:
        """The inputs of the checkpoint's variant: stored embeddings, and "images" or "texts" for its own towers."""
        return self._trained.decoding_needs

    @property
    def nested(self) -> bool:
        """False for a selector that generates from the query outwards (another shot then goes to the front), and with
        beams: the best shorter sequence need not be the beginning of the best longer one."""
        return not self._trained.reverse_seq and self.options.beams == 1

    @property
    def encoder(self) -> str | None:
        """The encoder whose embeddings the selector was trained on; None if the checkpoint does not record it."""
        name = self._config.provenance.get("encoder")
        return None if name is None else str(name)

    @property
    def query(self) -> str:
        """ "text" if the checkpoint's variant reads the query's text."""
        return "text" if "text" in self._trained.reads.query else "image"

    def retrieve(self, index: IndexSet, queries: QuerySet, shots: int, seed: int) -> IntArray:
        """See Retriever; `seed` has no effect. Raises DataError for an index set or embeddings that the selector was not
        trained for. Features that its own towers compute for the index set are stored in the folder `features` beside the
        checkpoint.
        """
        options = self.options
        if self._selector is None:
            from icltool.components.learners.lever_lm.selector import LeverLMSelector

            builder = None if options.components is None else partial(_function(options.components), "encoders")
            self._selector = LeverLMSelector.load(options.folder, options.checkpoint, options.device, builder)
        return self._selector.decode(index, queries, shots, options.batch_size, options.beams)


def _function(target: str) -> Callable[..., Any]:
    """The function that "package.module:name" names. ConfigError if there is none."""
    module, _, name = target.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"lever-lm: components is {target!r}, which cannot be imported: {error}") from error
    if not callable(function):
        raise ConfigError(f"lever-lm: components is {target!r}, which is not a function")
    return cast("Callable[..., Any]", function)
