"""Lever-LM: a small causal model over the index set as vocabulary that generates demonstration sequences.

`options` and `checkpoint` import no torch at the top; `learner` imports it when training starts. The parts are `rows`
(training rows and batches), `networks` (the published sequence models, one class each: a further network is one more
entry of its table), `model` (input embedding, loss), `pointer` (the selector that fits any index set), `clip` (towers
that run on every step), `module` and `training` (Lightning), `checkpoint` (files), `decoding`, `features` (by towers that
a checkpoint holds) and `selector`.
"""
