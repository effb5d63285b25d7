"""One vector per attention head, added to the head's result with a magnitude computed from its query: MimIC."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from icltool.components.interventions.files import again, check_base
from icltool.components.interventions.hooks import changed_inputs, changed_outputs
from icltool.components.interventions.stored import StoredIntervention, StoredOptions
from icltool.contracts import AttentionHeads, Model, SupportsDecoderHooks
from icltool.errors import ConfigError, StoreError

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class HeadShifts:
    """float32: `vectors` and `weights` [L, H, W], `biases` [L, H], for L layers of H heads of width W."""

    vectors: Tensor
    weights: Tensor
    biases: Tensor

    def of(self, layer: int, device: torch.device) -> HeadShifts:
        """Those of one layer, without the first dimension, on this device."""
        return HeadShifts(*(part[layer].to(device) for part in (self.vectors, self.weights, self.biases)))

    @property
    def learned(self) -> bool:
        """Whether any of them requires gradients."""
        return any(part.requires_grad for part in (self.vectors, self.weights, self.biases))


class HeadShift(StoredIntervention):
    """Each head's result o becomes o + mu(q) v, with mu(q) = sigmoid(w q + b), at every token.

    q is the head's query before rotation, v and w one vector each per head, b a number. The file holds `vectors` and
    `weights` float32 [L, H, W] and `biases` float32 [L, H]. MimIC (arXiv 2504.08851, section 3) derives the form from
    attention over demonstrations; see the learner for the differences.
    """

    everywhere = True

    def __init__(self, options: StoredOptions) -> None:
        """Raises StoreError for a file of another method."""
        super().__init__(options)
        stored = self._stored
        vectors = stored.tensor("vectors", stored.base.sites, -1, -1)
        shape = tuple(vectors.shape)
        self._shifts = HeadShifts(vectors, stored.tensor("weights", *shape), stored.tensor("biases", *shape[:2]))

    def check(self, model: Model) -> None:
        """See Intervention."""
        self._heads(check_base(self._stored, model))

    @contextmanager
    def applied(self, model: Model) -> Iterator[None]:
        """See Intervention."""
        hooked = check_base(self._stored, model)
        self._heads(hooked)
        with shifting_heads(hooked, lambda: self._shifts):
            yield

    def _heads(self, model: SupportsDecoderHooks) -> None:
        layers, heads, width = self._shifts.vectors.shape
        model_heads = [(h.heads, h.head_width) for h in model.attention_heads()]
        if model_heads != [(heads, width)] * layers:
            raise StoreError(
                f"{self.file} is damaged: its {heads} heads of width {width} in {layers} layers do not match the model",
                again(self.method),
            )


class HeadShape(NamedTuple):
    """The shape of a decoder whose layers have the same heads."""

    layers: int
    heads: int
    width: int


def head_shape(model: SupportsDecoderHooks, method: str) -> HeadShape:
    """The shape of the model's heads. Raises ConfigError if layers differ."""
    heads_by_layer = model.attention_heads()
    shapes = {(heads.heads, heads.head_width) for heads in heads_by_layer}
    if len(shapes) != 1:
        raise ConfigError(
            f"the layers of this model differ in the number or width of their heads: {method} cannot be trained for it",
            "use --method live, which shifts whole layers",
        )
    heads, width = shapes.pop()
    return HeadShape(len(heads_by_layer), heads, width)


@contextmanager
def shifting_heads(model: SupportsDecoderHooks, shifts: Callable[[], HeadShifts]) -> Iterator[None]:
    """A context in which every head of the model's decoder is shifted by `shifts()`, which is called in every forward pass so
    that gradients reach them."""
    heads_by_layer = model.attention_heads()
    layers = [_Layer(heads, shifts, place) for place, heads in enumerate(heads_by_layer)]
    with (
        changed_outputs([heads.query for heads in heads_by_layer], [layer.see for layer in layers]),
        changed_inputs([heads.output for heads in heads_by_layer], [layer.shift for layer in layers]),
    ):
        yield


class _Layer:
    """The hooks of one layer. Magnitudes are computed from the queries, and consumed when the heads' results pass.

    A pass that stops between the two (because of an exception, or of gradient checkpointing, which stops early) leaves
    magnitudes behind; the next pass computes its own first.
    """

    def __init__(self, heads: AttentionHeads, shifts: Callable[[], HeadShifts], place: int) -> None:
        self._heads, self._shifts, self._place = heads, shifts, place
        self._on_device: HeadShifts | None = None
        self._pass: tuple[Tensor, HeadShifts] | None = None

    def see(self, queries: Tensor) -> Tensor:
        own = self._own(queries.device)
        columns = queries[..., : self._heads.heads * self._heads.head_width]
        split = columns.reshape(*columns.shape[:-1], *own.vectors.shape)
        self._pass = magnitudes(split, own.weights, own.biases), own
        return queries

    def shift(self, states: Tensor) -> Tensor:
        if self._pass is None or self._pass[0].shape[:-1] != states.shape[:-1]:
            raise ConfigError(
                "the attention of this model does not have one query per result of its heads, so heads cannot be shifted",
                "use --method live, which shifts whole layers",
            )
        (mu, own), self._pass = self._pass, None
        return shifted_heads(states, mu.to(states.device), own.vectors.to(states.device))

    def _own(self, device: torch.device) -> HeadShifts:
        if self._on_device is None or self._on_device.vectors.device != device:
            own = self._shifts().of(self._place, device)
            if own.learned:
                return own
            self._on_device = own
        return self._on_device


def magnitudes(queries: Tensor, weights: Tensor, biases: Tensor) -> Tensor:
    """mu float32 [..., H] = sigmoid(w q + b). `queries` [..., H, W], `weights` [H, W], `biases` [H].

    A sum of products instead of a matrix product, which autocast would compute in half precision.
    """
    return ((queries.float() * weights).sum(-1) + biases).sigmoid()


def shifted_heads(states: Tensor, mu: Tensor, vectors: Tensor) -> Tensor:
    """The heads' results `states` [..., H x W] + mu v, in their dtype. `mu` [..., H], `vectors` [H, W]."""
    moved = states + (mu[..., None] * vectors).flatten(-2)
    return moved.to(states.dtype)
