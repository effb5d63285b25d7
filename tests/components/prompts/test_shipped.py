"""The prompts of published systems, character by character, as completion and chat models get them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from icltool.components.models.chat.chat_format import conversation
from icltool.components.models.shared.prompt_format import IDEFICS2, IDEFICS_FORMATS, PromptFormat, own_prompt
from icltool.contracts import Example, PromptFile, packaged_prompt
from icltool.errors import ConfigError, DataError

SHIPPED = ("lever-lm", "live", "openflamingo", "vl-icl")
FLAMINGO = PromptFormat(
    start="", image="<image>", separator="<|endofchunk|>", end="", reserved=("<image>",), tasks=IDEFICS2.tasks,
    families=("completion", "openflamingo"),
)  # fmt: skip


def shipped(name: str) -> PromptFile:
    return packaged_prompt("icltool.components.prompts", f"{name}.toml")


def example(label: str, question: str = "", image: str = "x.jpg", **changes: object) -> Example:
    whole = Example(1, image, 1, question or label, label, (label,), question)
    return replace(whole, **changes)  # type: ignore[arg-type]


def written(form: PromptFormat, task: str = "vqa") -> tuple[str, str]:
    prompt = form.prompt(task, [example("red", "hue?")], example("two", "how many?"))
    return prompt.text, prompt.target


@pytest.mark.parametrize("template", ["lever-lm", "live"])
@pytest.mark.parametrize("task", ["caption", "vqa"])
def test_lever_lm_and_live_equal_the_templates_of_idefics(template: str, task: str) -> None:
    own = own_prompt(replace(IDEFICS2, separated_target=template == "lever-lm"), shipped(template))
    published = replace(IDEFICS_FORMATS[template], image="<image>")
    text, target = written(own, task)
    assert text == written(published, task)[0]
    assert target.removesuffix("</s>").rstrip("\n") == written(published, task)[1].removesuffix("</s>").rstrip("\n")
    for raw in ("two. Question: what", 'a "cat", big\nCaption: x', "two."):
        assert own.clean(task, raw) == published.clean(task, raw)


def test_openflamingo() -> None:
    form = own_prompt(FLAMINGO, shipped("openflamingo"))
    assert written(form, "caption") == ("<image>Output:red<|endofchunk|>\n<image>Output:", "two<|endofchunk|>\n")
    assert written(form)[0] == (
        "<image>Question:hue? Short answer:red<|endofchunk|>\n<image>Question:how many? Short answer:"
    )
    assert form.clean("caption", 'a "cat" Output: x') == "a cat"
    assert form.clean("vqa", "two, or three") == "two"


def test_vl_icl_of_a_completion_model() -> None:
    form = own_prompt(IDEFICS2, shipped("vl-icl"))
    text, target = written(form)
    start = "<s>You are a helpful assistant.\n\n"
    assert text == f"{start}<image>\nUser: hue?\nAssistant: red\n<image>\nUser: how many?\nAssistant:"
    assert target == " two\n</s>"
    assert form.clean("vqa", " two\nUser: hue?\nAssistant: red") == "two"
    assert written(own_prompt(FLAMINGO, shipped("vl-icl")))[0] == (
        "\n<image>hue?\nAnswer: red<|endofchunk|><image>how many?\nAnswer:"
    )


def test_vl_icl_of_a_chat_model_is_one_turn() -> None:
    pair = example("red", "hue?", more_images=("y.jpg",), more_image_ids=(2,))
    image = {"type": "image"}
    [turn] = conversation("vqa", [pair], example("two", "how many?"), "flat", file=shipped("vl-icl"))
    assert turn["content"] == [
        image, {"type": "text", "text": "\n"}, image, {"type": "text", "text": "\nhue?\nAnswer: red\n"},
        image, {"type": "text", "text": "\nhow many?\nAnswer:"},
    ]  # fmt: skip


def test_turns_of_a_prompt_of_ones_own() -> None:
    own = PromptFile(
        system="Be terse.", instruction="Look. ", query="Q: {question}", demonstration="Seen: {question}",
        answer="{rationale} So {label}.", label_words={"two": "2"},
    )  # fmt: skip
    demonstration = example("two", "legs?", rationale="It stands.")
    turns = conversation("vqa", [demonstration], example("four", "ears?"), "turns", file=own)
    assert [(turn["role"], [part.get("text", "<image>") for part in turn["content"]]) for turn in turns] == [
        ("system", ["Be terse."]),
        ("user", ["Look. ", "<image>", "Seen: legs?"]),
        ("assistant", ["It stands. So 2."]),
        ("user", ["<image>", "Q: ears?"]),
    ]
    with pytest.raises(DataError, match="example 1 has no rationale, but the prompt writes one"):
        conversation("vqa", [example("two", "legs?")], demonstration, "turns", file=own)


def test_label_words_are_written_and_read_back() -> None:
    form = own_prompt(IDEFICS2, PromptFile(label_words={"red": "rot", "two": "zwei"}))
    text, target = written(form)
    assert text == "<s><image>Question:hue? Short answer:rot\n<image>Question:how many? Short answer:"
    assert target == "zwei\n</s>"
    assert [form.clean("vqa", raw) for raw in ("zwei", "drei", "rot, or")] == ["two", "drei", "red"]


@pytest.mark.parametrize(
    ("answer", "raw", "label"),
    [
        ("It is {label}", "It is two\n", "two"),
        ("It is {label}", "two", "two"),
        ("{rationale} So the answer is {label}.", "Four legs, so a cow. So the answer is two. Question: x", "two"),
        ("{rationale} So the answer is {label}.", "two", "two"),
        ("{label} because {rationale}", "two because it stands", "two"),
    ],
)
def test_the_label_is_read_out_of_the_form_of_an_answer(answer: str, raw: str, label: str) -> None:
    form = own_prompt(IDEFICS2, PromptFile(answer=answer))
    assert form.clean("caption", raw.replace("Question", "Caption")) == label


def test_a_prompt_cannot_write_a_token_for_an_image() -> None:
    with pytest.raises(ConfigError, match="the prompt has <image>, the model's token for an image"):
        written(own_prompt(IDEFICS2, PromptFile(instruction="Look at <image>.")))


def test_a_prompt_is_part_of_the_identity() -> None:
    plain, own = own_prompt(IDEFICS2, None), own_prompt(IDEFICS2, PromptFile(instruction="Look."))
    assert plain is IDEFICS2
    assert repr(own) != repr(plain)
    assert repr(own) == repr(own_prompt(IDEFICS2, PromptFile(instruction="Look.", description="x")))


def test_a_model_that_continues_a_text_has_no_system_turn() -> None:
    with pytest.raises(ConfigError, match="has a system turn, but this model continues a text"):
        written(own_prompt(IDEFICS2, PromptFile(system="Be terse.")))


def test_every_shipped_prompt_says_where_it_is_from() -> None:
    for name in SHIPPED:
        assert "arXiv:" in shipped(name).description
