"""Interventions stand in for demonstrations: they change what a frozen LVLM computes. And what a model offers for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from icltool.contracts.model import Features, Model, Prompt

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """What something that was made for one model must find again.

    `weights` is a hash of the weights alone (not of precision or prompt format), `template` one of the prompt format.
    `sites` is how many modules LIVE's vectors are added at, `width` the hidden size of the language model.
    """

    name: str
    weights: str
    template: str
    sites: int
    width: int


@dataclass(frozen=True, slots=True)
class AttentionHeads:
    """The self-attention of one decoder layer, as linear torch modules.

    The first `heads * head_width` columns of the output of `query` are the heads' queries, before they are rotated or
    normalised. `value` makes the values (it is `query` where one matrix makes both). The input of `output` is [B, T,
    heads * head_width], the heads' results one behind the other, and its output what is added to the residual stream.
    """

    heads: int
    head_width: int
    query: Module
    value: Module
    output: Module


@dataclass(frozen=True, slots=True)
class AnswerBatch:
    """Prompts with their targets as one padded batch, ready for a forward pass.

    `inputs` are the model's own. int64 tensors on the model's device: `rows` and `columns` [N] are the positions whose
    logits predict the N target tokens of all prompts, prompt by prompt, and `tokens` [N] those tokens; `lasts` [B] is the
    column of each prompt's last token before its target, which predicts the target's first.
    """

    inputs: Mapping[str, Any]
    rows: Tensor
    columns: Tensor
    tokens: Tensor
    lasts: Tensor


@runtime_checkable
class SupportsDecoderHooks(Protocol):
    """The model's decoder is made of torch modules that forward hooks can be put on, and its answers' logits have
    gradients with respect to what hooks add.

    Hooks see every token of every forward pass of `Model.score`, `Model.generate`, and of the abilities that go on from
    keys and values.
    """

    def base_model(self) -> ModelIdentity:
        """What identifies the model."""
        ...

    def decoder_layers(self) -> Sequence[Module]:
        """The decoder's layers in order: the output of each (the first item, where it is a tuple) is the residual stream
        [B, T, width]."""
        ...

    def shifted_modules(self) -> Sequence[Module]:
        """One module for each layer, at whose output [B, T, width] LIVE's vectors are added."""
        ...

    def attention_heads(self) -> Sequence[AttentionHeads]:
        """The self-attention of each decoder layer, in order. ConfigError where it has other parts than these."""
        ...

    def answer_batch(self, prompts: Sequence[Prompt], features: Features) -> AnswerBatch:
        """Reads prompts with their targets; raises what `Model.score` raises. `features` as there."""
        ...

    def answer_logits(self, batch: AnswerBatch) -> Tensor:
        """Logits [N, vocabulary] at the batch's positions, by one forward pass without a cache. Gradients are kept unless
        the caller turned them off."""
        ...


@runtime_checkable
class NamesCheckpointedLayers(Protocol):
    """A model in which gradient checkpointing computes more twice than the decoder's layers."""

    def checkpointed_layers(self) -> Sequence[Any]:
        """The torch modules, in the order in which they run."""
        ...


@runtime_checkable
class Intervention(Protocol):
    """Read from one file, made by the learner of the same name. Built by the registry with `file`, its path.

    The file is one that `icltool.save_intervention` writes (`icltool.write_intervention` adds a card): its header names the
    method, the model and what its maker recorded, which `icltool evaluate` reads before it builds anything.
    `icltool.read_intervention` gives its tensors, `about` and digest and raises StoreError for any other file,
    `icltool.expect_method` refuses another method's, and `icltool.check_base` raises what `check` does.

    `everywhere` is true when each token is treated alike, whatever stands around it: keys and values that were computed
    under it may then be shared between prompts. `parameters` is how many numbers the file holds. `about` is what its maker
    recorded (dataset, task, shots, …), JSON values.
    """

    method: str
    everywhere: bool
    file: Path
    parameters: int
    about: Mapping[str, Any]

    def identity(self) -> dict[str, Any]:
        """What decides the result, wherever the file lies: a hash of its content."""
        ...

    def check(self, model: Model) -> None:
        """Raises ConfigError, in one line, where the model is not the one that this was made for."""
        ...

    def applied(self, model: Model) -> AbstractContextManager[None]:
        """Within it the model computes as if changed; afterwards, whatever was raised, bit for bit as before. Raises what
        `check` raises."""
        ...
