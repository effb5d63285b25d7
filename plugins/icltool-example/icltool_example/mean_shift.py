"""A learner and its intervention: the mean change that demonstrations cause in an LVLM's states, added in their place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from icltool import (
    Draws,
    InterventionSet,
    Model,
    Options,
    Progress,
    TrainingOutcome,
    about_intervention,
    changed_outputs,
    check_base,
    expect_method,
    hooked_model,
    last_states,
    read_intervention,
    write_intervention,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

METHOD = "mean-shift"


class MeanShiftOptions(Options):
    """The number of prompts, and the strength of the shift."""

    shots: int = Field(4, ge=1, description="demonstrations in each prompt")
    examples: int = Field(32, ge=1, description="number of prompts to average over")
    strength: float = Field(0.3, description="factor of the mean difference")


class MeanShift:
    """The learner. For each layer: the mean over examples of the state with demonstrations less the state without, at the
    last token of the prompt, times `strength`. A layer sees what was added before it, so that strength 1 adds too much."""

    options_model = MeanShiftOptions

    def __init__(self, options: MeanShiftOptions) -> None:
        self.options = options

    def identity(self) -> dict[str, Any]:
        """The options that decide the result, defaults included."""
        return self.options.model_dump(mode="json")

    def learn_intervention(self, data: InterventionSet, folder: Path, seed: int, progress: Progress) -> TrainingOutcome:
        """Writes `shifts` float32 [L, D]."""
        import torch

        model = hooked_model(data, METHOD)
        pool = Draws(data, len(data.examples), seed)  # draws by key, and no demonstration leaks
        positions = range(min(self.options.examples, len(pool)))
        states = []
        with progress.task(f"{METHOD}: reading prompts", 2 * len(positions), "prompts") as ticker:
            for prompts in (pool.prompts(positions, self.options.shots), pool.plain_prompts(positions)):
                states_by_layer = last_states(data, prompts, model.shifted_modules(), advance=ticker.advance)
                states.append(torch.stack([of_layer.double().mean(0) for of_layer in states_by_layer]))
        shifts = (self.options.strength * (states[0] - states[1])).float()
        figures = {"examples": len(positions), "norm": float(shifts.norm(dim=1).mean())}
        about = about_intervention(data, self.options.shots, seed, self.identity(), figures)
        path = write_intervention(folder, METHOD, model, about, {"shifts": shifts})
        return TrainingOutcome({"last": path}, [figures])


class MeanShiftVectors:
    """The intervention: each layer's shift is added to the state of every token."""

    method = METHOD
    everywhere = True

    def __init__(self, file: str | Path) -> None:
        self._stored = read_intervention(Path(file))
        expect_method(self._stored, METHOD)
        base = self._stored.base
        self._shifts = self._stored.tensor("shifts", base.sites, base.width)
        self.file, self.about, self.parameters = self._stored.path, self._stored.about, self._stored.numbers

    def identity(self) -> dict[str, Any]:
        """A hash of the content, wherever the file is."""
        return {"intervention": METHOD, "content": self._stored.digest}

    def check(self, model: Model) -> None:
        """Raises ConfigError for another model."""
        check_base(self._stored, model)

    @contextmanager
    def applied(self, model: Model) -> Iterator[None]:
        """Adds hooks and always removes them, even after an error."""
        modules = check_base(self._stored, model).shifted_modules()
        with changed_outputs(modules, [_adding(shift) for shift in self._shifts]):
            yield


def _adding(shift: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda states: states + shift.to(states)  # of its device and precision
