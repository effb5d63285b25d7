"""The texts of prompts, targets and answers."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st
from icltool_ofa.prompts import OFAFormat, clean_caption, clean_question
from icltool_ofa.settings import Settings, listed, settled
from tiny_model import STYLES

from icltool import ConfigError, DataError, Example, IclWarning

CAPTIONED = "<s> what does the image describe?</s>"


def example(**fields: Any) -> Example:
    own = {"id": 3, "image": "/p.png", "image_id": 3, "text": "", "label": "A dog's bone.", "references": ()}
    return Example(**{**own, **fields})


def test_the_questions_are_the_published_ones() -> None:
    form = OFAFormat(styles=STYLES)
    one = form.prompt("caption", [], example())
    assert (one.text, one.images, one.target) == (CAPTIONED, ("/p.png",), " a dogs bone</s>")
    question = form.prompt("vqa", [], example(question="What is well-known", label="3.5")).text
    assert question == "<s> what is well known?</s>"
    assert form.prompt("vqa", [], example(question="Is it?", label="3.5")).target == " 3.5</s>"
    assert (
        form.prompt("inference", [], example(question="a wet street")).text == "<s> clue: a wet street inference:</s>"
    )
    styled = form.prompt("style", [], example(style="Sour (Bitter)")).text
    assert styled == "<s> what does the image describe? reply in personality Sour (Bitter).</s>"
    assert OFAFormat(lower_case=False).prompt("caption", [], example()).target == " A dogs bone</s>"


def test_a_style_is_its_line_in_the_list() -> None:
    form = OFAFormat(styles=STYLES, tokenize_style=True, style_prompt=" in {}:")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert form.prompt("style", [], example(style="Wild")).text == "<s> in <code_2>:</s>"
    with pytest.warns(IclWarning, match="unknown style 'Mild'"):
        assert form.prompt("style", [], example(style="Mild")).text == "<s> in <code_3>:</s>"
    with pytest.raises(DataError, match="example 3 has no style"):
        form.prompt("style", [], example())


def test_the_question_of_matching_names_the_style_alike() -> None:
    question = ' does the image describe " a dog </s> in personality x? " in personality Sour (Bitter)?'
    named = OFAFormat(styles=STYLES).plain(question, "/p.png", " yes")
    assert named.text == f"<s>{question.replace('</s>', '< /s>')}</s>"
    assert named.target == " yes</s>"
    coded = OFAFormat(styles=STYLES, tokenize_style=True).plain(question, "/p.png", " yes")
    assert coded.text == named.text.replace("Sour (Bitter)", "<code_1>")


def test_demonstrations_are_text_and_show_no_image() -> None:
    demonstrations = [example(label="red bar", image="/a.png"), example(label="Blue frame!", image="/b.png")]
    prompt = OFAFormat().prompt("caption", demonstrations, example())
    question = " what does the image describe?"
    assert prompt.text == f"<s>{question} red bar.{question} blue frame.{question}</s>"
    assert prompt.images == ("/p.png",)


@pytest.mark.parametrize("token", ["<s>", "</s>", "<pad>", "<code_17>", "<bin_0>", "<mask>"])
def test_data_hold_no_special_token(token: str) -> None:
    form = OFAFormat()
    prompts = [
        form.prompt("vqa", [example(question=token, label=token)], example(question=f"a{token}b", label=token)),
        form.prompt("style", [], example(style=token)),
        form.plain(f"is it {token}", "/p.png", token),
    ]
    for prompt in prompts:
        text, target = prompt.text.removeprefix("<s>").removesuffix("</s>"), prompt.target.removesuffix("</s>")
        assert token not in text
        assert token not in target


@given(st.text())
def test_what_is_clean_stays(text: str) -> None:
    for task in ("caption", "vqa", "style"):
        once = OFAFormat().clean(task, text)
        assert OFAFormat().clean(task, once) == once == once.strip()
    assert clean_caption(clean_caption(text)) == clean_caption(text)
    assert clean_question(text).endswith("?")


def test_answers_end_where_the_next_question_begins() -> None:
    form = OFAFormat()
    assert form.clean("caption", ' "a dog" what does the image describe? a cat') == "a dog"
    assert form.clean("caption", " a dog. what") == "a dog"
    assert form.clean("vqa", " 3.5. what is it?") == "3.5"


def test_lists_of_styles(tmp_path: Path) -> None:
    file = tmp_path / "personalities.txt"
    file.write_text("\ufeffSweet\n Sour (Bitter) \n\nWild\n", encoding="utf-8")
    assert listed(file) == listed(str(file)) == listed(STYLES) == STYLES
    for content, message in (("", "has 0 styles"), ("a\nb\na\n", "has 'a' twice")):
        file.write_text(content)
        with pytest.raises(ConfigError, match=message):
            listed(file)
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        listed(tmp_path / "none")


def test_settings_of_the_user_come_over_those_of_the_weights() -> None:
    known = {**Settings(image_size=96, shorter=120, styles=STYLES).adapter(), "later": 1}
    assert settled(known, {}, 42) == Settings(image_size=96, shorter=120, styles=STYLES)
    assert settled(known, {"image_size": 192, "tokenize_style": True}, 42).shorter == 240
    assert settled({}, {"image_size": 224, "shorter": 300}, 42).shorter == 300
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"image_size": 700}, "16 to 672"),
        ({"image_size": 15}, "16 to 672"),
        ({"shorter": 100}, "leaves no square of 224"),
        ({"fit": "stretch"}, "centre, squeeze"),
        ({"style_prompt": " in style"}, "once"),
        ({"tokenize_style": True}, "styles=FILE"),
        ({"lower_case": "no"}, "neither true nor false"),
    ]
    for options, message in wrong:
        with pytest.raises(ConfigError) as error:
            settled({}, options, 42)
        assert message in f"{error.value.message}; {error.value.hint}"
