"""Lever-LM: a small causal model with the index set as its vocabulary that generates demonstration sequences.

`options` and `checkpoint` do not import torch at the top; `learner` imports it when training starts. The other modules are
`rows` (training rows and batches), `networks` (the published sequence models), `model` (input embedding, loss), `pointer`
(the selector for any index set), `clip` (towers that run in every step), `module` and `training` (Lightning), `checkpoint`
(files), `decoding`, `features` (computed with the towers in a checkpoint) and `selector`.
"""
