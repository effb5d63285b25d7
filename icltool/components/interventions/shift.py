"""One vector per layer, added to the states of every token: LIVE, and in-context vectors by PCA."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING

from icltool.components.interventions.files import check_base
from icltool.components.interventions.hooks import changed_outputs
from icltool.components.interventions.stored import StoredIntervention, StoredOptions
from icltool.contracts import Model, SupportsDecoderHooks

if TYPE_CHECKING:
    import torch
    from torch import Tensor

#: Norm below which a shifted state is not rescaled to its former norm: the shift has cancelled it.
SMALLEST = 1e-12


class ShiftVectors(StoredIntervention):
    """At layer l every token's state h becomes (h + alpha_l v_l) rescaled to the norm of h.

    The file holds `vectors` float32 [L, D] and `alphas` float32 [L]. LIVE (arXiv 2406.13185, section 3) learns both; `icv-pca`
    takes principal directions (Liu et al. 2023, arXiv:2311.06668) with one strength for all layers.
    """

    everywhere = True

    def __init__(self, options: StoredOptions) -> None:
        """Raises StoreError for a file of another method."""
        super().__init__(options)
        base = self._stored.base
        self._shifts = self._stored.tensor("alphas", base.sites)[:, None] * self._stored.tensor(
            "vectors", base.sites, base.width
        )

    @contextmanager
    def applied(self, model: Model) -> Iterator[None]:
        """See Intervention."""
        hooked = check_base(self._stored, model)
        with shifting(hooked, self._shifts.__getitem__):
            yield


@contextmanager
def shifting(model: SupportsDecoderHooks, shift: Callable[[int], Tensor]) -> Iterator[None]:
    """A context in which the output of each of the model's shifted modules is shifted by `shift(layer)`, [D], and rescaled.

    If the shift has a gradient, it is computed in every forward pass, so that gradients reach its parameters.
    """
    modules = model.shifted_modules()
    changes = [_Shift(shift, layer) for layer in range(len(modules))]
    with changed_outputs(modules, changes):
        yield


class _Shift:
    """The change of one layer. A vector without gradient is moved to the layer's device once."""

    def __init__(self, shift: Callable[[int], Tensor], layer: int) -> None:
        self._shift, self._layer = shift, layer
        self._vector: Tensor | None = None

    def __call__(self, states: Tensor) -> Tensor:
        if self._vector is None or self._vector.device != states.device:
            vector = self._shift(self._layer).to(states.device)
            if vector.requires_grad or vector.grad_fn is not None:
                return shifted(states, vector)
            self._vector = vector
        return shifted(states, self._vector)


def shifted(states: Tensor, vector: Tensor) -> Tensor:
    """(states + vector) with the norm of states, in their dtype; norms in float32 at least.

    `states` [..., D], `vector` float32 [D].
    """
    import torch

    moved = states + vector.float()
    norm = torch.linalg.vector_norm(states, dim=-1, keepdim=True, dtype=moved.dtype)
    way = fused_rescaled if moved.is_cuda else rescaled
    return way(moved, norm).to(states.dtype)


def rescaled(moved: Tensor, norm: Tensor) -> Tensor:
    """`moved` [..., D] with the norms `norm` [..., 1]: the faster way on a CPU."""
    import torch

    result: Tensor = moved * (norm / torch.linalg.vector_norm(moved, dim=-1, keepdim=True).clamp_min(SMALLEST))
    return result


def fused_rescaled(moved: Tensor, norm: Tensor) -> Tensor:
    """The same by one fused operation and a product: on a GPU each operation costs a kernel launch, which is not negligible
    when single tokens are generated."""
    import torch

    width = moved.shape[-1]
    unit: Tensor = torch.nn.functional.rms_norm(moved, (width,), _scale(width, moved.device), SMALLEST**2 / width)
    return unit * norm


@lru_cache(maxsize=64)
def _scale(width: int, device: torch.device) -> Tensor:
    """float32 [D]: 1 / sqrt(D), which turns a root mean square of 1 into a norm of 1."""
    import torch

    with torch.inference_mode(False):  # it is cached beyond inference mode
        return torch.full((width,), width**-0.5, device=device)
