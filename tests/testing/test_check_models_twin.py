"""What only the plain twin of a model, or padding on the other side, can find. The adapters are real, but for one fault."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from icltool.components.models.shared.options import RemoteCodeOptions
from icltool.components.models.text.text import TextModel
from icltool.contracts import Example, Prompt, TargetScore
from icltool.testing import check_model, torch_twin
from tests.components.models import tiny


class CountsPositionsOfPadding(TextModel):
    def _inputs(self, tokens: Any, side: str) -> Any:
        inputs, offsets = super()._inputs(tokens, side)
        inputs.pop("position_ids")
        return inputs, offsets


class IsTooSure(TextModel):
    def __init__(self, options: RemoteCodeOptions) -> None:
        super().__init__(options)
        del self.extend_prefix  # it would be right

    def score(
        self, prompts: Sequence[Prompt], batch_size: int, features: Mapping[str, Any] | None = None
    ) -> list[TargetScore]:
        return [replace(s, log_prob=0.9 * s.log_prob) for s in super().score(prompts, batch_size, features)]


class PenalisesRepetition(TextModel):
    def __init__(self, options: RemoteCodeOptions) -> None:
        super().__init__(options)
        self.model.generation_config.repetition_penalty = 9.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny.gpt2(tmp_path_factory.mktemp("gpt2"))


def checked(model: TextModel) -> None:
    labels = (
        "red bar",
        "green block",
        "blue frame",
        "yellow bar",
        "red block",
        "green frame",
        "blue bar",
        "yellow block",
    )
    examples = [Example(i, "", i, f"text {'more ' * (i % 3)}{i}", label, (label,)) for i, label in enumerate(labels)]
    twin = torch_twin(model.model, model.tokenizer, tiny.plain_text_inputs(model.source), model.end_tokens)
    check_model(model, examples, task="classification", twin=twin)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (CountsPositionsOfPadding, "padded on the other side"),
        (IsTooSure, "against plain full forward passes"),
        (PenalisesRepetition, "plain full forward passes"),
    ],
)
def test_the_suite_catches(wrong: type[TextModel], sentence: str, folder: str) -> None:
    with pytest.raises(AssertionError, match=sentence):
        checked(wrong(RemoteCodeOptions(path=folder, device="cpu")))


def test_the_same_adapter_without_a_fault_passes(folder: str) -> None:
    checked(TextModel(RemoteCodeOptions(path=folder, device="cpu")))
