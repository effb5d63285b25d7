"""A tokenizer as its own file says: transformers 5 builds some families' anew, and not all come out as they were trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import Tokenizer

from icltool.components.models.shared.weights import cached_file
from icltool.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FILE = "tokenizer.json"
#: What tokenizers are compared on: the words of prompts behind line breaks, special tokens and blanks, digits, other scripts.
PROBES = (
    "Question:what is it Short answer:2 red cats\nQuestion : who?",
    "\n\nCaption:a well-worn umbrella,  isn't it?",
    "Größe 東京 😀",
)


def as_in_file(tokenizer: PreTrainedTokenizerBase, source: str, name: str) -> None:
    """Gives `tokenizer`, loaded from `source` (a folder or a hub id), the rules of its tokenizer.json where it has others.

    Where there is no such file nothing is done. Raises ConfigError where its tokens cannot be made those of the file.
    """
    file = _file(source)
    if file is None or not getattr(tokenizer, "is_fast", False):
        return
    try:
        written = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises nothing narrower
        raise ConfigError(f"{file} cannot be read: {' '.join(str(error).split())}", "restore it") from error
    probes = [*PROBES, *_around_specials(tokenizer, written)]
    if _same(tokenizer, written, probes):
        return
    vocabulary = written.get_vocab()
    if all(vocabulary.get(token) == number for token, number in tokenizer.get_added_vocab().items()):
        for part in ("model", "normalizer", "pre_tokenizer", "decoder"):
            setattr(tokenizer.backend_tokenizer, part, getattr(written, part))
    if not _same(tokenizer, written, probes):
        raise ConfigError(
            f"the tokenizer of {name} is not that of its {FILE}: transformers builds it otherwise than it was trained",
            'add "legacy": true to its tokenizer_config.json where it is a Llama tokenizer, or use another release',
        )


def _around_specials(tokenizer: PreTrainedTokenizerBase, written: Tokenizer) -> list[str]:
    """Words behind each of the special tokens that both have, as images and turns stand in prompts."""
    known = written.get_vocab()
    special = [str(token.content) for token in tokenizer.added_tokens_decoder.values() if token.special]
    return [f"{token}Question:what {token}\nCaption:a cat" for token in special[:8] if token in known]


def _same(tokenizer: PreTrainedTokenizerBase, written: Tokenizer, probes: list[str]) -> bool:
    found = tokenizer(probes, add_special_tokens=False)["input_ids"]
    return all(
        ids == written.encode(probe, add_special_tokens=False).ids for ids, probe in zip(found, probes, strict=True)
    )


def _file(source: str) -> Path | None:
    if Path(source).is_dir():
        found = Path(source) / FILE
        return found if found.is_file() else None
    return cached_file(source, FILE)
