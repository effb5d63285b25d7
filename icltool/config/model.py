"""Options of the stages that run an LVLM: which one, how it is loaded, and how many prompts it reads at once."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from icltool.config.base import StageConfig

_HIDDEN: dict[str, Any] = {"hidden_in_artefact": True}


class ModelConfig(StageConfig):
    """The model and how it runs."""

    model: str = Field(
        default="idefics-9b", description="LVLM that scores or answers", json_schema_extra={"complete": "models"}
    )
    model_path: str | None = Field(default=None, description="folder of the weights, or OWNER/NAME to download them")
    device: str = Field(
        default="auto", description="cpu, cuda, cuda:1 …; auto takes a GPU when there is one", json_schema_extra=_HIDDEN
    )
    dtype: str = Field(
        default="auto", description="float32, bfloat16 or float16; auto: bfloat16 on a GPU, else float32"
    )
    batch_size: int = Field(default=64, ge=1, description="prompts per forward pass", json_schema_extra=_HIDDEN)
    image_cache_mb: int = Field(
        default=2048,
        ge=0,
        description="memory for encoded images, in MB; 0 encodes each image anew",
        json_schema_extra=_HIDDEN,
    )

    def model_options(self) -> dict[str, Any]:
        """What the model's class takes from these options."""
        options: dict[str, Any] = {"device": self.device, "dtype": self.dtype}
        if self.model_path is not None:
            options["path"] = self.model_path
        return options
