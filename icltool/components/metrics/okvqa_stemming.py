"""The stemming that OK-VQA's annotations went through, word by word.

Marino et al.: OK-VQA (2019) publishes each answer as typed (`raw_answer`) and stemmed (`answer`). The rules that get from
one to the other are those of the published evaluations of OK-VQA: a table of exceptions, else words in -ing become the
verb's base form (WordNet), else plural nouns become singular.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

from icltool.components.metrics.okvqa_tables import EXCEPTIONS
from icltool.errors import ConfigError

EXTRA = "pip install 'icltool[okvqa]'"
WORDNET, TAGGER = "wordnet", "averaged_perceptron_tagger_eng"
DOWNLOAD = f"python -m nltk.downloader {WORDNET} {TAGGER}"
_PACKAGES = ("nltk", "inflection")
#: Penn Treebank tags of plural nouns and plural proper nouns.
_PLURAL = ("NNS", "NNPS")


class Stemmer:
    """Stems answers with NLTK's tokenizer, part-of-speech tagger and WordNet; each distinct answer once."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}
        self._tagger: Any = None

    def check(self) -> None:
        """Loads NLTK's data. Raises ConfigError that names every package or resource that is missing or cannot be read,
        and the commands that get them."""
        missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
        if missing:
            raise ConfigError(
                f"stemming OK-VQA's answers needs {_listed(missing, 'package')}",
                f"{EXTRA}, then `{DOWNLOAD}` for NLTK's data",
            )
        # All are tried, so that one message names all.
        faults = [f for f in (_fault(WORDNET, _load_wordnet), _fault(TAGGER, self._load_tagger)) if f]
        if faults:
            raise ConfigError(f"stemming OK-VQA's answers needs NLTK's data: {'; '.join(faults)}", f"`{DOWNLOAD}`")

    def stem(self, answer: str) -> str:
        """The answer's words, stemmed, with one blank between them; punctuation becomes words of its own. ConfigError
        as `check`."""
        if answer not in self._known:
            self._known[answer] = self._stem(answer)
        return self._known[answer]

    def _stem(self, answer: str) -> str:
        if self._tagger is None:
            self.check()
        from nltk.tokenize import word_tokenize

        # The published code splits the text into sentences first, which needs one resource more (punkt). For one sentence
        # the tokens are the same. Of several, only the last keeps its full stop apart here; but annotators' answers are
        # no sentences, so that such an answer matches none of them either way.
        tokens = word_tokenize(answer, preserve_line=True)
        return " ".join(_stemmed(word, tag) for word, tag in self._tagger.tag(tokens))

    def _load_tagger(self) -> None:
        if self._tagger is None:
            from nltk.tag.perceptron import PerceptronTagger

            self._tagger = PerceptronTagger()


def _stemmed(word: str, tag: str) -> str:
    # Words are looked up as they are written, capitals included, and what the tokenizer split ("boy", "'s") stays split:
    # the published code does so, and its figures are what ours stand beside.
    if word in EXCEPTIONS:
        return EXCEPTIONS[word]
    if word.endswith("ing"):
        from nltk.stem import WordNetLemmatizer

        return str(WordNetLemmatizer().lemmatize(word, "v"))
    if tag in _PLURAL:
        import inflection

        return str(inflection.singularize(word))
    return word


def _load_wordnet() -> None:
    from nltk.corpus import wordnet

    wordnet.ensure_loaded()


def _fault(resource: str, load: Callable[[], None]) -> str:
    """What keeps NLTK from loading a resource; "" for nothing."""
    try:
        load()
    except Exception as error:  # a damaged file fails in whatever NLTK does with it first
        if type(error) is LookupError:
            return f"{resource} is missing"
        reason = str(error).strip().splitlines()
        return f"{resource} cannot be read ({reason[0] if reason else type(error).__name__})"
    return ""


def _listed(names: list[str], noun: str) -> str:
    return f"the {noun} {names[0]}" if len(names) == 1 else f"the {noun}s {' and '.join(names)}"
