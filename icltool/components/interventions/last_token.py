"""A vector at the last token of the prompt: task vectors replace its state, function vectors are added to it."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from icltool.components.interventions.files import again, check_base
from icltool.components.interventions.stored import StoredIntervention, StoredOptions
from icltool.contracts import Features, Model, Prompt, SupportsDecoderHooks, TargetScore
from icltool.errors import StoreError

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from icltool.components.interventions.hooks import Output

#: Largest distance, relative to the norm, of two states of different passes that are equal except for rounding.
_ROUNDING = 0.1


@dataclass(frozen=True)
class EndChange:
    """The change of a decoder layer's states at the last token of each prompt.

    With `replace`, `vector` [D] replaces the state, else it is added to it. With `answer` the tokens of the answer are
    changed, too.
    """

    vector: Tensor
    replace: bool
    answer: bool

    def at(self, states: Tensor, lasts: Tensor | int) -> Tensor:
        """The changed states, in their dtype. `states` [B, T, D]; `lasts` int64 [B], or one for all rows, is the column of each
        prompt's last token, negative if it was in an earlier pass."""
        import torch

        columns = torch.arange(states.shape[1], device=states.device)
        ends = torch.as_tensor(lasts, device=states.device).reshape(-1, 1)
        chosen = columns >= ends if self.answer else columns == ends
        vector = self.vector.to(states.device)
        changed = (vector if self.replace else states + vector).to(states.dtype)
        return torch.where(chosen[..., None], changed, states)


def end_change(method: str, vector: Tensor) -> EndChange:
    """The change that `task-vector` or `function-vector` makes with this vector."""
    added = method == "function-vector"
    return EndChange(vector, replace=not added, answer=added)


class LastTokenVector(StoredIntervention):
    """One vector at the output of one decoder layer.

    `task-vector` replaces the state of the prompt's last token (Hendel et al. 2023, arXiv:2310.15916, section 3).
    `function-vector` adds the vector to it, and to the state of every token that is generated, as the published code does
    (Todd et al. 2024, arXiv:2310.15213). The file holds `vector` float32 [D] and `layer` int64 [1].
    """

    everywhere = False

    def __init__(self, options: StoredOptions) -> None:
        """Raises StoreError for a file of another method."""
        super().__init__(options)
        self.layer = int(self._stored.tensor("layer", 1)[0])
        self._change = end_change(options.method, self._stored.tensor("vector", self._stored.base.width))

    @contextmanager
    def applied(self, model: Model) -> Iterator[None]:
        """See Intervention. `Model.score` is wrapped, because its passes contain the targets after the ends of prompts."""
        hooked = check_base(self._stored, model)
        layers = hooked.decoder_layers()
        if not 0 <= self.layer < len(layers):
            raise StoreError(
                f"{self.file} is damaged: layer {self.layer} of {len(layers)} decoder layers", again(self.method)
            )
        ends = _PromptEnds()

        def hook(module: Module, inputs: tuple[object, ...], keywords: Mapping[str, object], output: Output) -> Output:
            states = output[0] if isinstance(output, tuple) else output
            changed = self._change.at(states, ends.find(states, (*inputs, *keywords.values())))
            return (changed, *output[1:]) if isinstance(output, tuple) else changed

        handle = layers[self.layer].register_forward_hook(hook, with_kwargs=True)
        try:
            with _scoring(model, hooked, ends):
                yield
        finally:
            handle.remove()


class _PromptEnds:
    """Finds the column of the prompts' last token in each forward pass of a layer.

    Generation pads on the left, so in the first pass prompts end at the last column. Later passes are recognised by the cache
    of keys and values: each call of transformers' `generate` creates a new one and passes it to the layers. So neither the
    number of beams nor of tokens matters, and a prompt may have a single token. Without a cache each pass repeats the whole
    text with one more token, including the states at the prompt's end.
    """

    def __init__(self) -> None:
        self.known: Tensor | None = None
        self._cache: weakref.ref[object] | None = None
        self._columns = 0
        self._prompt: tuple[int, Tensor] | None = None

    def find(self, states: Tensor, inputs: Sequence[object]) -> Tensor | int:
        """The column of each row, or one for all; -1 if the prompts were in an earlier pass. `states` [B, T, D] are the layer's
        unchanged output, `inputs` all its arguments."""
        if self.known is not None:
            return self.known
        cache = next((value for value in inputs if hasattr(value, "get_seq_length")), None)
        if cache is None:
            return self._in_whole_text(states)
        later = self._cache is not None and self._cache() is cache
        self._cache = weakref.ref(cache)
        return -1 if later else states.shape[1] - 1

    def _in_whole_text(self, states: Tensor) -> int:
        rows, columns = states.shape[:2]
        longer, self._columns = columns == self._columns + 1, columns
        if longer and self._prompt is not None:
            place, ends = self._prompt
            if rows % len(ends) == 0:  # beams may be expanded after the first pass
                repeated = ends.repeat_interleave(rows // len(ends), 0)
                apart = (states[:, place] - repeated).float().norm(dim=1)
                if bool((apart <= _ROUNDING * repeated.float().norm(dim=1)).all()):
                    return place
        self._prompt = (columns - 1, states[:, -1])
        return columns - 1


@contextmanager
def _scoring(model: Any, hooked: SupportsDecoderHooks, ends: _PromptEnds) -> Iterator[None]:
    """A context in which `model.score` sets the ends of prompts, which a pass over prompts with targets does not reveal."""
    import torch

    @torch.inference_mode()
    def score(prompts: Sequence[Prompt], batch_size: int, features: Features = None) -> list[TargetScore]:
        scores: list[TargetScore] = []
        for low in range(0, len(prompts), batch_size):
            batch = hooked.answer_batch(prompts[low : low + batch_size], features)
            ends.known = batch.lasts
            try:
                logits = hooked.answer_logits(batch)
            finally:
                ends.known = None
            picked = torch.log_softmax(logits.float(), -1).gather(1, batch.tokens[:, None])[:, 0].double()
            sums = torch.zeros(len(batch.lasts), dtype=torch.float64, device=picked.device)
            counts = torch.bincount(batch.rows, minlength=len(sums)).tolist()
            sums.index_add_(0, batch.rows, picked)
            scores += [TargetScore(*pair) for pair in zip(sums.tolist(), counts, strict=True)]
        return scores

    own = vars(model).get("score")
    model.score = score
    try:
        yield
    finally:
        if own is None:
            del model.score
        else:
            model.score = own
