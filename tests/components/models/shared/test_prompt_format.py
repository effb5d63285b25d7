"""Prompts of idefics, character by character, and what is cut out of an answer."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given, strategies as st

from icltool.components.models.idefics.options import IdeficsOptions
from icltool.components.models.shared.decoder_hooks import template_hash
from icltool.components.models.shared.prompt_format import (
    IDEFICS,
    IDEFICS2,
    IDEFICS2_FORMATS,
    IDEFICS_FORMATS,
    TEXT,
    PromptFormat,
    TaskFormat,
    plain_text,
    segments,
)
from icltool.contracts import Example
from icltool.errors import ConfigError, DataError

IMAGE = "<fake_token_around_image><image><fake_token_around_image>"
LIVE_INSTRUCTION = "Provide an answer to the question. Use the image to answer.\n"
#: Both families' formats by template, with the text that stands for an image.
FAMILIES = [(IDEFICS_FORMATS, IMAGE), (IDEFICS2_FORMATS, "<image>")]
LIVE = [IDEFICS_FORMATS["live"], IDEFICS2_FORMATS["live"]]
ALL = [form for formats, _ in FAMILIES for form in formats.values()]


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
    with pytest.raises(
        ConfigError,
        match="caption, classification, inference, inference-choice, multiple-choice, open-answer, style, vqa",
    ):
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
    with_image, plain = (Example(1, path, 1, "great fun", "good", ("good",)) for path in ("1.jpg", ""))
    prompt = form.prompt("classification", [with_image], plain)
    assert prompt.text == f"<s>{image}Input:great fun Label:good\nInput:great fun Label:"
    assert form.clean("classification", " good\nInput: dull Label: bad") == "good"


def test_text_format_has_no_captions() -> None:
    assert TEXT.prompt("classification", [], example("good", "")).text == "Input:good Label:"
    with pytest.raises(ConfigError, match="classification, multiple-choice, open-answer, vqa"):
        TEXT.prompt("caption", [], example("x"))


def test_braces_in_the_data_stay_as_they_are() -> None:
    braced = replace(
        example("x", image=""), question="{text}", text="{question}{}", style="{label}", fields={"hint": "{hint}"}
    )
    assert segments("{question}|{text}", braced) == ["{text}|{question}{}"]
    assert segments("{style}{hint}", braced) == ["{label}{hint}"]
    with pytest.raises(DataError, match=r"example 1 has no text 'other', but the prompt asks for \{other\}"):
        segments("{style}{other}", braced)


def test_images_stand_before_the_text_or_at_their_markers() -> None:
    pair = replace(
        example("x", image="1.jpg"), more_images=("2.jpg",), more_image_ids=(2,), question="a <image> b  <image>?"
    )
    assert segments("Q:{question}", pair, lambda text: plain_text(text, ("<image>",))) == [
        "", "", "Q:a < image> b < image>?",
    ]  # fmt: skip
    placed = replace(pair, images_in_text=True)
    assert segments("Q:{question} A:", placed, lambda text: plain_text(text, ("<image>",))) == ["Q:a ", " b ", "? A:"]
    with pytest.raises(DataError, match="has 2 images, but the text of its prompt has places for 1"):
        segments("{text}{question}", replace(placed, question="<image>", text=""))
    hidden = replace(placed, question="\x00<image> and <image>")
    assert segments("{question}", hidden) == ["", " and ", ""]


def test_choices_are_lines_with_letters() -> None:
    which = replace(example("x", image=""), question="which?", choices=("a  cat", "<image>", "</s>"))
    plain = partial(plain_text, reserved=("</s>", "<image>"))
    assert segments("{question}\n{choices}\nAnswer:", which, plain) == [
        "which?\nA. a cat\nB. < image>\nC. < /s>\nAnswer:"
    ]
    placed = replace(which, image="1.jpg", images_in_text=True)
    assert segments("{choices}", placed, plain) == ["A. a cat\nB. ", "\nC. < /s>"]
    two = replace(placed, question="<image> or?", more_images=("2.jpg",), more_image_ids=(2,))
    with pytest.raises(DataError, match="has 2 images, but the text of its prompt has places for 1") as caught:
        segments("{question}", two, plain)
    assert "--rank-by letter" in str(caught.value.hint)
    with pytest.raises(DataError, match="has 27 choices, but there are 26 letters"):
        segments("{choices}", replace(which, choices=tuple(map(str, range(27)))))


def test_a_prompt_with_several_images_per_example() -> None:
    pair = replace(example("two", image="1.jpg"), more_images=("2.jpg",), more_image_ids=(2,))
    query = replace(pair, image="3.jpg", more_images=("4.jpg",), question="<image> or <image>?", images_in_text=True)
    prompt = IDEFICS2_FORMATS["lever-lm"].prompt("vqa", [pair, example("none", image="")], query)
    assert prompt.images == ("1.jpg", "2.jpg", "3.jpg", "4.jpg")
    _, _, rest = prompt.text.partition("answer.\n")
    assert rest == (
        f"<image><image>Question:{pair.question} Short answer:two\nQuestion:{pair.question} Short answer:none\n"
        "Question:<image> or <image>? Short answer:"
    )


@pytest.mark.parametrize(("formats", "image"), FAMILIES)
@pytest.mark.parametrize("shots", [0, 1, 2])
def test_caption_prompts_of_both_templates(formats: dict[str, PromptFormat], image: str, shots: int) -> None:
    demonstrations = [example("a cat", image="1.jpg"), example("a dog.", image="2.jpg")][:shots]
    prompt = formats["live"].prompt("caption", demonstrations, example("a cow"))
    before = ["", f"{image}Caption:a cat\n\n", f"{image}Caption:a cat\n\n{image}Caption:a dog.\n\n"][shots]
    assert (prompt.text, prompt.target) == (f"<s>{before}{image}Caption:", "a cow</s>")
    assert prompt.images == (*("1.jpg", "2.jpg")[:shots], "x.jpg")
    usual = formats["lever-lm"].prompt("caption", demonstrations, example("a cow"))
    assert (usual.text, usual.target) == (prompt.text.replace("\n\n", "\n"), "a cow\n</s>")


@pytest.mark.parametrize(("formats", "image"), FAMILIES)
@pytest.mark.parametrize("shots", [0, 1, 2])
def test_vqa_prompts_of_both_templates(formats: dict[str, PromptFormat], image: str, shots: int) -> None:
    demonstrations = [example("red", "What colour?", "1.jpg"), example("2.5", "How long?", "2.jpg")][:shots]
    prompt = formats["live"].prompt("vqa", demonstrations, example("two", "How many?"))
    one = f"{image}Question:What colour? Short answer:red.\n\n"
    before = ["", one, f"{one}{image}Question:How long? Short answer:2.5.\n\n"][shots]
    assert prompt.text == f"<s>{LIVE_INSTRUCTION}{before}{image}Question:How many? Short answer:"
    assert (prompt.target, len(prompt.images)) == ("two.</s>", shots + 1)
    usual = formats["lever-lm"].prompt("vqa", demonstrations, example("two", "How many?"))
    instruction = "Instruction: provide an answer to the question. Use the image to answer.\n"
    usual_before = before.replace(".\n\n", "\n")
    assert usual.text == f"<s>{instruction}{usual_before}{image}Question:How many? Short answer:"
    assert usual.target == "two\n</s>"


@pytest.mark.parametrize("form", LIVE)
def test_live_classifies_as_every_template_does(form: PromptFormat) -> None:
    plain = Example(1, "", 1, "great fun", "good", ("good",))
    prompt = form.prompt("classification", [plain], plain)
    assert prompt.text == "<s>Input:great fun Label:good\n\nInput:great fun Label:"
    assert (prompt.target, form.clean("classification", "good\n\nInput: dull")) == ("good</s>", "good")


_HOSTILE = st.lists(
    st.sampled_from(
        ["<image>", "</s>", "<s>", "<fake_token_around_image>", "\n\n", ".", ", ", '"', "Que", "stion", "a"]
    )
    | st.text(max_size=4)
).map("".join)


@pytest.mark.parametrize("form", ALL)
@given(_HOSTILE)
def test_data_cannot_add_images_lines_or_ends_in_any_template(form: PromptFormat, text: str) -> None:
    """One prompt of plain data and one of hostile data have the same markers, line breaks and ends."""
    for task in ("caption", "vqa"):
        plain, hostile = example("a", "a"), example(text, text)
        safe, prompt = (form.prompt(task, [e, e], e) for e in (plain, hostile))
        for mark in ("<image>", "<fake_token_around_image>", "<s>", "</s>", "\n"):
            assert prompt.text.count(mark) == safe.text.count(mark)
            assert prompt.target.count(mark) == safe.target.count(mark)


@pytest.mark.parametrize(
    ("task", "raw", "answer"),
    [
        ("vqa", "red.", "red"),
        ("vqa", " red.\n\nQuestion:What", "red"),
        ("vqa", "2.5.\n\n", "2.5"),
        ("vqa", "2.5", "2.5"),
        ("vqa", "red .", "red"),
        ("vqa", "red...", "red"),
        ("vqa", "red, I think.", "red"),
        ("vqa", "a bag.\n\nCaption", "a bag. Caption"),
        ("vqa", '"red."', "red"),
        ("vqa", ".", ""),
        ("caption", "a dog.\n\nCaption:a cat", "a dog."),
        ("caption", "a dog, a cat", "a dog, a cat"),
    ],
)
@pytest.mark.parametrize("form", LIVE)
def test_answers_in_live_lose_the_full_stop_of_the_template(
    form: PromptFormat, task: str, raw: str, answer: str
) -> None:
    assert form.clean(task, raw) == answer
    assert form.clean(task, answer) == answer


@pytest.mark.parametrize("form", ALL)
@given(_HOSTILE)
def test_clean_answers_stay_as_they_are(form: PromptFormat, raw: str) -> None:
    for task in ("caption", "vqa", "classification"):
        once = form.clean(task, raw)
        assert form.clean(task, once) == once == once.strip()


@pytest.mark.parametrize("form", ALL)
@given(st.text("abc 0.5", min_size=1, max_size=12).map(lambda text: " ".join(text.split()).strip(". ")).filter(bool))
def test_an_answer_comes_back_from_its_demonstration_and_from_its_target(form: PromptFormat, label: str) -> None:
    """Prompt and clean fit together: what a model would write after a demonstration, or as it is trained to, is the label."""
    for task in ("caption", "vqa"):
        written, query = example(label, "What?", ""), example("x", "What?", "")
        text = form.prompt(task, [written], query).text
        opening = form.prompt(task, [], query).text
        assert form.clean(task, text.removeprefix(opening)) == label
        assert form.clean(task, form.prompt(task, [], written).target.removesuffix(form.end)) == label


def test_an_unknown_template_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="unknown prompt template 'flamingo'") as caught:
        IdeficsOptions(template="flamingo")
    assert caught.value.hint == "known: lever-lm, live"


def test_a_target_that_nothing_ends_is_refused() -> None:
    with pytest.raises(ValueError, match="needs an `end`"):
        replace(LIVE[0], end="")


def test_the_text_that_fingerprints_are_made_of_tells_later_fields_only_where_they_are_used() -> None:
    """Artefacts record fingerprints: those of the formats of before stay."""
    form = PromptFormat("", "", "\n", "", (), {"caption": TaskFormat("Caption:", ("Caption",))})
    task = "TaskFormat(query='Caption:', stop=('Caption',), instruction='', cut_at_comma=False"
    assert (
        repr(form)
        == f"PromptFormat(start='', image='', separator='\\n', end='', reserved=(), tasks={{'caption': {task})}})"
    )
    assert repr(TaskFormat("Caption:", ("Caption",), closing=".")) == f"{task}, closing='.')"
    assert repr(replace(form, end="x", separated_target=False)).endswith(", separated_target=False)")
    assert len({repr(form) for form in ALL}) == 4
    before = ["44ad8907ee7e", "82262076a935", "ebf495c45995", "27d3a167526a"]
    assert [template_hash(form) for form in ALL] == before, "though tasks were added"
    changed = replace(IDEFICS, tasks={**IDEFICS.tasks, "style": TaskFormat("{style}:", ())})
    assert repr(changed) != repr(IDEFICS)
    assert "TaskFormat(query='{style}:'" in repr(changed)


@pytest.mark.parametrize("form", ALL)
def test_prompts_of_styles_and_inferences(form: PromptFormat) -> None:
    marker, between = form.image, form.separator
    demonstrations = replace(example("so {sweet}", image="1.jpg"), style="Sweet {text}")
    query = replace(example("grim"), style="Cold\n<image>")
    assert form.prompt("style", [demonstrations], query).text == (
        f"<s>{marker}Caption in the style Sweet {{text}}:so {{sweet}}{between}{marker}Caption in the style Cold < image>:"
    )
    assert form.clean("style", " so sweet\nCaption in the style Cold: grim") == "so sweet"
    demonstrations, query = (
        example("it is cold", "snow", "1.jpg#xywh=1,2,3,4&show=crop"),
        example("rain", "an umbrella"),
    )
    for task in ("inference", "inference-choice"):
        prompt = form.prompt(task, [demonstrations], query)
        assert prompt.text == (f"<s>{marker}Clue:snow Inference:it is cold{between}{marker}Clue:an umbrella Inference:")
        assert prompt.images == ("1.jpg#xywh=1,2,3,4&show=crop", "x.jpg")
        assert form.clean(task, "it is, perhaps, cold\nClue:") == "it is, perhaps, cold"
