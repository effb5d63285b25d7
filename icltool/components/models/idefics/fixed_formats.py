"""Prompts of IDEFICS and IDEFICS2, whose formats are fixed: writing them takes no file of the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from icltool.components.models.idefics.options import IdeficsOptions
from icltool.components.models.shared.adapter import PromptAdapter
from icltool.components.models.shared.prompt_format import PromptFormat
from icltool.components.models.shared.weights import weights_of
from icltool.contracts import PromptRenderer
from icltool.errors import ConfigError


class FixedFormats(PromptAdapter):
    """An adapter whose prompt format follows from the template alone."""

    #: By the name of the template.
    formats: ClassVar[Mapping[str, PromptFormat]]

    @classmethod
    def prompt_renderer(cls, options: IdeficsOptions) -> PromptRenderer:
        """See RendersPrompts. If the model is not on this machine, the renderer counts no tokens."""
        try:
            weights_of(options)
        except ConfigError:
            if options.path is not None:
                raise
            return cls.formats[options.template]
        return super().prompt_renderer(options)
