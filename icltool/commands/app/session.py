"""What the page of `icltool app` does when a button is pressed, without the page."""

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
from icltool.contracts import Example, keyed_generator
from icltool.errors import ConfigError, DataError

if TYPE_CHECKING:
    from icltool.store.records import PreparedDataset, Records

#: What the tasks ask beside the image, as the page calls it.


@dataclass(frozen=True)
class Answer:
    """What the model wrote, after which prompt, and what people wrote (empty where nobody did)."""

    answer: str
    raw: str
    prompt: str
    references: tuple[str, ...]
    demonstrations: tuple[Example, ...]


class AppSession:
    """Examples to ask about, demonstrations for them, and answers. One answer is made at a time.

    `dataset` None leaves images of the user's own; `styles` empty lets every style pass.
    """

    def __init__(self, asker: AnswerSession, dataset: PreparedDataset | None, styles: Sequence[str]) -> None:
        self._asker, self.dataset, self.styles = asker, dataset, tuple(styles)
        self.task = asker.task
        self._lock = threading.Lock()

    @property
    def examples(self) -> int:
        """How many evaluation examples there are to choose from."""
        return 0 if self.dataset is None else len(self.dataset.split("validation"))

    def example(self, row: int) -> Example:
        """The evaluation example in this row. DataError where there is none."""
        if self.dataset is None or not 0 <= row < self.examples:
            raise DataError(f"there is no example {row}", f"rows go from 0 to {self.examples - 1}")
        return self.dataset.split("validation")[row]

    def some_rows(self, count: int, turn: int) -> list[int]:
        """Rows of `count` evaluation examples, other ones in each turn."""
        order = keyed_generator(turn, "app.examples").permutation(self.examples)
        return [int(row) for row in order[:count]]

    def own(self, file: str, question: str, style: str) -> Example:
        """An image of the user's own as an example. DataError where it is no image."""
        try:
            check_image(file)
        except DataError as error:
            raise DataError(error.message.replace(file, Path(file).name), "choose another image") from error
        return Example(0, file, -1, question, "", (), question=question, style=style)

    def about(self, example: Example, question: str, style: str) -> Example:
        """The example with what the page says in place of its own question and style. What people wrote is kept only where
        they answered the same."""
        same = (question, style) == (example.question, example.style)
        kept = example if same else replace(example, references=(), label="")
        return replace(kept, question=question, style=style)

    def found(self, words: str, count: int) -> list[Example]:
        """The first `count` index examples that hold all these words in text, label, question or style."""
        if self.dataset is None:
            return []
        wanted, index = words.casefold().split(), self.dataset.split("train")
        found: list[Example] = []
        for example in index:
            text = f"{example.text} {example.label} {example.question} {example.style}".casefold()
            if all(word in text for word in wanted):
                found.append(example)
                if len(found) == count:
                    break
        return found

    def drawn(self, query: Example, shots: int, seed: int) -> tuple[Example, ...]:
        """Demonstrations at random, none of the query's own image."""
        if not shots:
            return ()
        prepared = query.image_id != -1
        return RandomDemonstrations(self._index(), shots, seed, prepared, frozenset({"image"}))(query)

    def chosen(self, ids: Sequence[int]) -> tuple[Example, ...]:
        """The index examples with these ids, in this order."""
        index = self._index() if ids else None
        return () if index is None else tuple(index.rows([index.row_of(i) for i in ids]))

    def ask(self, query: Example, demonstrations: Sequence[Example]) -> Answer:
        """The model's answer. Raises DataError for an unknown style, a missing question or an image that cannot be read,
        ConfigError for what the model cannot be asked."""
        if "style" in self.task.fields:
            if not query.style.strip():
                raise DataError("no style is chosen", f"known: {', '.join(self.styles[:12])}" if self.styles else None)
            if self.styles:
                check_style(query.style, self.styles)
        if "question" in self.task.fields and not query.question.strip():
            raise DataError(f"there is no {self.task.called('question')}", "type one")
        with self._lock:
            [(prompt, raw, answer)] = self._asker.answers([(query, demonstrations)])
        return Answer(answer, raw, prompt.text, query.references, tuple(demonstrations))

    def _index(self) -> Records:
        if self.dataset is None:
            raise ConfigError("demonstrations come from a prepared data set, and there is none", "icltool prepare NAME")
        return self.dataset.split("train")
