"""Image-text matching: which questions are asked."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from icltool.components.learners.captioner.items import Items
from icltool.components.learners.captioner.matching import NO, OTHER_STYLE, YES, Matching
from icltool.contracts import Example
from icltool.errors import DataError
from icltool.testing.intervention_learners import InMemoryExamples
from tests.components.learners.captioner.model import TinyCaptioner
from tests.components.learners.captioner.sets import fine_tuned, fine_tuning_set


def questions(examples: list[Example], epochs: int = 120) -> list[tuple[Example, str, str]]:
    items = Items(InMemoryExamples(examples), "all", None, 0)
    matching = Matching(items, "{caption}|{style}", 7)
    owned = items.examples(range(len(items)))
    return [
        (example, *matching.question(position, example, epoch))
        for epoch in range(epochs)
        for position, example in enumerate(owned)
    ]


def test_half_match_a_quarter_has_another_caption_a_quarter_another_style(styled: list[Example]) -> None:
    texts = questions(styled)
    shares = {answer: count / len(texts) for answer, count in Counter(answer for *_, answer in texts).items()}
    assert shares == pytest.approx({YES: 0.5, NO: 0.25, OTHER_STYLE: 0.25}, abs=0.03)
    images = {text: example.image_id for example in styled for text in example.references}
    for example, text, answer in texts:
        caption, style = text.split("|")
        assert (style != example.style) == (answer == OTHER_STYLE)
        if answer == NO:
            assert (
                images[caption] != example.image_id
                or Counter(known for e in styled for known in e.references)[caption] > 1
            )
        else:
            assert caption == example.label


def test_without_styles_the_last_quarter_has_another_caption_too(examples: list[Example]) -> None:
    counts = Counter(answer for *_, answer in questions(examples))
    assert counts[NO] / (counts[YES] + counts[NO]) == pytest.approx(0.5, abs=0.03)
    assert OTHER_STYLE not in counts


def test_questions_depend_on_epoch_and_item_alone(styled: list[Example]) -> None:
    one = questions(styled, 3)
    assert one == questions(styled, 3)
    assert one[: len(one) // 3] != one[len(one) // 3 : 2 * len(one) // 3]


def test_the_published_question_is_asked_of_the_image(styled: list[Example], examples: list[Example]) -> None:
    items = Items(InMemoryExamples(styled), "first", None, 0)
    (example,) = items.examples([0])
    prompts = [Matching(items, None, 0).prompts(TinyCaptioner(), [0], [example], epoch)[0] for epoch in range(20)]
    assert {prompt.images for prompt in prompts} == {(example.image,)}
    assert {prompt.target for prompt in prompts} == {" yes</s>", " no</s>", " personality</s>"}
    question = f'<s> does the image describe " {example.label} " in personality {example.style}?'
    assert question in {prompt.text for prompt in prompts}
    plain = Items(InMemoryExamples(examples), "first", None, 0)
    assert Matching(plain, None, 0).question(0, plain.examples([0])[0], 3)[0].endswith('"?')


def test_one_image_alone_cannot_be_told_from_others(examples: list[Example]) -> None:
    alone = [replace(example, image_id=1) for example in examples]
    with pytest.raises(DataError, match="no caption of another image"):
        questions(alone, 3)


def test_it_is_trained_beside_the_captions(styled: list[Example], tmp_path: Path) -> None:
    outcome = fine_tuned(fine_tuning_set(styled), tmp_path, itm=True, itm_alpha=0.5, epochs=3)
    first, last = outcome.history[0], outcome.history[-1]
    assert last["train_itm"] < first["train_itm"]
    assert last["train_loss"] == pytest.approx(last["train_xe"] + 0.5 * last["train_itm"], rel=1e-6)
