"""Write sequences, selectors, models and results in other formats."""

RANK = 70
