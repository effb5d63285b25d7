"""Which captions and images each batch has."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from icltool.components.learners.captioner.items import EpochOrder, Items, TrainingImages, loader
from icltool.contracts import Augmentation, Example
from icltool.errors import DataError
from icltool.testing.intervention_learners import InMemoryExamples
from tests.components.learners.captioner.model import Reader
from tests.components.learners.captioner.sets import fine_tuned, fine_tuning_set, several_captions

VARIED = Augmentation("resized", (0.5, 1.0), 256, flip=True)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 40), st.integers(1, 7), st.integers(1, 3), st.integers(0, 3), st.integers(0, 5))
def test_every_item_comes_once_an_epoch_and_processes_share_the_batches_of_one(
    count: int, size: int, world: int, epoch: int, start: int
) -> None:
    batches = []
    for rank in range(world):
        order = EpochOrder(count, size, seed=1, world=world, rank=rank)
        order.set_epoch(epoch)
        actual = list(order)
        assert len(actual) == len(order)
        resumed = EpochOrder(count, size, seed=1, world=world, rank=rank)
        resumed.begin_at(epoch, start)
        resumed.set_epoch(epoch)
        assert list(resumed) == actual[start:]
        resumed.set_epoch(epoch + 1)
        assert len(list(resumed)) == len(order)
        batches.append([positions[: order.own(i)] for i, (_, positions) in enumerate(actual)])
        assert {key for key, _ in actual} == {epoch}
        assert all(positions for _, positions in actual)
    one = EpochOrder(count, size * world, seed=1)
    one.set_epoch(epoch)
    shared = [sorted(p for own in parts for p in own) for parts in zip(*batches, strict=True)]
    assert shared == [sorted(positions) for _, positions in one]
    assert sorted(p for batch in shared for p in batch) == list(range(count))


def test_epochs_have_other_orders_and_seeds_too() -> None:
    def first(seed: int, epoch: int) -> Any:
        order = EpochOrder(30, 30, seed)
        order.set_epoch(epoch)
        return next(iter(order))[1]

    assert len({first(seed, epoch) for seed in (0, 1) for epoch in (0, 1)}) == 4


def test_all_captions_are_items_or_the_first_alone(examples: list[Example]) -> None:
    known = InMemoryExamples(examples)
    every, first = Items(known, "all", None, 0), Items(known, "first", None, 0)
    assert len(every) == sum(len(example.references) for example in examples)
    assert [e.label for e in first.examples(range(len(first)))] == [e.label for e in examples]
    pairs = [(e.id, e.label) for e in every.examples(range(len(every)))]
    assert pairs == [(e.id, text) for e in examples for text in e.references]
    few = Items(known, "all", 5, 0)
    assert len(few.rows) == 5
    assert set(few.ids) < {e.id for e in examples}
    assert Items(known, "all", 5, 0).ids == few.ids != Items(known, "all", 5, 1).ids
    with pytest.raises(DataError, match="no captions to learn from"):
        Items(InMemoryExamples([]), "all", None, 0)


@pytest.mark.parametrize(
    ("label", "question", "mirrored"),
    [
        ("a red bar", "", True),
        ("a bar on the Left", "", False),
        ("right-hand side", "", False),
        ("the leftmost bar", "", False),
        ("a copyright, leftovers", "", True),
        ("a bar", "a man turns right", False),
    ],
)
def test_no_image_is_mirrored_whose_text_speaks_of_a_side(label: str, question: str, mirrored: bool) -> None:
    example = Example(1, "/a.png", 1, label, label, (label,), question)
    assert Items(InMemoryExamples([example]), "all", None, 0).mirrored.tolist() == [mirrored]


def test_images_are_varied_by_what_they_are_not_by_when_they_are_read(examples: list[Example]) -> None:
    items = Items(InMemoryExamples(examples), "all", None, 0)
    images = TrainingImages(items, Reader(16, VARIED), seed=4)
    one = images[0, (3, 1, 7)]["pixels"]
    assert one.shape == (3, 3, 16, 16)
    assert one.dtype == torch.float32
    assert torch.equal(images[0, (1,)]["pixels"][0], one[1])
    assert not torch.equal(images[1, (1,)]["pixels"][0], one[1])
    same = items.place[0] == items.place[1]
    assert same  # two captions of one image: it is cut in two ways
    assert not torch.equal(*images[0, (0, 1)]["pixels"])
    assert not torch.equal(TrainingImages(items, Reader(16, VARIED), 5)[0, (1,)]["pixels"][0], one[1])


def test_workers_read_what_one_process_reads(examples: list[Example]) -> None:
    items = Items(InMemoryExamples(examples), "all", None, 0)
    images = pickle.loads(pickle.dumps(TrainingImages(items, Reader(16, VARIED), 4)))
    actual = [list(loader(images, EpochOrder(len(items), 4, 0), workers)) for workers in (0, 2)]
    assert [b["positions"] for b in actual[0]] == [b["positions"] for b in actual[1]]
    for one, other in zip(*actual, strict=True):
        assert torch.equal(one["pixels"], other["pixels"])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_image_that_cannot_be_read_is_one_clear_line(examples: list[Example], tmp_path: Path, workers: int) -> None:
    broken = [replace(examples[0], image="/no/such.png"), *examples[1:]]
    with pytest.raises(DataError, match=r"^image /no/such.png cannot be read \(restore it\)$"):
        fine_tuned(fine_tuning_set(broken), tmp_path, workers=workers)


def test_left_and_right_are_looked_for_in_each_caption(examples: list[Example]) -> None:
    captioned = [replace(e, references=("a bar", "a bar on the left")) for e in several_captions(examples[:2])]
    assert np.array_equal(Items(InMemoryExamples(captioned), "all", None, 0).mirrored, [True, False] * 2)
