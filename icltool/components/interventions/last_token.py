"""A vector at the last token of the prompt: task vectors stand in place of its state, function vectors are added to it."""

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

#: How far, of its norm, a state may be from one of an earlier pass to be the same but for rounding.
_ROUNDING = 0.1


@dataclass(frozen=True)
class EndChange:
    """What is done to the states of a decoder layer at the last token of each prompt.

    `vector` [D] stands in place of the state with `replace`, else it is added to it. With `answer` the tokens of the answer
    are changed alike.
    """

    vector: Tensor
    replace: bool
    answer: bool

    def at(self, states: Tensor, lasts: Tensor | int) -> Tensor:
        """The changed states, in their dtype. `states` [B, T, D]; `lasts` int64 [B], or one for all rows, is the column of each
        prompt's last token, negative where it came in an earlier pass."""
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
        """Raises StoreError for a file that is none of this method's."""
        super().__init__(options)
        self.layer = int(self._stored.tensor("layer", 1)[0])
        self._change = end_change(options.method, self._stored.tensor("vector", self._stored.base.width))

    @contextmanager
    def applied(self, model: Model) -> Iterator[None]:
        """See Intervention. `Model.score` goes by the ends of prompts, too, where their targets follow in the same pass."""
        hooked = check_base(self._stored, model)
        layers = hooked.decoder_layers()
        if not 0 <= self.layer < len(layers):
            raise StoreError(
                f"{self.file} is damaged: layer {self.layer} of {len(layers)} decoder layers", again(self.method)
            )
        ends = _PromptEnds()

        def hook(module: Module, inputs: tuple[object, ...], named: Mapping[str, object], output: Output) -> Output:
            states = output[0] if isinstance(output, tuple) else output
            changed = self._change.at(states, ends.find(states, (*inputs, *named.values())))
            return (changed, *output[1:]) if isinstance(output, tuple) else changed

        handle = layers[self.layer].register_forward_hook(hook, with_kwargs=True)
        try:
            with _scoring(model, hooked, ends):
                yield
        finally:
            handle.remove()


class _PromptEnds:
    """Finds the column of the prompts' last token in each forward pass of a layer.

    Answers are generated after padding on the left: in the first pass prompts end at the last column. Later passes are told
    from first ones by the cache of keys and values, which each call of transformers' `generate` makes anew and hands to
    the layers: neither the number of beams nor of tokens matters, and a prompt may have one token. Without a cache the
    whole text comes again in each pass, one token longer, and the states at the prompt's end come again with it.
    """

    def __init__(self) -> None:
        self.given: Tensor | None = None
        self._cache: weakref.ref[object] | None = None
        self._columns = 0
        self._prompt: tuple[int, Tensor] | None = None

    def find(self, states: Tensor, inputs: Sequence[object]) -> Tensor | int:
        """The column for each row, or one for all; -1 where the prompts came before. `states` [B, T, D] are the layer's output,
        unchanged; `inputs` all that the layer was called with."""
        if self.given is not None:
            return self.given
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
            if rows % len(ends) == 0:  # beams may be made after the first pass
                repeated = ends.repeat_interleave(rows // len(ends), 0)
                apart = (states[:, place] - repeated).float().norm(dim=1)
                if bool((apart <= _ROUNDING * repeated.float().norm(dim=1)).all()):
                    return place
        self._prompt = (columns - 1, states[:, -1])
        return columns - 1


@contextmanager
def _scoring(model: Any, hooked: SupportsDecoderHooks, ends: _PromptEnds) -> Iterator[None]:
    """Within it `model.score` tells `ends` where prompts end: a pass over prompts with their targets does not show it."""
    import torch

    @torch.inference_mode()
    def score(prompts: Sequence[Prompt], batch_size: int, features: Features = None) -> list[TargetScore]:
        found: list[TargetScore] = []
        for low in range(0, len(prompts), batch_size):
            batch = hooked.answer_batch(prompts[low : low + batch_size], features)
            ends.given = batch.lasts
            try:
                logits = hooked.answer_logits(batch)
            finally:
                ends.given = None
            picked = torch.log_softmax(logits.float(), -1).gather(1, batch.tokens[:, None])[:, 0].double()
            sums = torch.zeros(len(batch.lasts), dtype=torch.float64, device=picked.device)
            counts = torch.bincount(batch.rows, minlength=len(sums)).tolist()
            sums.index_add_(0, batch.rows, picked)
            found += [TargetScore(*pair) for pair in zip(sums.tolist(), counts, strict=True)]
        return found

    own = vars(model).get("score")
    model.score = score
    try:
        yield
    finally:
        if own is None:
            del model.score
        else:
            model.score = own
