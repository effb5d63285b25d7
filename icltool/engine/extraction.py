"""What is taken from a model's continuation as the answer, for tasks with the key `extract`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeAlias

from icltool.contracts import Example, Task, choice_names
from icltool.contracts.task import Pattern

#: (text, choices, rule) -> the letter of the choice that the text names, or None.
ReadsLetter: TypeAlias = Callable[[str, Sequence[str], str], "str | None"]

#: A number with its sign (U+2212 as well), groups of thousands, decimals.
_NUMBER = re.compile(r"[-\u2212]?\d{1,3}(?:,\d{3})+(?:\.\d+)?|[-\u2212]?\d+(?:\.\d+)?|[-\u2212]?\.\d+")
_YES_NO = re.compile(r"\b(yes|no)\b", re.IGNORECASE)


def extracted(
    task: Task, query: Example, raw: str, clean: Callable[[str], str], letter: ReadsLetter | None = None
) -> str:
    """The answer in the continuation `raw`, which `clean` cuts where the next example would begin; "" if there is none.

    "first-line" is the first line with text, cleaned. All others look at the cleaned continuation: "number" is the first
    number, without groups of thousands and with an ASCII minus; "yes-no" the first of these words, in lower case; "letter" the
    name of the choice whose letter `letter` reads by the task's `letter_rule`; a pattern the group of its first match, cleaned.
    """
    if task.extract is None:
        return clean(raw)
    if task.extract == "first-line":
        return clean(next((line for line in raw.splitlines() if line.strip()), ""))
    answer = clean(raw)
    if isinstance(task.extract, Pattern):
        match = re.search(task.extract.regex, answer)
        return "" if match is None else clean(match[1] or "")
    if task.extract == "number":
        match = _NUMBER.search(answer)
        return "" if match is None else match[0].replace(",", "").replace("\u2212", "-")
    if task.extract == "yes-no":
        match = _YES_NO.search(answer)
        return "" if match is None else match[0].lower()
    if letter is None:
        raise ValueError("this session was opened without a reader of letters")
    names = choice_names(query)
    read = letter(answer, names, task.letter_rule)
    place = -1 if read is None else ord(read) - ord("A")
    return names[place] if 0 <= place < len(names) else ""
