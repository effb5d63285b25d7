"""List models, data sets, samplers, scorers and other components."""

RANK = 110
