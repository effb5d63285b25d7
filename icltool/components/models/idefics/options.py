"""Options of IDEFICS and IDEFICS2."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from icltool.components.models.shared.options import OwnPrompt, TransformersOptions


class IdeficsOptions(OwnPrompt, TransformersOptions):
    """Options of IDEFICS and IDEFICS2."""

    template: Literal["lever-lm", "live"] = Field(
        "lever-lm", title="prompt template", description="write prompts as in the published runs of Lever-LM or of LIVE"
    )
