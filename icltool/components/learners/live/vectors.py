"""The vectors that LIVE learns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from icltool.components.interventions.shift import shifting
from icltool.components.learners.interventions.module import ParameterGroup, Student
from icltool.components.learners.live.options import LiveOptions
from icltool.contracts import SupportsDecoderHooks


class LiveVectors(Student):
    """v [L, D], drawn from N(0, init_std^2), and one weight alpha_l per layer: L*D + L numbers (LIVE, section 3.1)."""

    def __init__(self, model: SupportsDecoderHooks, options: LiveOptions) -> None:
        super().__init__()
        base = model.base_model()
        self.vectors = torch.nn.Parameter(torch.randn(base.sites, base.width) * options.init_std)
        self.alphas = torch.nn.Parameter(torch.full((base.sites,), float(options.alpha)))
        self._model, self._options = (model,), options  # in a tuple, so that it is not a submodule

    def weights(self) -> Tensor:
        """alpha [L] as applied."""
        return self.alphas.sigmoid() if self._options.alpha_sigmoid else self.alphas

    def groups(self) -> list[ParameterGroup]:
        """See Student."""
        return [
            {"params": [self.vectors], "lr": self._options.lr},
            {"params": [self.alphas], "lr": self._options.alpha_lr},
        ]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """See Student."""
        with shifting(self._model[0], self.shift):
            yield

    def shift(self, layer: int) -> Tensor:
        """alpha_l v_l [D]."""
        return self.weights()[layer] * self.vectors[layer]

    def tensors(self) -> dict[str, Tensor]:
        """`vectors` [L, D] and `alphas` [L] as ShiftVectors reads them, after a sigmoid if there is one."""
        return {"vectors": self.vectors.float(), "alphas": self.weights().float()}
