"""Training with Lightning, for every learner that uses it.

`runner` runs a training: fitting, saving, resuming, reporting and stopping. `trainer` builds Lightning's Trainer, `logs`
writes the logs, `processes` coordinates several processes, and `stopping` handles signals.
"""
