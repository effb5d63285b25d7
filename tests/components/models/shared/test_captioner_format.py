"""Prompts of captioners, and cleaned captions."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from icltool.components.models.shared.captioner_format import CaptionerFormat, clean_caption
from icltool.errors import ConfigError

FORMAT = CaptionerFormat("<image>", "</s>", "", " ", "\n", "\n", r"\n", ("<image>", "</s>"))


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("A man (left) rides; a horse!", "a man left rides a horse"),
        ('Two  "dogs": #1 *and*\n#2 ~', "two dogs 1 and 2"),
        ("it's well-known, really?", "it's well-known, really?"),
        (" ".join(["word"] * 60), " ".join(["word"] * 50)),
        ("...", ""),
    ],
)
def test_captions_are_cleaned(text: str, cleaned: str) -> None:
    assert clean_caption(text) == cleaned


@given(st.text())
def test_cleaning_twice_is_cleaning_once(text: str) -> None:
    once = clean_caption(text)
    assert clean_caption(once) == once
    assert FORMAT.clean("caption", FORMAT.clean("caption", text)) == FORMAT.clean("caption", text)


def test_instructions_are_found_in_what_follows_an_image() -> None:
    assert FORMAT.instruction("a photo of a red bar\n") == "a photo of"
    assert FORMAT.instruction("Question: is it? Short answer: yes Question:") == "Question: is it? Short answer:"
    assert FORMAT.instruction("clue: a.b (c) inference: rain\n") == "clue: a.b (c) inference:"
    assert FORMAT.instruction(" anything else ") == "anything else"


def test_unknown_tasks_are_named() -> None:
    with pytest.raises(ConfigError, match="no task 'classification'"):
        FORMAT.prompt("classification", [], None)  # type: ignore[arg-type]
