"""The learner `captioner`: fine-tunes a model on the captions of the index set."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from icltool.components.learners.captioner import card
from icltool.components.learners.captioner.options import CaptionerOptions, metric_name, with_recipe
from icltool.components.learners.captioner.rewards import Rewards
from icltool.components.learners.options import OptionsLearner
from icltool.contracts import FineTuningSet, Progress, SupportsFineTuning, TrainingOutcome

if TYPE_CHECKING:
    from icltool.components.learners.captioner.items import Items
    from icltool.components.learners.captioner.parts import TrainedParts

#: The part that self-critical training freezes, if a model has a part of this name.
_EMBEDDINGS = "embeddings"


class Captioner(OptionsLearner):
    """Fine-tuning by cross-entropy with label smoothing, optionally with image-text matching as a second task, or by
    self-critical sequence training. Options that are not set come from the model's recipe."""

    name = "captioner"
    options_model = CaptionerOptions
    options: CaptionerOptions

    @property
    def starts_from_trained(self) -> bool:
        """See StartsFromTrained."""
        return self.options.scst

    def tune(self, data: FineTuningSet, folder: Path, seed: int, progress: Progress) -> TrainingOutcome:
        """See FineTuningLearner. Raises ConfigError for a model that cannot be trained and for unsuitable options, DataError
        for empty sets and unreadable images, KeyboardInterrupt on Ctrl-C and SIGTERM, which keep finished steps."""
        from icltool.components.learners.captioner.fitting import CaptionerTraining
        from icltool.components.learners.captioner.items import Items
        from icltool.components.learners.captioner.matching import Matching
        from icltool.components.learners.captioner.module import CaptionerModule
        from icltool.components.learners.captioner.parts import tunable_model
        from icltool.components.learners.captioner.scst import SelfCritical, check_beams
        from icltool.components.learners.captioner.validation import Validation
        from icltool.components.learners.fitting.runner import fit
        from icltool.components.learners.fitting.trainer import seeded

        model = tunable_model(data)
        options = with_recipe(self.options, model.fine_tuning_recipe(data.task.name))
        data = replace(data, generation=options.searched(data.generation))
        if options.scst:
            check_beams(data)
        if options.image_size is not None:
            model.resize_images(options.image_size)
        parts = _parts(model, options)
        items = Items(data.examples, options.learned(data.task), options.max_train_size, seed)
        validation = Validation(data, options, seed)
        matching = Matching(items, options.itm_prompt, seed) if options.itm else None
        about = card.about_fine_tuning(data, seed, options.decided(), len(items.rows), len(items))
        with ExitStack() as stack:
            critic = None
            if options.scst:
                critic = SelfCritical(data, stack.enter_context(_rewards(data, items, options)))
            module = CaptionerModule(data, items, parts, options, seed, matching, critic)
            with seeded(seed):
                outcome = fit(CaptionerTraining(module, validation, folder, about, progress))
        return replace(outcome, checkpoints={name: outcome.checkpoints[name] for name in ("best", "last")})


def _parts(model: SupportsFineTuning, options: CaptionerOptions) -> TrainedParts:
    from icltool.components.learners.captioner.parts import TrainedParts

    known, frozen = model.fine_tuning_parts(), list(options.freeze)
    if options.scst and _EMBEDDINGS in known and _EMBEDDINGS not in frozen:
        frozen.append(_EMBEDDINGS)
    return TrainedParts(model.network, known, frozen)


def _rewards(data: FineTuningSet, items: Items, options: CaptionerOptions) -> Rewards:
    return Rewards(data.metric, metric_name(options.scst_metric), items.references, options.reward_workers)
