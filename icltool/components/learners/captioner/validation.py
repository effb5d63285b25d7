"""Validation: metrics of captions generated for development examples, and the loss on their own captions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from icltool.components.learners.captioner.items import PlainImages, drawn, loader
from icltool.components.learners.captioner.options import CaptionerOptions
from icltool.components.learners.captioner.parts import tunable_model
from icltool.contracts import (
    Augmentation,
    CorpusMetric,
    Example,
    FineTuningSet,
    Judgement,
    Metric,
    Progress,
    too_few_references,
)
from icltool.contracts.metric import ChecksItself, ReadsField
from icltool.errors import DataError

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

    from icltool.components.learners.captioner.module import CaptionerModule

#: Batches generated between two updates of the progress.
_BATCHES = 8


class Validation:
    """Evaluates a model on `development_size` development examples. `chosen` are metrics, or ("loss",) alone.

    Raises DataError if there are no examples.
    """

    def __init__(self, data: FineTuningSet, options: CaptionerOptions, seed: int) -> None:
        self.data, self.workers = data, options.workers
        self.chosen = options.chosen_by(data.task)
        rows = drawn(len(data.development), options.development_size, seed, "captioner.development")
        self.examples: list[Example] = data.development.rows(rows)
        if not self.examples:
            raise DataError(
                "there are no development examples by which to choose the best weights", "use a larger data set"
            )
        self._metrics = [] if self.chosen == ("loss",) else [data.metric(name) for name in self.chosen]
        for metric in self._metrics:
            if isinstance(metric, ChecksItself):
                metric.check()
            if (fault := too_few_references(metric, lambda: (e.references for e in self.examples))) is not None:
                raise fault

    def figures(self, module: CaptionerModule, progress: Progress) -> dict[str, float]:
        """`val_loss` (nats per token), `val_<metric>` as printed, and `selected`, which is largest for the best weights.

        Each process generates its share, and all get the same figures. The module is in eval mode meanwhile.
        """
        trainer = module.trainer
        own = list(range(trainer.global_rank, len(self.examples), trainer.world_size))
        training = module.training
        module.eval()
        try:
            with torch.no_grad(), trainer.precision_plugin.forward_context():
                figures = {"val_loss": self._loss(module, own)}
                if self._metrics:
                    answers = self._answers(own, progress if trainer.is_global_zero else None)
                    figures |= self._metric_figures(_gathered(trainer, own, answers))
        finally:
            module.train(training)
        figures["selected"] = (
            sum(figures[f"val_{name}"] for name in self.chosen) if self._metrics else -figures["val_loss"]
        )
        return figures

    def _loss(self, module: CaptionerModule, own: Sequence[int]) -> float:
        """The mean over all tokens of the examples' targets, without label smoothing."""
        model = tunable_model(self.data)
        size, total = self.data.batch_size, torch.zeros(2, dtype=torch.float64)
        reader = model.pixel_reader(Augmentation())
        images = PlainImages([example.image for example in self.examples], reader)
        order = [list(own[low : low + size]) for low in range(0, len(own), size)]
        for batch in loader(images, order, self.workers):
            if batch["error"] is not None:
                raise batch["error"]
            prompts = [model.prompt(self.data.task, (), self.examples[i]) for i in batch["positions"]]
            answers = model.fine_tuning_batch(
                prompts, batch["pixels"].to(module.device), module.options.max_target_tokens
            )
            logits = model.answer_logits(answers).float()
            nll = torch.nn.functional.cross_entropy(logits, answers.tokens, reduction="none").double()
            total += torch.stack([nll.sum(), nll.new_tensor(float(len(nll)))]).cpu()
        if module.trainer.world_size > 1:
            total = module.trainer.strategy.reduce(total.to(module.device), reduce_op="sum").cpu()
        return float(total[0] / total[1])

    def _answers(self, own: Sequence[int], progress: Progress | None) -> list[str]:
        data, answers = self.data, []
        prompts = [data.model.prompt(data.task, (), self.examples[i]) for i in own]
        step = _BATCHES * data.batch_size
        for low in range(0, len(prompts), step):
            raw = data.model.generate(prompts[low : low + step], data.generation, data.batch_size)
            answers += [data.model.clean(data.task, text) for text in raw]
            if progress is not None:
                progress.detail(f"validation: {len(answers)} of {len(prompts)} captions")
        return answers

    def _metric_figures(self, answers: Sequence[str]) -> dict[str, float]:
        figures = {}
        for name, metric in zip(self.chosen, self._metrics, strict=True):
            figures[f"val_{name}"] = figure(metric, answers, self.examples) * metric.scale
        return figures


def figure(metric: Metric, answers: Sequence[str], examples: Sequence[Example]) -> float:
    """The corpus figure of a metric, unscaled."""
    field = metric.reads if isinstance(metric, ReadsField) else "references"
    references = [getattr(example, field) for example in examples]
    if isinstance(metric, CorpusMetric):
        judged = [Judgement(answer, known) for answer, known in zip(answers, references, strict=True)]
        return float(metric.figures(judged, np.ones((1, len(judged))))[0])
    return float(metric.score(answers, references).mean())


def _gathered(trainer: Trainer, own: Sequence[int], answers: Sequence[str]) -> list[str]:
    """The answers of all processes, in the examples' order."""
    if trainer.world_size == 1:
        return list(answers)
    parts: list[list[tuple[int, str]]] = [[]] * trainer.world_size
    torch.distributed.all_gather_object(parts, list(zip(own, answers, strict=True)))
    return [answer for _, answer in sorted(pair for part in parts for pair in part)]
