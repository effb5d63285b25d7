"""Prompts of IDEFICS and IDEFICS2, whose formats are fixed: writing them takes no file of the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from icltool.components.models.idefics.options import IdeficsOptions
from icltool.components.models.shared.adapter import PromptAdapter
from icltool.components.models.shared.prompt_format import PromptFormat, own_prompt
from icltool.components.models.shared.weights import weights_of
from icltool.contracts import PromptRenderer
from icltool.errors import ConfigError


class FixedFormats(PromptAdapter):
    """An adapter whose prompt format follows from the template alone."""

    #: By the name of the template.
    formats: ClassVar[Mapping[str, PromptFormat]]

    @classmethod
    def format_of(cls, options: IdeficsOptions) -> PromptFormat:
        """The format of a template, with the user's prompt on top."""
        return own_prompt(cls.formats[options.template], options.prompt)

    @classmethod
    def prompt_renderer(cls, options: IdeficsOptions) -> PromptRenderer:
        """See RendersPrompts. If the model is not on this machine, the renderer counts no tokens."""
        try:
            weights_of(options)
        except ConfigError:
            if options.path is not None:
                raise
            return cls.format_of(options)
        return super().prompt_renderer(options)
