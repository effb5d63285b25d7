"""The learner `function-vector`: the summed mean outputs of the attention heads with the largest causal effect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field, field_validator

from icltool.components.learners.interventions.activations import (
    ActivationExtraction,
    PromptOptions,
    answer_log_probs,
    last_input_replaced,
    unchanged,
)
from icltool.components.learners.interventions.answers import hooked_model
from icltool.components.learners.options import OptionsLearner
from icltool.contracts import (
    AttentionHeads,
    Float64Array,
    IntArray,
    InterventionSet,
    Progress,
    Prompt,
    TrainingOutcome,
    keyed_generator,
    shown,
)

if TYPE_CHECKING:
    from torch import Tensor

METHOD = "function-vector"
#: The published choices are 10 of GPT-J's 448 heads and 20 of Llama 2 7B's 1024: 2 % of all.
SHARE, FEWEST = 0.02, 4


class FunctionVectorOptions(PromptOptions):
    """PromptOptions, and how heads are chosen."""

    heads: int | None = Field(
        None,
        ge=1,
        description="attention heads whose outputs are summed; default: 2 %, at least 4 (published: 10 of 448, 20 of 1024)",
    )
    effect_size: int = Field(
        25, ge=1, description="uninformative prompts over which the causal effect of a head is averaged"
    )
    corrupted: Literal["zero-shot", "shuffled"] = Field(
        "zero-shot",
        description="uninformative prompts: without demonstrations, as when the vector is used, which is fastest; or with "
        "shuffled labels, as published",
    )
    corrupted_shots: int = Field(10, ge=2, description="demonstrations in each prompt with shuffled labels")

    @field_validator("heads", mode="before")
    @classmethod
    def _none(cls, value: object) -> object:
        return None if value in ("none", "auto") else value


class FunctionVector(OptionsLearner):
    """The function vector of Todd et al. 2024 (arXiv:2310.15213).

    The mean output of each attention head at the last token of prompts with demonstrations; a head's causal effect is the mean
    gain in the probability of the right answer when its output at the last token of an uninformative prompt is replaced by
    that mean; the means of the heads with the largest effects, each through its columns of the output projection, are summed.
    The vector is added to the output of one decoder layer, at the last token of every forward pass of a generation, as
    the published code does it.

    What differs: the probability is the geometric mean over the answer's tokens (the paper: that of the first token, which
    in captions is often the same for every answer); heads are chosen for the task at hand (the paper: by the mean over tasks),
    by default on prompts without demonstrations; and the layer is chosen by the mean log-probability of a development split's
    answers (the paper: a third of the layers deep, or a sweep by accuracy).
    """

    name = METHOD
    options_model = FunctionVectorOptions
    options: FunctionVectorOptions

    def learn_intervention(self, data: InterventionSet, folder: Path, seed: int, progress: Progress) -> TrainingOutcome:
        """See InterventionLearner. The history holds the development split's log-probability for each layer, the chosen one
        last."""
        attention = hooked_model(data, METHOD).attention_heads()
        extraction = ActivationExtraction(data, METHOD, self.options, folder, seed, progress)
        outputs = [part.output for part in attention]
        means = [states.double().mean(0) for states in extraction.states(extraction.prompts, outputs, inputs=True)]
        effects = self._effects(extraction, attention, means)
        count = self._count(effects)
        order = np.argsort(-effects, kind="stable")[:count]
        places = _places(attention)
        chosen = [places[k] for k in order]
        vector = summed_heads(attention, means, chosen).float()
        best = [[*place, round(float(effects[k]), 5)] for place, k in zip(chosen, order, strict=True)]
        vectors = [vector] * len(extraction.model.decoder_layers())
        return extraction.at_best_layer(vectors, {"heads (layer, head, effect)": best})

    def _count(self, effects: Float64Array) -> int:
        count = max(FEWEST, round(SHARE * len(effects))) if self.options.heads is None else self.options.heads
        return min(count, len(effects))

    def _effects(
        self, extraction: ActivationExtraction, attention: Sequence[AttentionHeads], means: Sequence[Tensor]
    ) -> Float64Array:
        """float64 [H]: the causal effect of each head, layer by layer. NaN counts as no effect."""
        prompts = self._uninformative(extraction)
        candidates = [
            last_input_replaced(attention[layer].output, part, means[layer][part])
            for layer, head in _places(attention)
            for part in [_columns(attention[layer], head)]
        ]
        total = len(prompts) * (len(candidates) + 1)
        with extraction.progress.task(f"{METHOD}: causal effects of heads", total, "prompts") as ticker:
            probabilities = np.exp(answer_log_probs(extraction.data, prompts, [unchanged, *candidates], ticker.advance))
        return np.asarray(np.nan_to_num((probabilities[1:] - probabilities[0]).mean(1)), dtype=np.float64)

    def _uninformative(self, extraction: ActivationExtraction) -> list[Prompt]:
        """Prompts of examples from which no states were collected, as far as there are enough."""
        pool, first = extraction.pool, len(extraction.positions)
        size = min(self.options.effect_size, len(pool))
        positions: IntArray = np.arange(first, first + size, dtype=np.int64) % len(pool)
        if self.options.corrupted == "zero-shot":
            return pool.plain_prompts(positions)
        return [self._shuffled(extraction, int(position)) for position in positions]

    def _shuffled(self, extraction: ActivationExtraction, position: int) -> Prompt:
        pool, data = extraction.pool, extraction.data
        [query] = pool.queries([position])
        rows = pool.demonstrations(position, self.options.corrupted_shots)
        demonstrations = shown(pool.examples(rows), query)
        order = keyed_generator(extraction.seed, "function-vector.labels", query.id).permutation(len(demonstrations))
        labels = [demonstrations[k].label for k in order]
        mixed = [replace(example, label=label) for example, label in zip(demonstrations, labels, strict=True)]
        return data.model.prompt(data.task, mixed, query)


def summed_heads(
    attention: Sequence[AttentionHeads], means: Sequence[Tensor], chosen: Sequence[tuple[int, int]]
) -> Tensor:
    """float64 [D]: what the chosen heads (layer, head) add to the residual stream if each outputs its mean.

    `means` [heads * head_width] for each layer. The output projection is applied by the module itself, so that its weights may
    be quantized; its bias is subtracted.
    """
    import torch

    total: Tensor | None = None
    for layer in sorted({layer for layer, _ in chosen}):
        part = attention[layer]
        inputs = torch.zeros(2, part.heads * part.head_width, dtype=torch.float64)
        for head in (head for place, head in chosen if place == layer):
            columns = _columns(part, head)
            inputs[0, columns] = means[layer][columns]
        weight = next(part.output.parameters())
        dtype = weight.dtype if weight.is_floating_point() else torch.float16
        with torch.no_grad():
            added, bias = part.output(inputs.to(weight.device, dtype)).double().cpu()
        total = added - bias if total is None else total + (added - bias)
    if total is None:
        raise ValueError("no heads were chosen")
    return total


def _places(attention: Sequence[AttentionHeads]) -> list[tuple[int, int]]:
    return [(layer, head) for layer, part in enumerate(attention) for head in range(part.heads)]


def _columns(part: AttentionHeads, head: int) -> slice:
    return slice(head * part.head_width, (head + 1) * part.head_width)
