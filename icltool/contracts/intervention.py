"""Interventions replace demonstrations by learned changes of what a frozen LVLM computes; the abilities of models they need."""

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
    """Identifies the model that an intervention was trained for.

    `weights` is a hash of the weights alone (without precision and prompt format), `template` a hash of the prompt format.
    `sites` is the number of modules whose outputs LIVE's vectors are added to, `width` the hidden size of the language model.
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
    normalised. `value` computes the values (it is `query` if one matrix computes both). The input of `output` is [B, T,
    heads * head_width], the concatenated results of the heads; its output is added to the residual stream.
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
    """The model's decoder consists of torch modules that accept forward hooks, and the logits of its answers have gradients
    with respect to what hooks add.

    Hooks see every token of every forward pass of `Model.score`, `Model.generate` and the prefix-cache abilities.
    """

    def base_model(self) -> ModelIdentity:
        """The identity of the model."""
        ...

    def decoder_layers(self) -> Sequence[Module]:
        """The decoder's layers in order. The output of each (the first item of a tuple) is the residual stream
        [B, T, width]."""
        ...

    def shifted_modules(self) -> Sequence[Module]:
        """One module per layer, to whose output [B, T, width] LIVE's vectors are added."""
        ...

    def attention_heads(self) -> Sequence[AttentionHeads]:
        """The self-attention of each decoder layer, in order. Raises ConfigError if it has other parts."""
        ...

    def answer_batch(self, prompts: Sequence[Prompt], features: Features) -> AnswerBatch:
        """Tokenizes prompts with their targets. Raises what `Model.score` raises; `features` as there."""
        ...

    def answer_logits(self, batch: AnswerBatch) -> Tensor:
        """Logits [N, vocabulary] at the batch's positions, by one forward pass without a cache. They have gradients unless the
        caller disabled them."""
        ...


@runtime_checkable
class NamesCheckpointedLayers(Protocol):
    """A model whose gradient checkpointing covers more than the decoder's layers."""

    def checkpointed_layers(self) -> Sequence[Any]:
        """The torch modules, in the order in which they run."""
        ...


@runtime_checkable
class Intervention(Protocol):
    """Read from one file, which the learner of the same name writes. The registry builds it with `file`, the path.

    `icltool.save_intervention` writes the file (`icltool.write_intervention` adds a card). Its header names the method and
    the model and holds the learner's record, which `icltool evaluate` reads before it builds anything.
    `icltool.read_intervention` returns its tensors, `about` and digest and raises StoreError for any other file,
    `icltool.expect_method` refuses the file of another method, and `icltool.check_base` raises what `check` raises.

    `everywhere` is true if each token is treated independently of its context: prompts may then share keys and values
    computed under the intervention. `parameters` is the number of values in the file. `about` is the learner's record
    (dataset, task, shots, …), JSON values.
    """

    method: str
    everywhere: bool
    file: Path
    parameters: int
    about: Mapping[str, Any]

    def identity(self) -> dict[str, Any]:
        """What determines the result: a hash of the file's content, independent of its path."""
        ...

    def check(self, model: Model) -> None:
        """Raises ConfigError, in one line, for another model than the one that the intervention was trained for."""
        ...

    def applied(self, model: Model) -> AbstractContextManager[None]:
        """A context in which the model computes with the intervention. Afterwards, after an exception too, the model is
        restored bit for bit. Raises what `check` raises."""
        ...
