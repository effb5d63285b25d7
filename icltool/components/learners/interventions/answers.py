"""Reading answers of a hooked model: log-probabilities of targets, and states at the last token of a prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, cast

from icltool.contracts import AnswerBatch, Features, InterventionSet, Prompt, SupportsDecoderHooks
from icltool.contracts.model import RunsOnDevice
from icltool.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def hooked_model(data: InterventionSet, method: str) -> SupportsDecoderHooks:
    """The set's model. Raises ConfigError if it does not support decoder hooks."""
    if not isinstance(data.model, SupportsDecoderHooks):
        raise ConfigError(
            f"model {data.model.name} does not support decoder hooks, which {method} needs",
            "choose an IDEFICS model, a chat model or OpenFlamingo",
        )
    return cast(SupportsDecoderHooks, data.model)


def device_of(model: object) -> torch.device:
    """The device of a model; the CPU for one that names none."""
    import torch

    device: torch.device = model.device if isinstance(model, RunsOnDevice) else torch.device("cpu")
    return device


def features_of(data: InterventionSet, prompts: Sequence[Prompt]) -> Features:
    """Features of the images of these prompts, each encoded once, if the model supports it. They are in the model's own
    precision, whatever that of the training, since other commands may reuse them."""
    import torch

    with torch.autocast(device_of(data.model).type, enabled=False):
        return data.features(list(dict.fromkeys(path for prompt in prompts for path in prompt.images)))


def answer_batches(data: InterventionSet, prompts: Sequence[Prompt]) -> Iterator[tuple[list[int], AnswerBatch]]:
    """(positions of the prompts, their batch), in order and in batches of the set's size."""
    model = cast(SupportsDecoderHooks, data.model)
    for low in range(0, len(prompts), data.batch_size):
        part = list(prompts[low : low + data.batch_size])
        yield list(range(low, low + len(part))), model.answer_batch(part, features_of(data, part))


def target_log_probs(logits: Tensor, batch: AnswerBatch) -> Tensor:
    """float64 [B]: the mean log-probability in nats per token of each prompt's target.

    `logits` [N, vocabulary] as `answer_logits` gives them; the log-softmax is computed in float32.
    """
    import torch

    picked = torch.log_softmax(logits.float(), -1).gather(1, batch.tokens[:, None])[:, 0].double()
    sums = torch.zeros(len(batch.lasts), dtype=torch.float64, device=logits.device)
    counts = torch.zeros_like(sums)
    sums.index_add_(0, batch.rows, picked)
    counts.index_add_(0, batch.rows, torch.ones_like(picked))
    return sums / counts
