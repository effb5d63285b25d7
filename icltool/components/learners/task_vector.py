"""The learner `task-vector`: the state at the end of a prompt with demonstrations, averaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from icltool.components.interventions.last_token import end_change
from icltool.components.learners.options import parsed
from icltool.components.learners.steering.activations import PromptOptions, Steering, max_of, output_changed
from icltool.contracts import Progress, SteeringSet, TrainingOutcome

METHOD = "task-vector"


class TaskVector:
    """The task vector of Hendel et al. 2023 (arXiv:2310.15916): the output of one decoder layer at the last token of prompts
    with demonstrations, put in its place in a prompt without.

    As published, a development split chooses the layer. What differs: the vector is the mean over prompts, each with a query
    and demonstrations of its own (the paper takes one set of demonstrations, and its code the mean over two queries), and the
    layer is chosen by the mean log-probability of the answers, which needs no generation (the paper: by accuracy).
    Options: see PromptOptions; ConfigError for a wrong one.
    """

    option_model = PromptOptions

    def __init__(self, **options: Any) -> None:
        self.options = parsed(METHOD, PromptOptions, options)

    def identity(self) -> dict[str, Any]:
        """The resolved options, defaults included, JSON-ready."""
        return self.options.identity()

    def steer(self, data: SteeringSet, folder: Path, seed: int, progress: Progress) -> TrainingOutcome:
        """See SteeringLearner. The history holds the development split's log-probability for each layer, the chosen one
        last."""
        import torch

        making = Steering(data, METHOD, self.options, folder, seed, progress)
        layers = making.model.decoder_layers()
        vectors = [states.double().mean(0).float() for states in making.states(making.shown, layers)]
        values, plain = making.tried(
            [output_changed(layer, end_change(METHOD, v).at) for layer, v in zip(layers, vectors, strict=True)]
        )
        layer, value = max_of(values)
        figures = {
            "layer": layer,
            "log_prob": value,
            "log_prob without": plain,
            "log_prob by layer": [round(v, 4) for v in values],
        }
        history = [{"layer": float(number), "log_prob": value} for number, value in enumerate(values)]
        return making.written({"vector": vectors[layer], "layer": torch.tensor([layer])}, figures, history)
