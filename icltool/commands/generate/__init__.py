"""Search for the demonstration sequences that help the model most."""

RANK = 30
