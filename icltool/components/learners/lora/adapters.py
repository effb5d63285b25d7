"""The parameters that LoRA trains."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from icltool.components.interventions.lora import LowRankAdapters
from icltool.components.learners.interventions.draws import Draws
from icltool.components.learners.interventions.module import InterventionModule, ParameterGroup, Student
from icltool.components.learners.lora.options import LoRAOptions
from icltool.contracts import InterventionSet, SupportsDecoderHooks, keyed_generator


class LearnedAdapters(Student):
    """The adapters' matrices, without the projections that they belong to."""

    def __init__(self, model: SupportsDecoderHooks, options: LoRAOptions) -> None:
        super().__init__()
        self._adapters = LowRankAdapters(model, options.targets, options.rank, options.lora_alpha, options.dropout)
        self.parts = torch.nn.ModuleList(torch.nn.ModuleList(parts) for parts in self._adapters.trained())
        self._lr = options.lr

    def groups(self) -> list[ParameterGroup]:
        """See Student."""
        return [{"params": list(self.parameters()), "lr": self._lr}]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """See Student."""
        with self._adapters.injected():
            yield

    def tensors(self) -> dict[str, Tensor]:
        """The tensors that the intervention `lora` reads."""
        return {name: weight.float() for name, weight in self._adapters.weights().items()}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> LearnedAdapters:
        """Keeps adapters in float32 and on the devices of their layers when Lightning moves modules."""
        return self


class LoraModule(InterventionModule):
    """Minimises the cross-entropy of the answers and, with `distil`, the divergence from the teacher."""

    def __init__(
        self, student: LearnedAdapters, data: InterventionSet, draws: Draws, options: LoRAOptions, seed: int
    ) -> None:
        super().__init__(student, data, draws, options, seed)
        self.distils = options.distil

    def on_train_start(self) -> None:
        """Moves the optimiser's state back to the adapters' devices, since Lightning moves it to its own on resuming."""
        for optimizer in self.trainer.optimizers:
            for weight, state in optimizer.state.items():
                state.update(
                    {k: v.to(weight.device) for k, v in state.items() if isinstance(v, Tensor) and k != "step"}
                )

    def on_train_batch_start(self, batch: object, batch_idx: int) -> None:
        """Seeds dropout for every batch, so that a resumed training draws the same."""
        drawn = keyed_generator(self.seed, f"lora.dropout.{self.global_rank}.{self.current_epoch}", batch_idx)
        torch.manual_seed(int(drawn.integers(2**62)))
