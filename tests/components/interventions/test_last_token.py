"""Vectors at the end of prompts against hooks that are told where prompts end, one prompt at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from icltool.components.interventions import files
from icltool.components.interventions.last_token import LastTokenVector
from icltool.components.interventions.stored import StoredOptions
from icltool.components.models.chat.chat import ChatModel, ChatOptions
from icltool.components.models.idefics.idefics import IdeficsModel
from icltool.components.models.shared.options import RemoteCodeOptions
from icltool.components.models.text.text import TextModel
from icltool.contracts import GenerationOptions, Prompt
from icltool.errors import ConfigError, StoreError
from tests.components.models import tiny
from tests.conftest import Scenery
from tests.suites import apart

METHODS = ("task-vector", "function-vector")
LAYER = 1
Case = tuple[Any, list[Prompt]]


@pytest.fixture(
    scope="module", params=apart("external", ["llama", "qwen2-vl"], ["idefics", "llama", "gpt2", "qwen2-vl"])
)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A model, and prompts of several lengths; two of them are a token longer than the one before."""
    if request.param in ("idefics", "qwen2-vl"):
        model: Any = request.getfixturevalue("tiny_model")
        if request.param == "qwen2-vl":
            model = ChatModel(
                ChatOptions(name="qwen2-vl", path=tiny.qwen2_vl(tmp_path_factory.mktemp("qwen2-vl")), device="cpu")
            )
        scenery: Scenery = request.getfixturevalue("scenery")
        examples = scenery.mixed(5, seed=4)
        return model, [model.prompt("caption", examples[1 : 1 + k], examples[0]) for k in (0, 2, 1, 3)]
    text = TextModel(
        RemoteCodeOptions(
            name=request.param, path=tiny.TEXT[request.param](tmp_path_factory.mktemp(request.param)), device="cpu"
        )
    )
    start = "<s>" if request.param == "llama" else ""
    texts = [f"{start}Input:what is {'a ' * k}red bar Label:" for k in (1, 2, 3, 0)]
    return text, [
        Prompt(line, (), f"blue frame{end}") for line, end in zip(texts, ("", "\n", " block", ""), strict=True)
    ]


def vector_file(model: Any, folder: Path, method: str, layer: int = LAYER, scale: float = 3.0) -> Path:
    """A file with a random vector, large enough to change answers."""
    base = model.base_model()
    vector = torch.randn(base.width, generator=torch.Generator().manual_seed(1)) * scale
    files.save_intervention(
        folder / "v.safetensors", method, base, {}, {"vector": vector, "layer": torch.tensor([layer])}
    )
    return folder / "v.safetensors"


@contextmanager
def outputs_of(module: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    def hook(module: Any, inputs: Any, output: Any) -> Any:
        return (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def by_hand(intervention: LastTokenVector, place: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """The change of one prompt whose last token is in column `place` of a pass over the whole text."""
    vector = intervention._stored.tensors["vector"]

    def change(states: torch.Tensor) -> torch.Tensor:
        changed = states.clone()
        if intervention.method == "task-vector":
            changed[:, place] = vector.to(states.dtype)
        else:
            changed[:, place:] = states[:, place:] + vector.to(states.dtype)
        return changed

    return change


def length_of(model: Any, prompt: Prompt) -> int:
    """Tokens before the target, those of images included."""
    return int(model.answer_batch([replace(prompt, target=prompt.target or "x")], None).lasts[0]) + 1


def plain_greedy(model: TextModel, intervention: LastTokenVector, text: str, tokens: int) -> str:
    """Greedy decoding without a cache, token by token."""
    ids = model.tokenizer(text, add_special_tokens=False)["input_ids"]
    start = len(ids)
    with torch.no_grad(), outputs_of(model.decoder_layers()[LAYER], by_hand(intervention, start - 1)):
        while len(ids) < start + tokens and (len(ids) == start or ids[-1] not in model.end_tokens):
            ids = [*ids, int(model.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax())]
    return str(model.tokenizer.decode(ids[start:], skip_special_tokens=True))


@pytest.mark.parametrize("method", METHODS)
def test_greedy_answers_equal_decoding_by_hand(case: Case, method: str, tmp_path: Path) -> None:
    model, prompts = case
    if not isinstance(model, TextModel):
        pytest.skip("text alone is decoded by hand")
    intervention = LastTokenVector(StoredOptions(method=method, file=vector_file(model, tmp_path, method)))
    options = GenerationOptions(6, 1)
    plain = model.generate(prompts, options, 4)
    expected = [plain_greedy(model, intervention, prompt.text, 6) for prompt in prompts]
    with intervention.applied(model):
        assert model.generate(prompts, options, 4) == expected
        assert model.generate(prompts, options, 1) == expected
    assert plain != expected
    assert model.generate(prompts, options, 4) == plain


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("method", METHODS)
def test_answers_equal_those_of_single_prompts_with_hooks_told_where_they_end(
    case: Case, method: str, beams: int, tmp_path: Path
) -> None:
    model, prompts = case
    intervention = LastTokenVector(StoredOptions(method=method, file=vector_file(model, tmp_path, method)))
    options = GenerationOptions(6, beams)
    plain, expected = model.generate(prompts, options, 1), []
    for prompt in prompts:
        length = length_of(model, prompt)

        def change(states: torch.Tensor, length: int = length) -> torch.Tensor:
            if states.shape[1] == length:
                return by_hand(intervention, length - 1)(states)
            return states if method == "task-vector" else by_hand(intervention, 0)(states)

        with outputs_of(model.decoder_layers()[LAYER], change):
            expected += model.generate([prompt], options, 1)
    assert plain != expected
    with intervention.applied(model):
        for batch_size in (1, 2, 4):
            assert model.generate(prompts, options, batch_size) == expected
        single = GenerationOptions(1, beams)
        short = [model.generate([prompt], single, 1) for prompt in prompts]
    configuration = model.model.generation_config
    configuration.use_cache = False
    try:
        with intervention.applied(model):
            assert model.generate(prompts, options, 4) == expected
            # after an answer of one token, a prompt that is longer by a token is not taken for its next pass
            assert [model.generate([prompt], single, 1) for prompt in prompts] == short
    finally:
        configuration.use_cache = True
    assert model.generate(prompts, options, 1) == plain


@pytest.mark.parametrize("method", METHODS)
def test_the_next_layer_sees_the_change_at_the_prompts_end(case: Case, method: str, tmp_path: Path) -> None:
    model, prompts = case
    intervention = LastTokenVector(StoredOptions(method=method, file=vector_file(model, tmp_path, method, layer=0)))
    vector, layers = intervention._stored.tensors["vector"], model.decoder_layers()
    before: list[torch.Tensor] = []
    seen: list[torch.Tensor] = []

    def keep(module: Any, inputs: Any, output: Any) -> None:
        before.append(output[0] if isinstance(output, tuple) else output)

    handles = [layers[0].register_forward_hook(keep)]  # put on first, so it sees the output as it was
    try:
        with intervention.applied(model):
            handles.append(layers[1].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0])))
            model.generate(prompts[:3], GenerationOptions(3, 1), 3)
    finally:
        for handle in handles:
            handle.remove()
    first, *later = zip(before, seen, strict=True)
    if not isinstance(model, IdeficsModel):  # images are attended to between the layers of IDEFICS
        assert torch.equal(first[0][:, :-1], first[1][:, :-1])
        added = vector if method == "task-vector" else first[0][:, -1] + vector
        assert torch.equal(first[1][:, -1], added.expand(3, -1))
        for was, now in later:
            assert torch.equal(now, was if method == "task-vector" else was + vector)
    assert later


def test_a_prompt_may_be_a_single_token(case: Case, tmp_path: Path) -> None:
    model, _ = case
    intervention = LastTokenVector(
        StoredOptions(method="task-vector", file=vector_file(model, tmp_path, "task-vector"))
    )
    single = Prompt("a", (), "x")
    assert length_of(model, single) == 1
    options, hidden = GenerationOptions(4, 1), intervention._stored.tensors["vector"]
    seen: list[torch.Tensor] = []
    with intervention.applied(model):
        handle = model.decoder_layers()[LAYER].register_forward_hook(
            lambda module, inputs, output: seen.append(output[0] if isinstance(output, tuple) else output)
        )
        try:
            model.generate([single, single], options, 2)
            model.generate([single], options, 1)
        finally:
            handle.remove()
    replaced = [bool(torch.equal(states[:, -1], hidden.expand(len(states), -1))) for states in seen]
    starts = [i for i, states in enumerate(seen) if i == 0 or len(states) != len(seen[i - 1])]
    assert [i for i, was in enumerate(replaced) if was] == starts
    assert len(seen) > len(starts)


@pytest.mark.parametrize("method", METHODS)
def test_scores_equal_those_with_hooks_told_where_prompts_end(case: Case, method: str, tmp_path: Path) -> None:
    model, prompts = case
    intervention = LastTokenVector(StoredOptions(method=method, file=vector_file(model, tmp_path, method)))
    plain = model.score(prompts, 4)
    expected = []
    for prompt in prompts:
        with outputs_of(model.decoder_layers()[LAYER], by_hand(intervention, length_of(model, prompt) - 1)):
            expected += model.score([prompt], 1)
    with intervention.applied(model):
        for batch_size in (1, 3, 4):
            for actual, score in zip(model.score(prompts, batch_size), expected, strict=True):
                assert actual.tokens == score.tokens
                assert actual.log_prob == pytest.approx(score.log_prob, abs=1e-4)
    assert any(abs(a.log_prob - b.log_prob) > 0.1 for a, b in zip(plain, expected, strict=True))
    assert model.score(prompts, 4) == plain
    assert "score" not in vars(model)


def test_nothing_is_left_after_an_exception(case: Case, tmp_path: Path) -> None:
    model, prompts = case
    intervention = LastTokenVector(
        StoredOptions(method="function-vector", file=vector_file(model, tmp_path, "function-vector"))
    )
    before = model.score(prompts, 2)
    for broken in (lambda: model.score([replace(prompts[0], target="")], 1), lambda: 1 / 0):
        with pytest.raises((ValueError, ZeroDivisionError)), intervention.applied(model):
            broken()
        assert model.score(prompts, 2) == before
        assert not model.decoder_layers()[LAYER]._forward_hooks
    assert "score" not in vars(model)


def test_states_keep_their_precision() -> None:
    from icltool.components.interventions.last_token import end_change

    states = torch.randn(2, 5, 8).bfloat16()
    lasts = torch.tensor([1, 3])
    vector = torch.randn(8)
    for method in METHODS:
        changed = end_change(method, vector).at(states, lasts)
        assert changed.dtype == torch.bfloat16
        for row, last in enumerate(lasts.tolist()):
            assert torch.equal(changed[row, :last], states[row, :last])
            if method == "task-vector":
                assert torch.equal(changed[row, last], vector.bfloat16())
                assert torch.equal(changed[row, last + 1 :], states[row, last + 1 :])
            else:
                assert torch.equal(changed[row, last:], (states[row, last:].float() + vector).bfloat16())


def test_a_file_of_another_model_method_or_layer_is_refused(case: Case, tmp_path: Path) -> None:
    model, _ = case
    path = vector_file(model, tmp_path, "task-vector")
    intervention = LastTokenVector(StoredOptions(method="task-vector", file=path))
    intervention.check(model)
    assert (intervention.everywhere, intervention.layer, intervention.parameters) == (
        False,
        LAYER,
        model.base_model().width + 1,
    )
    with pytest.raises(StoreError, match="was written by `icltool train task-vector`"):
        LastTokenVector(StoredOptions(method="function-vector", file=path))
    base = model.base_model()
    tensors = {"vector": torch.zeros(base.width + 8), "layer": torch.tensor([0])}
    changes: tuple[tuple[dict[str, Any], str], ...] = (
        ({"width": base.width + 8}, "hidden size"),
        ({"sites": base.sites + 1, "width": base.width + 8}, "layers"),
    )
    for change, words in changes:
        files.save_intervention(tmp_path / "other.safetensors", "task-vector", replace(base, **change), {}, tensors)
        other = LastTokenVector(StoredOptions(method="task-vector", file=tmp_path / "other.safetensors"))
        with pytest.raises(ConfigError, match=words), other.applied(model):
            pass
    files.save_intervention(tmp_path / "w.safetensors", "task-vector", replace(base, weights="0" * 12), {},
               {"vector": torch.zeros(base.width), "layer": torch.tensor([0])})  # fmt: skip
    with pytest.raises(ConfigError, match="other weights"):
        LastTokenVector(StoredOptions(method="task-vector", file=tmp_path / "w.safetensors")).check(model)
    wild = LastTokenVector(
        StoredOptions(method="task-vector", file=vector_file(model, tmp_path, "task-vector", layer=77))
    )
    with pytest.raises(StoreError, match="layer 77"), wild.applied(model):
        pass


def test_made_by_name(case: Case, tmp_path: Path) -> None:
    from icltool.plugin.manager import component

    model, _ = case
    for method in METHODS:
        intervention = component("interventions", method, file=vector_file(model, tmp_path, method))
        assert (
            intervention.identity()
            == LastTokenVector(StoredOptions(method=method, file=tmp_path / "v.safetensors")).identity()
        )
