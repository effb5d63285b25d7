"""The options of LIVE."""

from __future__ import annotations

from pydantic import Field

from icltool.components.learners.interventions.options import InterventionOptions


class LiveOptions(InterventionOptions):
    """Everything that decides what LIVE learns from its examples and a seed."""

    alpha: float = Field(
        0.1, description="initial weight of every layer's vector (with alpha_sigmoid before the sigmoid)"
    )
    alpha_sigmoid: bool = Field(False, description="weights between 0 and 1: the sigmoid of what is learned")
    alpha_lr: float = Field(1e-2, gt=0, description="peak learning rate of the weights")
    init_std: float = Field(0.01, ge=0, description="standard deviation of the vectors' initial values")
