"""The prompts of a search, computed as a tree by each kind of adapter, equal prompts computed one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from icltool.components.models.chat.chat import ChatModel, ChatOptions
from icltool.components.models.idefics.idefics2 import Idefics2Model
from icltool.components.models.idefics.options import IdeficsOptions
from icltool.components.models.shared.options import RemoteCodeOptions
from icltool.components.models.text.text import TextModel
from icltool.contracts import (
    Example,
    GeneratesFromPrefix,
    GenerationOptions,
    Prompt,
    Span,
    SupportsImageCache,
    SupportsPrefixCache,
)
from icltool.engine import prefix_engine
from icltool.engine.batching import Batches
from icltool.engine.prefix_engine import PrefixEngine
from icltool.engine.sharing import shared_segments
from icltool.testing.alone import PromptsAlone
from tests.components.models import tiny
from tests.components.models.text.test_text import example
from tests.suites import apart

Folder = Callable[[Callable[[Path], str]], str]
Images = Callable[[str], list[Example]]
OPTIONS = GenerationOptions(4, 2)


def chat_model(family: str, folder_of: Folder) -> ChatModel:
    return ChatModel(ChatOptions(name=family, path=folder_of(tiny.CHAT[family]), device="cpu"))


KINDS: dict[str, Callable[[Folder], Any]] = {
    "gpt2": lambda folder_of: TextModel(RemoteCodeOptions(path=folder_of(tiny.gpt2), device="cpu")),
    "idefics2": lambda folder_of: Idefics2Model(IdeficsOptions(path=folder_of(tiny.idefics2), device="cpu")),
    **{family: partial(chat_model, family) for family in sorted(tiny.CHAT.keys() - {"smolvlm", "qwen3.5"})},
}


def load_model(kind: str, folder_of: Folder) -> Any:
    if kind in tiny.CHAT and not tiny.takes_features():
        pytest.skip("this release of transformers takes no ready image features")
    return KINDS[kind](folder_of)


@pytest.fixture(scope="module", params=apart("external", ["gemma4-small", "ministral3"], ["idefics", *KINDS]))
def case(
    request: pytest.FixtureRequest, folder_of: Folder, images: Images, tiny_model: Any
) -> tuple[Any, list[list[Prompt]], PromptsAlone]:
    """(model, the prompts of three steps of a beam search, what the model gives for each of them)."""
    model = tiny_model if request.param == "idefics" else load_model(request.param, folder_of)
    task = "classification" if request.param == "gpt2" else "caption"
    examples = [example(i) for i in range(8)] if request.param == "gpt2" else images("caption")
    query, pool = examples[0], examples[1:4]

    def step(beams: Sequence[list[Example]]) -> list[Prompt]:
        return [model.prompt(task, [*beam, more], query) for beam in beams for more in pool if more not in beam]

    beams = [[pool[0], pool[1]], [pool[0], pool[2]]]
    steps = [step([[]]), step([[pool[0]], [pool[2]]]), [*step(beams), model.prompt(task, [], query)]]
    return model, steps, PromptsAlone(model)


@pytest.mark.parametrize("limit", [0, 40_000, 2**26])
def test_a_search_gives_the_figures_of_single_prompts(
    limit: int, case: tuple[Any, list[list[Prompt]], PromptsAlone], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefix_engine, "shared_segments", partial(shared_segments, worth=4))
    model, steps, alone = case
    assert isinstance(model, GeneratesFromPrefix)
    features = None
    if limit == 40_000 and hasattr(model, "image_features"):
        paths = list(dict.fromkeys(path for step in steps for p in step for path in p.images))
        features = dict(zip(paths, model.image_features(paths, 2), strict=True))
    engine = PrefixEngine(model, Batches(5), limit)
    for prompts in steps:
        expected = alone.scores(prompts)
        actual = engine.scores(prompts, features, True)
        assert [s.log_prob for s in actual] == pytest.approx([s.log_prob for s in expected], abs=1e-4)
        assert [s.tokens for s in actual] == [s.tokens for s in expected]
    answers = engine.answers(steps[-1], OPTIONS, features)
    assert answers == alone.answers(steps[-1], OPTIONS)
    if limit == 2**26:
        assert engine.counts.computed < 0.62 * engine.counts.scored


@pytest.mark.parametrize(
    "family",
    apart(
        "external", KINDS.keys() - {"gpt2", "idefics2", "gemma3", "llava-onevision"}, sorted(KINDS.keys() - {"gpt2"})
    ),
)
def test_prompts_with_and_without_images_are_one_tree(family: str, folder_of: Folder, images: Images) -> None:
    model, (a, b, c, *_) = load_model(family, folder_of), images("vqa")
    bare = [replace(e, image="") for e in (a, b, c)]
    prompts = [
        model.prompt("vqa", demonstrations, query)
        for demonstrations, query in (([a], b), (bare[:1], bare[1]), (bare[:2], c), (bare[:2], bare[2]), ([], bare[0]))
    ]
    alone = PromptsAlone(model)
    for some in (prompts, [p for p in prompts if not p.images]):
        engine = PrefixEngine(model, Batches(5), 2**26)
        assert [s.log_prob for s in engine.scores(some, None, True)] == pytest.approx(alone.log_probs(some), abs=1e-4)
        assert engine.answers(some, OPTIONS, None) == alone.answers(some, OPTIONS)


class Readings(TorchDispatchMode):
    """Operations whose result decides what is done next on the CPU: on a GPU each of them waits."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self._paused = False

    def ignore(self, patch: pytest.MonkeyPatch, holder: Any, method: str) -> None:
        real = getattr(holder, method)

        def apart(*args: Any) -> Any:
            self._paused = True
            try:
                return real(*args)
            finally:
                self._paused = False

        patch.setattr(holder, method, apart)

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = op.overloadpacket.__name__
        by_mask = name in ("index", "index_put", "index_put_") and any(
            t is not None and t.dtype == torch.bool for t in args[1]
        )
        if self._paused:
            return op(*args, **(kwargs or {}))
        by_places = name == "where" and len(args) == 1  # as `nonzero` arrives under inference mode
        waits = ("_local_scalar_dense", "equal", "masked_select", "nonzero", "unique_dim", "_unique2")
        if by_mask or by_places or name in waits:
            self.names.append(name)
        return op(*args, **(kwargs or {}))


def test_nothing_is_read_back_from_the_device(
    case: tuple[Any, list[list[Prompt]], PromptsAlone], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, (*_, prompts), _ = case
    features = None
    if hasattr(model, "image_features"):
        paths = list(dict.fromkeys(path for p in prompts for path in p.images))
        features = dict(zip(paths, model.image_features(paths, 2), strict=True))
    tokens = model.prompt_tokens(prompts, True)
    whole = [Span(t, 0, t.target_start - 1) for t in tokens]
    past = _left(model.extend_prefix(whole, None, features, True).keys_values, [s.end for s in whole])
    rest = [Span(t, t.target_start - 1, len(t.ids) - 1) for t in tokens]
    readings = Readings()
    if hasattr(model, "_images") and model.model.config.model_type.startswith("qwen"):
        readings.ignore(monkeypatch, type(model.extend_prefix.__self__), "_positions")  # they are computed on the CPU
    with readings:
        for keep in (False, True):
            model.extend_prefix(whole, None, features, keep)
            model.extend_prefix(rest, past, features, keep)
    assert readings.names == []


def _left(batch: Any, lengths: Sequence[int]) -> Any:
    """Keys and values of the whole batch, from padding on the right to padding on the left."""
    longest = max(lengths)
    turn = [torch.arange(longest).roll(longest - n) for n in lengths]
    index = torch.stack(turn)[:, None, :, None]
    return [tuple(t.gather(2, index.expand(-1, t.shape[1], -1, t.shape[3])) for t in pair) for pair in batch]


@pytest.mark.parametrize("family", ["idefics3", "llava-onevision", "qwen2.5-vl"])
def test_tokens_are_counted_without_reading_an_image_again(
    family: str, folder_of: Folder, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    from icltool.components.models.chat import chat_images

    model, examples = load_model(family, folder_of), images("caption")
    prompts = [model.prompt("caption", examples[1 : 1 + k], examples[0]) for k in (3, 1)]
    once = model.prompt_tokens(prompts, True)
    monkeypatch.setattr(chat_images, "read_image", lambda path: pytest.fail("read again"))
    assert model.prompt_tokens(prompts[::-1], True) == once[::-1]


def test_chat_models_with_a_recurrent_state_are_computed_whole(folder_of: Folder) -> None:
    model = chat_model("qwen3.5", folder_of)
    assert isinstance(model, SupportsImageCache) == tiny.takes_features()
    assert not isinstance(model, SupportsPrefixCache)
