"""The learner `captioner`: fine-tunes a model's own weights on captions."""
