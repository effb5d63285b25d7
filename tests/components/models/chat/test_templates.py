"""Adapters that write the prompts of LIVE: the suite of models, the prefix engine, and fingerprints."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from icltool.components.models.idefics.idefics import IdeficsModel
from icltool.components.models.idefics.idefics2 import Idefics2Model
from icltool.components.models.idefics.options import IdeficsOptions
from icltool.contracts import Example, GenerationOptions
from icltool.engine import prefix_engine
from icltool.engine.batching import Batches
from icltool.engine.prefix_engine import PrefixEngine
from icltool.engine.sharing import shared_segments
from icltool.errors import ConfigError
from icltool.testing import check_model, make_examples, torch_twin
from icltool.world.scenes import NONCE_WORDS
from tests.components.models import tiny
from tests.components.models.idefics.test_idefics import plain_inputs
from tests.suites import apart

Folder = Callable[[Callable[[Path], str]], str]
Images = Callable[[str], list[Example]]


def load_model(family: str, folder_of: Folder, **options: Any) -> Any:
    if family == "idefics":
        return IdeficsModel(IdeficsOptions(name="idefics", path=folder_of(tiny.idefics), device="cpu", **options))
    return Idefics2Model(IdeficsOptions(name="idefics2", path=folder_of(tiny.idefics2), device="cpu", **options))


@pytest.fixture(scope="module", params=["idefics", "idefics2"])
def model(request: pytest.FixtureRequest, folder_of: Folder) -> Any:
    return load_model(request.param, folder_of, template="live")


@pytest.fixture
def examples(model: Any, images: Images, tmp_path: Path) -> Callable[[str], list[Example]]:
    """Examples of a task in words that the model's tokenizer knows."""
    if isinstance(model, Idefics2Model):
        return images
    return lambda task: make_examples(tmp_path, 10, task=task, words=NONCE_WORDS[:7])


@pytest.mark.parametrize("task", apart("external", ["caption"], ["caption", "vqa"]))
def test_it_conforms(task: str, model: Any, examples: Callable[[str], list[Example]]) -> None:
    if isinstance(model, Idefics2Model):
        inputs = tiny.plain_inputs(model.source, do_image_splitting=False)
        twin = torch_twin(model.model, model.tokenizer, inputs, model.end_tokens, model.image_tokens)
    else:
        inputs = partial(plain_inputs, model)
        twin = torch_twin(model.model, model.tokenizer, inputs, [2], model._markers)
    check_model(model, examples(task), task=task, twin=twin)


def test_the_prefix_engine_shares_what_the_prompts_share(
    model: Any, examples: Callable[[str], list[Example]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The steps of a search over VQA prompts, which begin with an instruction."""
    monkeypatch.setattr(prefix_engine, "shared_segments", partial(shared_segments, worth=4))
    query, a, b, c, *_ = examples("vqa")
    engine, options = PrefixEngine(model, Batches(5), 2**26), GenerationOptions(4, 2)
    for chosen in ([[a], [b], [c]], [[a, b], [a, c], [c, a], [c, b]], [[a, b, c], [a, c, b], []]):
        prompts = [model.prompt("vqa", demonstrations, query) for demonstrations in chosen]
        expected = [model.score([p], 1)[0] for p in prompts]
        actual = engine.scores(prompts, None, True)
        assert [s.log_prob for s in actual] == pytest.approx([s.log_prob for s in expected], abs=1e-4)
        assert [s.tokens for s in actual] == [s.tokens for s in expected]
    assert engine.answers(prompts, options, None) == [model.generate([p], options, 1)[0] for p in prompts]
    assert engine.counts.computed < 0.8 * engine.counts.scored


def test_a_target_ends_with_the_answer_the_full_stop_and_eos(
    model: Any, examples: Callable[[str], list[Example]]
) -> None:
    """In tokens: the full stop and EOS stand alone, so that all demonstrations' and targets' labels are read alike."""
    first, second, *_ = examples("vqa")
    prompt = model.prompt("vqa", [first], second)
    ids = model.prompt_tokens([prompt], True)[0]
    tokens = model.tokenizer.convert_ids_to_tokens(list(ids.ids[ids.target_start :]))
    assert tokens[-2:] == [".", "</s>"]
    assert "\n" not in model.tokenizer.decode(list(ids.ids[ids.target_start :]))
    assert model.score([prompt], 1)[0].tokens == len(tokens)


@pytest.mark.parametrize("family", ["idefics", "idefics2"])
def test_fingerprints_tell_templates_apart(family: str, folder_of: Folder) -> None:
    usual, named, live = (
        load_model(family, folder_of, **o) for o in ({}, {"template": "lever-lm"}, {"template": "live"})
    )
    assert usual.fingerprint() == named.fingerprint() != live.fingerprint()
    assert (usual.template, live.template) == ("lever-lm", "live")


@pytest.mark.parametrize("adapter", [IdeficsModel, Idefics2Model])
def test_an_unknown_template_is_refused_before_weights_are_looked_for(adapter: type[Any]) -> None:
    with pytest.raises(ConfigError, match="unknown prompt template 'flamingo'") as caught:
        adapter(IdeficsOptions(name="mine", path="no/such/folder", template="flamingo"))
    assert caught.value.hint == "known: lever-lm, live"
