"""The actions of the page of `icltool app`, without the page."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from icltool.commands.caption.answer_session import AnswerSession
from icltool.commands.caption.demonstrations import RandomDemonstrations
from icltool.commands.caption.entries import check_image
from icltool.commands.caption.styles import check_style
from icltool.contracts import Example, keyed_generator, shown
from icltool.errors import ConfigError, DataError

if TYPE_CHECKING:
    from icltool.store.records import PreparedDataset, Records


@dataclass(frozen=True)
class Answer:
    """The answer of the model, its prompt, and the references, if there are any."""

    answer: str
    raw: str
    prompt: str
    references: tuple[str, ...]
    demonstrations: tuple[Example, ...]


class AppSession:
    """Examples, demonstrations for them, and answers, one at a time.

    Without `dataset` there are only images of the user's own; without `styles` every style is accepted.
    """

    def __init__(self, answers: AnswerSession, dataset: PreparedDataset | None, styles: Sequence[str]) -> None:
        self._answers, self.dataset, self.styles = answers, dataset, tuple(styles)
        self.task = answers.task
        self._lock = threading.Lock()

    @property
    def examples(self) -> int:
        """The number of validation examples."""
        return 0 if self.dataset is None else len(self.dataset.split("validation"))

    def example(self, row: int) -> Example:
        """The validation example in this row. DataError for a row that does not exist."""
        if self.dataset is None or not 0 <= row < self.examples:
            raise DataError(f"there is no example {row}", f"rows go from 0 to {self.examples - 1}")
        return self.dataset.split("validation")[row]

    def some_rows(self, count: int, turn: int) -> list[int]:
        """Rows of `count` validation examples, different ones in each turn."""
        order = keyed_generator(turn, "app.examples").permutation(self.examples)
        return [int(row) for row in order[:count]]

    def own(self, file: str, question: str, style: str) -> Example:
        """An image of the user's own as an example. DataError if it is not an image."""
        try:
            check_image(file)
        except DataError as error:
            raise DataError(error.message.replace(file, Path(file).name), "choose another image") from error
        return Example(0, file, -1, question, "", (), question=question, style=style)

    def about(self, example: Example, question: str, style: str) -> Example:
        """The example with question and style from the page. It keeps its references if both are unchanged."""
        same = (question, style) == (example.question, example.style)
        unlabelled = example if same else replace(example, references=(), label="")
        return replace(unlabelled, question=question, style=style)

    def search(self, words: str, count: int) -> list[Example]:
        """The first `count` index examples that have all these words in text, label, question or style."""
        if self.dataset is None:
            return []
        terms, matches = words.casefold().split(), list[Example]()
        for example in self.dataset.split("train"):
            text = f"{example.text} {example.label} {example.question} {example.style}".casefold()
            if all(term in text for term in terms):
                matches.append(example)
                if len(matches) == count:
                    break
        return matches

    def drawn(self, query: Example, shots: int, seed: int) -> tuple[Example, ...]:
        """Random demonstrations, none of them with the query's image."""
        if not shots:
            return ()
        prepared = query.image_id != -1
        return RandomDemonstrations(self._index(), shots, seed, prepared, frozenset({"image"}))(query)

    def chosen(self, ids: Sequence[int]) -> tuple[Example, ...]:
        """The index examples with these ids, in this order."""
        index = self._index() if ids else None
        return () if index is None else tuple(index.rows([index.row_of(i) for i in ids]))

    def ask(self, query: Example, demonstrations: Sequence[Example]) -> Answer:
        """The model's answer. Raises DataError for an unknown style, a missing question, an image that cannot be read or a
        demonstration without a label for the query's rule, ConfigError for a prompt that the model does not accept."""
        if "style" in self.task.fields:
            if not query.style.strip():
                raise DataError("choose a style", f"known: {', '.join(self.styles[:12])}" if self.styles else None)
            if self.styles:
                check_style(query.style, self.styles)
        if "question" in self.task.fields and not query.question.strip():
            raise DataError(f"enter a {self.task.called('question')}")
        with self._lock:
            demonstrations = shown(demonstrations, query)
            [(prompt, raw, answer)] = self._answers.answers([(query, demonstrations)])
        return Answer(answer, raw, prompt.text, query.references, tuple(demonstrations))

    def _index(self) -> Records:
        if self.dataset is None:
            raise ConfigError("demonstrations need a prepared data set", "run `icltool prepare NAME`")
        return self.dataset.split("train")
