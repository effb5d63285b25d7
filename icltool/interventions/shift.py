"""One vector for each layer, added to the states of every token: LIVE, and in-context vectors by PCA."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icltool.contracts import Model, SupportsDecoderHooks
from icltool.errors import StoreError
from icltool.interventions.files import Stored, again, check_base, read
from icltool.interventions.hooks import changed_outputs

if TYPE_CHECKING:
    from torch import Tensor

#: Norm of a shifted state below which it is not stretched to its length of before: a shift took it away whole.
SMALLEST = 1e-12


class ShiftVectors:
    """At layer l every token's state h becomes (h + alpha_l v_l) rescaled to the norm of h.

    The file holds `vectors` float32 [L, D] and `alphas` float32 [L]. LIVE (arXiv 2406.13185, section 3) learns both; `icv-pca`
    takes principal directions (Liu et al. 2023, arXiv:2311.06668) with one strength for all layers.
    """

    everywhere = True

    def __init__(self, method: str, file: str | Path) -> None:
        """Raises StoreError for a file that is none of this method's."""
        stored = read(Path(file))
        expect_method(stored, method)
        vectors = stored.tensor("vectors", stored.base.sites, stored.base.width)
        alphas = stored.tensor("alphas", stored.base.sites)
        self.method, self.file, self.about = method, stored.path, stored.about
        self.parameters = stored.numbers
        self._stored = stored
        self._shifts = alphas[:, None] * vectors

    def identity(self) -> dict[str, Any]:
        """See Intervention."""
        return {"intervention": self.method, "content": self._stored.digest}

    def check(self, model: Model) -> None:
        """See Intervention."""
        check_base(self._stored, model)

    @contextmanager
    def applied(self, model: Model) -> Iterator[None]:
        """See Intervention."""
        hooked = check_base(self._stored, model)
        with shifting(hooked, lambda: self._shifts):
            yield


def expect_method(stored: Stored, method: str) -> None:
    """StoreError where the file is another method's."""
    if stored.method != method:
        raise StoreError(
            f"{stored.path} was made by `icltool train {stored.method}`, and this is {method}",
            f"--method {stored.method}, or {again(method)}",
        )


@contextmanager
def shifting(model: SupportsDecoderHooks, shifts: Callable[[], Sequence[Tensor] | Tensor]) -> Iterator[None]:
    """Within it the output of each of the model's shifted modules is shifted by `shifts()`, [L, D], and rescaled.

    The shifts are asked for anew in every forward pass, so that gradients reach what they are made of.
    """
    modules = model.shifted_modules()
    changes = [_Shift(shifts, place) for place in range(len(modules))]
    with changed_outputs(modules, changes):
        yield


class _Shift:
    """The change of one layer. Where no gradient is wanted, its vector is moved to the layer's device once."""

    def __init__(self, shifts: Callable[[], Any], place: int) -> None:
        self._shifts, self._place = shifts, place
        self._kept: Any = None

    def __call__(self, states: Tensor) -> Tensor:
        if self._kept is None or self._kept.device != states.device:
            vector = self._shifts()[self._place].to(states.device)
            if vector.requires_grad or vector.grad_fn is not None:
                return shifted(states, vector)
            self._kept = vector
        return shifted(states, self._kept)


def shifted(states: Tensor, vector: Tensor) -> Tensor:
    """(states + vector) with the norm of states, in their dtype; norms in float32 at least.

    `states` [..., D], `vector` float32 [D].
    """
    import torch

    moved = states + vector
    norm = torch.linalg.vector_norm
    before = norm(states, dim=-1, keepdim=True, dtype=moved.dtype)
    after = norm(moved, dim=-1, keepdim=True)
    rescaled: Tensor = moved * (before / after.clamp_min(SMALLEST))
    return rescaled.to(states.dtype)
