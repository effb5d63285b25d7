"""One vector for each attention head, added to what the head gives by as much as its query asks for: MimIC."""

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
        """Whether gradients are wanted."""
        return any(part.requires_grad for part in (self.vectors, self.weights, self.biases))


class HeadShift(StoredIntervention):
    """Each head's result o becomes o + mu(q) v, with mu(q) = sigmoid(w q + b), for each token alike.

    q is the head's query before rotation, v and w one vector each per head, b a number. The file holds `vectors` and
    `weights` float32 [L, H, W] and `biases` float32 [L, H]. MimIC (arXiv 2504.08851, section 3) derives the form from
    attention over demonstrations: see the learner for what differs.
    """

    everywhere = True

    def __init__(self, options: StoredOptions) -> None:
        """Raises StoreError for a file that is none of this method's."""
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
        found = [(h.heads, h.head_width) for h in model.attention_heads()]
        if found != [(heads, width)] * layers:
            raise StoreError(
                f"{self.file} is damaged: it has {heads} heads of width {width} in {layers} layers, not the model's",
                again(self.method),
            )


class HeadShape(NamedTuple):
    """Of a decoder whose layers are alike."""

    layers: int
    heads: int
    width: int


def head_shape(model: SupportsDecoderHooks, method: str) -> HeadShape:
    """ConfigError where layers differ in their heads."""
    found = model.attention_heads()
    shapes = {(heads.heads, heads.head_width) for heads in found}
    if len(shapes) != 1:
        raise ConfigError(
            f"the layers of this model have heads of different number or width: {method} cannot be trained for it",
            "--method live shifts whole layers",
        )
    heads, width = shapes.pop()
    return HeadShape(len(found), heads, width)


@contextmanager
def shifting_heads(model: SupportsDecoderHooks, shifts: Callable[[], HeadShifts]) -> Iterator[None]:
    """Within it every head of the model's decoder is shifted by `shifts()`.

    They are asked for anew in every forward pass, so that gradients reach them.
    """
    found = model.attention_heads()
    layers = [_Layer(heads, shifts, place) for place, heads in enumerate(found)]
    with (
        changed_outputs([heads.query for heads in found], [layer.see for layer in layers]),
        changed_inputs([heads.output for heads in found], [layer.shift for layer in layers]),
    ):
        yield


class _Layer:
    """The hooks of one layer. Magnitudes are made where the queries pass, and used up where the heads' results pass.

    A pass that breaks off between the two (an exception, or gradient checkpointing, which stops as soon as it has what it
    needs) leaves magnitudes behind; the next pass makes its own before it uses any.
    """

    def __init__(self, heads: AttentionHeads, shifts: Callable[[], HeadShifts], place: int) -> None:
        self._heads, self._shifts, self._place = heads, shifts, place
        self._kept: HeadShifts | None = None
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
                "the attention of this model does not make one query for each result of its heads: they cannot be shifted",
                "--method live shifts whole layers",
            )
        (mu, own), self._pass = self._pass, None
        return shifted_heads(states, mu.to(states.device), own.vectors.to(states.device))

    def _own(self, device: torch.device) -> HeadShifts:
        if self._kept is None or self._kept.vectors.device != device:
            own = self._shifts().of(self._place, device)
            if own.learned:
                return own
            self._kept = own
        return self._kept


def magnitudes(queries: Tensor, weights: Tensor, biases: Tensor) -> Tensor:
    """mu float32 [..., H] = sigmoid(w q + b). `queries` [..., H, W], `weights` [H, W], `biases` [H].

    A product that is summed up, not a matrix product: autocast would take that to half precision.
    """
    return ((queries.float() * weights).sum(-1) + biases).sigmoid()


def shifted_heads(states: Tensor, mu: Tensor, vectors: Tensor) -> Tensor:
    """The heads' results `states` [..., H x W] + mu v, in their dtype. `mu` [..., H], `vectors` [H, W]."""
    moved = states + (mu[..., None] * vectors).flatten(-2)
    return moved.to(states.dtype)
