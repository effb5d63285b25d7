"""The letter of a choice that an answer names, by the rules of published evaluations."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from string import ascii_uppercase
from typing import TypeAlias

from icltool.errors import ConfigError

#: (text, letters of the choices, texts of the choices) -> letter or None.
Rule: TypeAlias = Callable[[str, str, Sequence[str]], "str | None"]

_THE_ANSWER_IS = re.compile(r"The answer is ([A-Z]).")
#: The characters that MMMU's evaluation strips, one kind after the other.
_STRIPPED = (",", ".", "!", "?", ";", ":", "'")
_ALONE = re.compile(r"\(([A-Z])\)|([A-Z])[.):]?")
_NAMED = re.compile(r"answer(?: is|:)\s*(?:\(([A-Z])\)|([A-Z])(?:[.):](?!\w)|(?!\w)))", re.IGNORECASE)


def chosen_letter(text: str, choices: Sequence[str], rule: str = "strict") -> str | None:
    """The letter, A for the first of `choices`, that the answer `text` names by a rule of RULES; None if none can be read.

    A letter beyond the choices is never returned. Published code draws a choice at random where this is None. Raises
    ConfigError for an unknown rule.
    """
    if rule not in RULES:
        raise ConfigError(f"there is no rule {rule!r} for reading a letter", f"rules: {', '.join(RULES)}")
    letters = ascii_uppercase[: len(choices)]
    letter = RULES[rule](text, letters, choices)
    return letter if letter is not None and letter in list(letters) else None


def _strict(text: str, letters: str, choices: Sequence[str]) -> str | None:
    """The whole text is "A", "(A)", "A.", "A)" or "A:"; else one of these follows "answer is" or "answer:"; else the text
    equals one choice, but for case, blanks and a final full stop."""
    text = text.strip()
    if match := _ALONE.fullmatch(text):
        return match[1] or match[2]
    named = [(match[1] or match[2]) for match in _NAMED.finditer(text)]
    named = [letter for letter in named if letter in letters]
    if named:
        return named[0] if len(set(named)) == 1 else None
    equal = [letter for letter, choice in zip(letters, choices, strict=False) if _plain(choice) == _plain(text)]
    return equal[0] if equal else None


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold().removesuffix(".").rstrip()


def _scienceqa(text: str, letters: str, choices: Sequence[str]) -> str | None:
    """The only letter after "The answer is ", with any character behind it."""
    return _the_answer_is(text.strip())


def _the_answer_is(text: str) -> str | None:
    places = _THE_ANSWER_IS.findall(text)
    return places[0] if len(places) == 1 else None


def _llava_scienceqa(text: str, letters: str, choices: Sequence[str]) -> str | None:
    """The text is one of A to E, or begins with one, a full stop and a blank; else as "scienceqa", the text not stripped."""
    if text in tuple("ABCDE"):
        return text
    if len(text) >= 3 and text[0] in "ABCDE" and text[1:3] == ". ":
        return text[0]
    return _the_answer_is(text)


def _lmms_scienceqa(text: str, letters: str, choices: Sequence[str]) -> str | None:
    """One letter in either case, or a capital letter with a full stop behind it at the beginning."""
    text = text.strip()
    if len(text) == 1:
        return text.upper()
    return text[0] if len(text) > 1 and text[0].isupper() and text[1] == "." else None


def _lmms_seed(text: str, letters: str, choices: Sequence[str]) -> str | None:
    """The first character, in either case."""
    return text.strip()[:1].upper() or None


def _mmmu(text: str, letters: str, choices: Sequence[str]) -> str | None:
    """Letters in round brackets; else letters between blanks; else, in more than five words, the texts of choices. Of several
    the one that occurs last."""
    text = _padded(text)
    for form in ("({})", " {} "):
        places = {letter: text.rfind(form.format(letter)) for letter in letters}
        if candidates := [letter for letter in letters if places[letter] >= 0]:
            return max(candidates, key=lambda letter: places[letter])
    return _mentioned(text, letters, choices)


def _lmms_mmmu(text: str, letters: str, choices: Sequence[str]) -> str | None:
    """As "mmmu", but a letter followed by a blank, whatever stands before it, or else by a full stop."""
    text = _padded(text)
    for form in ("({})", "{} ", "{}."):
        if candidates := [letter for letter in letters if form.format(letter) in text]:
            between = "({})" if form == "({})" else " {} "
            return max(candidates, key=lambda letter: text.rfind(between.format(letter)))
    return _mentioned(text, letters, choices)


def _padded(text: str) -> str:
    for character in _STRIPPED:
        text = text.strip(character)
    return f" {text} "


def _mentioned(text: str, letters: str, choices: Sequence[str]) -> str | None:
    """The choice whose text occurs last in a text of more than five words, without regard to case."""
    if len(text.split()) <= 5:
        return None
    places = {letter: text.lower().rfind(choice.lower()) for letter, choice in zip(letters, choices, strict=False)}
    candidates = [letter for letter in letters if places[letter] >= 0]
    return max(candidates, key=lambda letter: places[letter]) if candidates else None


#: By name. All but "strict" are those of published evaluations.
RULES: Mapping[str, Rule] = {
    "strict": _strict,
    "scienceqa": _scienceqa,
    "llava-scienceqa": _llava_scienceqa,
    "lmms-scienceqa": _lmms_scienceqa,
    "lmms-seed": _lmms_seed,
    "mmmu": _mmmu,
    "lmms-mmmu": _lmms_mmmu,
}
