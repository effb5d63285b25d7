"""Prompts of idefics, character by character, and what is cut out of an answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icltool.contracts import Example
from icltool.errors import ConfigError
from icltool.models.prompt_format import IDEFICS, IDEFICS2, TEXT, PromptFormat, filled

IMAGE = "<fake_token_around_image><image><fake_token_around_image>"


def example(label: str, question: str = "", image: str = "x.jpg") -> Example:
    return Example(1, image, 1, question or label, label, (label,), question)


def test_caption_prompt() -> None:
    prompt = IDEFICS.prompt(
        "caption", [example("a cat", image="1.jpg"), example("a dog", image="2.jpg")], example("a cow")
    )
    assert prompt.text == f"<s>{IMAGE}Caption:a cat\n{IMAGE}Caption:a dog\n{IMAGE}Caption:"
    assert prompt.target == "a cow\n</s>"
    assert prompt.images == ("1.jpg", "2.jpg", "x.jpg")


def test_vqa_prompt_has_its_instruction_once() -> None:
    prompt = IDEFICS.prompt("vqa", [example("red", "What colour?")], example("two", "How many?"))
    instruction = "Instruction: provide an answer to the question. Use the image to answer.\n"
    assert prompt.text == (
        f"<s>{instruction}{IMAGE}Question:What colour? Short answer:red\n{IMAGE}Question:How many? Short answer:"
    )
    assert prompt.target == "two\n</s>"


def test_zero_shot_prompt_is_the_query_alone() -> None:
    assert IDEFICS.prompt("caption", [], example("x")).text == f"<s>{IMAGE}Caption:"


@given(st.text(max_size=60))
def test_data_cannot_add_images_or_lines(text: str) -> None:
    hostile = f"{text}<image>\n</s>{text}<fake_token_around_image>"
    prompt = IDEFICS.prompt("caption", [example(hostile)], example(hostile))
    assert prompt.text.count("<image>") == 2
    assert prompt.text.count("\n") == 1
    assert prompt.target.count("</s>") == 1
    assert prompt.target.endswith("\n</s>")


def test_unknown_task_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="caption, classification, vqa"):
        IDEFICS.prompt("retrieval", [], example("x"))


@pytest.mark.parametrize(
    ("task", "raw", "answer"),
    [
        ("caption", 'a "red" cat\nCaption: a dog', "a red cat"),
        ("caption", "  a cat on\na mat  ", "a cat on a mat"),
        ("caption", "Caption:", ""),
        ("vqa", "red\nQuestion: what", "red"),
        ("vqa", "red, I think", "red"),
        ("vqa", "two\nthree Short answer", "two three"),
        ("vqa", "2,000 Answer", "2,000"),
    ],
)
def test_answers_are_cut_where_the_next_example_begins(task: str, raw: str, answer: str) -> None:
    assert IDEFICS.clean(task, raw) == answer
    assert IDEFICS.clean(task, answer) == answer


def test_idefics2_writes_one_marker_for_an_image() -> None:
    prompt = IDEFICS2.prompt("caption", [example("a cat", image="1.jpg")], example("a cow"))
    assert (prompt.text, prompt.target) == ("<s><image>Caption:a cat\n<image>Caption:", "a cow\n</s>")
    assert prompt.images == ("1.jpg", "x.jpg")


@pytest.mark.parametrize(("form", "image"), [(IDEFICS, IMAGE), (IDEFICS2, "<image>")])
def test_classification_prompt(form: PromptFormat, image: str) -> None:
    shown, plain = (Example(1, path, 1, "great fun", "good", ("good",)) for path in ("1.jpg", ""))
    prompt = form.prompt("classification", [shown], plain)
    assert prompt.text == f"<s>{image}Input:great fun Label:good\nInput:great fun Label:"
    assert form.clean("classification", " good\nInput: dull Label: bad") == "good"


def test_text_format_has_no_captions() -> None:
    assert TEXT.prompt("classification", [], example("good", "")).text == "Input:good Label:"
    with pytest.raises(ConfigError, match="classification, vqa"):
        TEXT.prompt("caption", [], example("x"))


def test_braces_in_the_data_stay_as_they_are() -> None:
    assert filled("{question}|{text}", "{text}", "{question}{}") == "{text}|{question}{}"
