"""Running Lightning, for every learner that trains with it.

`runner` has the training itself: what is fitted, saved, gone on with, reported and ended. `trainer` builds Lightning's
Trainer, `logs` are the files beside the checkpoints, `processes` is what several of them tell one another, `stopping` what a
signal does.
"""
