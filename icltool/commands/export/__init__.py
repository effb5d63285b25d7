"""Export sequences, selectors, models, results, plans or chats."""

RANK = 70
