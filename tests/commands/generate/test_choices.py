"""A search for questions with choices: the anchor's answer is its text, or its letter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from icltool.commands.generate import run as generate
from icltool.commands.generate.options import GenerateConfig
from icltool.components.tasks import task_named
from icltool.contracts import Example, PreparedSplit
from icltool.execution.progress import for_terminal
from icltool.plugin.manager import component
from icltool.store.records import open_dataset, write_dataset
from icltool.store.sequences import SequenceFile
from icltool.testing import QuietProgress
from tests.components.models import tiny

WORDS = ("fine", "dull", "warm")


def question(number: int) -> Example:
    label, text = WORDS[number % 3], f"which, {number}?"
    return Example(number, "", number, text, label, (label,), question=text, choices=WORDS)


def test_the_answer_is_its_text_or_its_letter(tmp_path: Path) -> None:
    weights = tiny.gpt2(tmp_path / "gpt2")
    folder = tmp_path / "ws" / "datasets" / "words" / "multiple-choice"
    parts = {name: [question(start + n) for n in range(6)] for name, start in (("train", 0), ("validation", 6))}
    splits = [PreparedSplit(name, len(rows), iter(rows)) for name, rows in parts.items()]
    write_dataset(folder, "words", "multiple-choice", "multiple-choice", splits, {}, QuietProgress())

    def path(**options: Any) -> Path:
        small = {"anchors": 2, "candidates": 3, "beam_size": 2, "shots": 1, "device": "cpu"}
        config = GenerateConfig(
            workspace=tmp_path / "ws", model="text-llm", model_path=str(weights), **{**small, **options}
        )
        file = generate.run(config, for_terminal(quiet=True)).path
        assert file is not None
        return file

    by_text, by_letter = path(), path(rank_by="letter")
    assert path(rank_by="text") == by_text != by_letter
    model = component("models", "text-llm", path=str(weights), device="cpu")
    index = open_dataset(folder).split("train")
    task = task_named("multiple-choice")
    for file, form in ((by_text, task), (by_letter, task.ranked_by("letter"))):
        sequences = SequenceFile.open(file)
        base = sequences.arrays()["base_log_prob"]
        assert len(sequences.query_ids) == len(base) == 2
        for anchor, log_prob in zip(sequences.query_ids, base, strict=True):
            [score] = model.score([model.prompt(form, [], index[index.row_of(anchor)])], 1)
            assert log_prob == pytest.approx(score.log_prob, abs=1e-4)
