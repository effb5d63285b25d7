"""The learner `task-vector`: the state at the end of a prompt with demonstrations, averaged."""

from __future__ import annotations

from pathlib import Path

from icltool.components.learners.interventions.activations import ActivationExtraction, PromptOptions
from icltool.components.learners.options import OptionsLearner
from icltool.contracts import InterventionSet, Progress, TrainingOutcome


class TaskVector(OptionsLearner):
    """The task vector of Hendel et al. 2023 (arXiv:2310.15916): the output of one decoder layer at the last token of prompts
    with demonstrations, which replaces that of a prompt without them.

    As published, a development split chooses the layer. What differs: the vector is the mean over prompts, each with a query
    and demonstrations of its own (the paper takes one set of demonstrations, and its code the mean over two queries), and the
    layer is chosen by the mean log-probability of the answers, which needs no generation (the paper: by accuracy).
    """

    name = "task-vector"
    options_model = PromptOptions
    options: PromptOptions

    def learn_intervention(self, data: InterventionSet, folder: Path, seed: int, progress: Progress) -> TrainingOutcome:
        """See InterventionLearner. The history holds the development split's log-probability for each layer, the chosen one
        last."""
        extraction = ActivationExtraction(data, self.name, self.options, folder, seed, progress)
        states_by_layer = extraction.states(extraction.prompts, extraction.model.decoder_layers())
        return extraction.at_best_layer([states.double().mean(0).float() for states in states_by_layer], {})
