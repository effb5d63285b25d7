"""The options of LIVE."""

from __future__ import annotations

from pydantic import Field

from icltool.components.learners.interventions.options import InterventionOptions


class LiveOptions(InterventionOptions):
    """All options that, with the examples and a seed, determine what LIVE learns."""

    alpha: float = Field(
        0.1, description="initial weight of the vector of each layer, before the sigmoid of alpha_sigmoid"
    )
    alpha_sigmoid: bool = Field(False, description="learn weights between 0 and 1, by a sigmoid")
    alpha_lr: float = Field(1e-2, gt=0, description="peak learning rate of the vectors' weights")
    init_std: float = Field(0.01, ge=0, description="standard deviation of the vectors' initial values")
