"""Configuration: one model per stage, profiles, and the order in which their values win."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from icltool.config.base import StageConfig

#: The stages in pipeline order; each has its model in `icltool.config.<stage>`.
STAGES: tuple[str, ...] = ("prepare", "embed", "generate", "train", "evaluate", "caption", "export", "report", "app")


def stage_model(stage: str) -> type[StageConfig]:
    """The configuration model of a stage: `icltool.config.<stage>.<Stage>Config`."""
    module = importlib.import_module(f"icltool.config.{stage}")
    model: type[StageConfig] = getattr(module, f"{stage.capitalize()}Config")
    return model


def stage_models() -> dict[str, type[StageConfig]]:
    """The models of all stages, in pipeline order."""
    return {stage: stage_model(stage) for stage in STAGES}
