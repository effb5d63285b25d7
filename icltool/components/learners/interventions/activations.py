"""What gradient-free methods share: states at the end of prompts, and choices on a development split."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from icltool.components.interventions.hooks import Change, changed_inputs, changed_outputs
from icltool.components.interventions.last_token import end_change
from icltool.components.learners.interventions import card
from icltool.components.learners.interventions.answers import answer_batches, hooked_model, target_log_probs
from icltool.components.learners.interventions.draws import Draws, held_out
from icltool.components.learners.options import LearnerOptions
from icltool.contracts import AnswerBatch, Float64Array, IntArray, InterventionSet, Progress, Prompt, TrainingOutcome

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

#: A context that changes the model while it reads a batch.
Candidate = Callable[[AnswerBatch], AbstractContextManager[None]]


class PromptOptions(LearnerOptions):
    """The number of prompts, and of demonstrations in each."""

    shots: int = Field(8, ge=1, description="demonstrations in each prompt")
    examples: int = Field(50, ge=1, description="prompts to collect states from, each with its own demonstrations")
    dev_size: int = Field(
        50, ge=1, description="number of examples of the development split, which are used for nothing else"
    )


class ActivationExtraction:
    """Extracts an intervention without gradients.

    `pool` contains all examples outside the development split; demonstrations are drawn from it. States are collected from
    its first positions, `positions`, whose prompts with demonstrations are `prompts`. Raises ConfigError if the model does
    not support decoder hooks, DataError for too few examples; otherwise removes earlier results from `folder`.
    """

    def __init__(
        self, data: InterventionSet, method: str, options: PromptOptions, folder: Path, seed: int, progress: Progress
    ) -> None:
        self.data, self.method, self.options, self.folder = data, method, options, folder
        self.seed, self.progress = seed, progress
        self.model = hooked_model(data, method)
        self.development = held_out(data, options.dev_size, seed)
        self.pool = Draws(data, len(data.examples), seed, apart=self.development.rows)
        self.positions: IntArray = np.arange(min(options.examples, len(self.pool)), dtype=np.int64)
        self.prompts = self.pool.prompts(self.positions, options.shots)
        folder.mkdir(parents=True, exist_ok=True)
        card.remove_old(folder)

    def states(self, prompts: Sequence[Prompt], modules: Sequence[Module], inputs: bool = False) -> list[Tensor]:
        """See `last_states`; shows progress."""
        with self.progress.task(f"{self.method}: reading prompts", len(prompts), "prompts") as ticker:
            return last_states(self.data, prompts, modules, inputs, ticker.advance)

    def compared(self, candidates: Sequence[Candidate]) -> tuple[list[float], float]:
        """(the mean log-probability of the development split's answers, in nats per token, under each candidate; that without
        any)."""
        prompts = self.development.plain_prompts(np.arange(len(self.development)))
        total = len(prompts) * (len(candidates) + 1)
        with self.progress.task(f"{self.method}: choosing", total, "prompts") as ticker:
            log_probs = answer_log_probs(self.data, prompts, [*candidates, unchanged], ticker.advance).mean(1).tolist()
        if max_of(log_probs[:-1])[1] < log_probs[-1]:
            self.progress.say(
                f"{self.method}: on the development split every choice makes the answers less probable than no intervention"
            )
        return log_probs[:-1], log_probs[-1]

    def at_best_layer(self, vectors: Sequence[Tensor], figures: Mapping[str, object]) -> TrainingOutcome:
        """Writes the vector [D] of the layer at whose output it makes the development split's answers most probable, one of
        `vectors` for each layer. The history holds their log-probability for each layer, the chosen one last."""
        import torch

        layers = self.model.decoder_layers()
        values, plain = self.compared(
            [output_changed(layer, end_change(self.method, v).at) for layer, v in zip(layers, vectors, strict=True)]
        )
        layer, value = max_of(values)
        own: dict[str, object] = {"layer": layer, "log_prob": value, "log_prob without": plain}
        own |= {"log_prob by layer": [round(v, 4) for v in values]}
        history = [{"layer": float(number), "log_prob": value} for number, value in enumerate(values)]
        tensors = {"vector": vectors[layer], "layer": torch.tensor([layer])}
        return self.save(tensors, {**own, **figures}, history)

    def save(
        self, tensors: Mapping[str, Tensor], figures: Mapping[str, object], history: Sequence[Mapping[str, float]]
    ) -> TrainingOutcome:
        """Writes the file and its card. The candidates' figures, with "log_prob" among them, go into the history from worst to
        best, so that the last are those of the chosen one."""
        counts = {"prompts": len(self.positions), "development examples": len(self.development)}
        about = card.about_intervention(
            self.data, self.options.shots, self.seed, self.options.identity(), {**counts, **figures}
        )
        path = card.write_intervention(self.folder, self.method, self.model, about, tensors)
        best_first = sorted(history, key=lambda record: -_number(record["log_prob"]))
        return TrainingOutcome({"last": path}, best_first[::-1])


def unchanged(batch: AnswerBatch) -> AbstractContextManager[None]:
    """The candidate that changes nothing."""
    return nullcontext()


def max_of(values: Sequence[float]) -> tuple[int, float]:
    """(place, value) of the largest, the first of equal ones; NaN counts as the smallest."""
    clean = [_number(value) for value in values]
    place = int(np.argmax(clean))
    return place, clean[place]


def _number(value: float) -> float:
    return -np.inf if np.isnan(value) else float(value)


def last_states(
    data: InterventionSet,
    prompts: Sequence[Prompt],
    modules: Sequence[Module],
    inputs: bool = False,
    advance: Callable[[int], None] = lambda amount: None,
) -> list[Tensor]:
    """float32 [n, width] on the CPU for each module: its output (with `inputs`, its input) at the last token of each prompt,
    before the answer."""
    import torch

    model = hooked_model(data, "collecting states")
    data.expect(path for prompt in prompts for path in prompt.images)
    hooks = changed_inputs if inputs else changed_outputs
    states: list[list[Tensor]] = [[] for _ in modules]
    for positions, batch in answer_batches(data, prompts):
        by_module: dict[int, Tensor] = {}
        with (
            torch.no_grad(),
            hooks(modules, [_recorded(by_module, place, batch.lasts) for place in range(len(modules))]),
        ):
            model.answer_logits(batch)
        for place, collected in enumerate(states):
            collected.append(by_module[place].float().cpu())
        advance(len(positions))
    return [torch.cat(collected) for collected in states]


def answer_log_probs(
    data: InterventionSet,
    prompts: Sequence[Prompt],
    candidates: Sequence[Candidate],
    advance: Callable[[int], None] = lambda amount: None,
) -> Float64Array:
    """float64 [C, n]: the mean log-probability, in nats per token, of each prompt's target under each candidate.

    Each batch is read and its images are encoded once for all candidates.
    """
    import torch

    model = hooked_model(data, "choosing on a development split")
    data.expect(path for prompt in prompts for path in prompt.images)
    log_probs: Float64Array = np.empty((len(candidates), len(prompts)))
    for positions, batch in answer_batches(data, prompts):
        for row, candidate in zip(log_probs, candidates, strict=True):
            with torch.no_grad(), candidate(batch):
                row[positions] = target_log_probs(model.answer_logits(batch), batch).cpu().numpy()
            advance(len(positions))
    return log_probs


def output_changed(module: Module, change: Callable[[Tensor, Tensor], Tensor]) -> Candidate:
    """The candidate that gives a module's output and the prompts' last columns to `change`."""

    @contextmanager
    def candidate(batch: AnswerBatch) -> Iterator[None]:
        with changed_outputs([module], [lambda states: change(states, batch.lasts)]):
            yield

    return candidate


def last_input_replaced(module: Module, columns: slice, values: Tensor) -> Candidate:
    """The candidate that puts `values` in these columns of a module's input, at the last token of each prompt."""

    @contextmanager
    def candidate(batch: AnswerBatch) -> Iterator[None]:
        def change(states: Tensor) -> Tensor:
            changed = states.clone()
            rows, lasts = _rows_and_lasts(states, batch.lasts)
            changed[rows, lasts, columns] = values.to(states.device, states.dtype)
            return changed

        with changed_inputs([module], [change]):
            yield

    return candidate


def _recorded(seen: dict[int, Tensor], place: int, lasts: Tensor) -> Change:
    def change(states: Tensor) -> Tensor:
        seen[place] = states[_rows_and_lasts(states, lasts)]
        return states

    return change


def _rows_and_lasts(states: Tensor, lasts: Tensor) -> tuple[Tensor, Tensor]:
    import torch

    return torch.arange(len(states), device=states.device), lasts.to(states.device)
