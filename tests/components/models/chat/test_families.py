"""Every family of transformers' image-text-to-text mapping answers prompts of several images, or is refused in one line."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import transformers
from packaging.version import Version

from icltool.components.models.chat.chat import ChatModel, ChatOptions
from icltool.contracts import Example, GenerationOptions
from icltool.engine.first_prompt import check_first_prompt
from icltool.errors import ConfigError, IclError
from tests.components.models.chat.families import FAMILIES, SPECIAL, build
from tests.components.models.tiny import trained_tokenizer
from tests.suites import apart

Images = Callable[[str], list[Example]]
QUICK = {"mllama", "deepseek_vl", "emu3"}
#: Families whose own forward pass fails in these releases of transformers: (first, last).
BROKEN = {"llama4": (Version("5.24.0"), Version("5.24.99"))}


def opened(kind: str, folder: Path) -> ChatModel:
    model = ChatModel(ChatOptions(name=kind, path=str(folder), device="cpu"))
    check_first_prompt(model, kind, str(folder), "vqa")
    return model


def check(model: ChatModel, examples: list[Example]) -> None:
    """Scores and answers are those of each prompt alone, and images count in their order."""
    options = GenerationOptions(4, 2)
    prompts = [model.prompt("vqa", examples[1:3], examples[0]), model.prompt("vqa", [], examples[3]),
               model.prompt("vqa", examples[4:5], examples[5])]  # fmt: skip
    alone = [model.score([prompt], 1)[0].log_prob for prompt in prompts]
    assert [score.log_prob for score in model.score(prompts, 3)] == pytest.approx(alone, abs=1e-3)
    assert model.generate(prompts, options, 3) == [model.generate([prompt], options, 1)[0] for prompt in prompts]
    swapped = replace(prompts[0], images=prompts[0].images[::-1])
    assert model.score([swapped], 1)[0].log_prob != pytest.approx(alone[0], abs=1e-5)


@pytest.mark.filterwarnings("ignore:`hidden_state` is deprecated:FutureWarning")  # transformers 5.17 calls itself so
@pytest.mark.parametrize("kind", apart("external", SPECIAL.keys() - QUICK, SPECIAL))
def test_families_with_parts_in_unusual_places_answer(kind: str, tmp_path: Path, images: Images) -> None:
    if kind not in FAMILIES:
        pytest.skip(f"transformers {transformers.__version__} has no {kind}")
    if kind == "perception_lm":
        pytest.importorskip("timm")
    build(kind, tmp_path)
    first, last = BROKEN.get(kind, (Version("99"), Version("0")))
    if first <= Version(transformers.__version__) <= last:
        with pytest.raises(ConfigError, match="cannot read its first prompt: AttributeError") as caught:
            opened(kind, tmp_path)
        assert "cannot run this architecture: try another release" in str(caught.value.hint)
        return
    check(opened(kind, tmp_path), images("vqa"))


@pytest.mark.external
@pytest.mark.parametrize("kind", [kind for kind in FAMILIES if kind not in SPECIAL])
def test_every_family_answers_or_is_refused_in_one_line(kind: str, tmp_path: Path, images: Images) -> None:
    """A model that the rules cannot build has its configuration and a tokenizer alone, which must not be a traceback either."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            build(kind, tmp_path)
        except Exception:
            (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
            trained_tokenizer({"eos_token": "</s>"}).save_pretrained(tmp_path)
        try:
            check(opened(kind, tmp_path), images("vqa"))
        except IclError as error:
            message = error.message
        else:
            message = ""
    assert "\n" not in message
    assert len(message) < 500


def test_what_does_not_generate_text_is_refused(tmp_path: Path) -> None:
    if "pi0" not in FAMILIES:
        pytest.skip("this release of transformers has no pi0")
    build("pi0", tmp_path)
    # before 5.24 its processor does not work without a length of images, and is refused first
    newest = Version(transformers.__version__) >= Version("5.24")
    refusal = "does not generate text: it is a PI0ForConditionalGeneration" if newest else "cannot take two images"
    with pytest.raises(ConfigError, match=refusal):
        opened("pi0", tmp_path)
