"""A tokenizer that follows its tokenizer.json: transformers 5 rebuilds those of some families, and not all as trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import Tokenizer

from icltool.components.models.shared.weights import cached_file
from icltool.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FILE = "tokenizer.json"
#: Texts to compare tokenizers on: the words of prompts after line breaks, special tokens and blanks; digits; other scripts.
PROBES = (
    "Question:what is it Short answer:2 red cats\nQuestion : who?",
    "\n\nCaption:a well-worn umbrella,  isn't it?",
    "Größe 東京 😀",
)


def as_in_file(tokenizer: PreTrainedTokenizerBase, source: str, name: str) -> None:
    """Gives `tokenizer`, loaded from `source` (a folder or a hub id), the rules of its tokenizer.json if they differ.

    Does nothing if there is no such file. Raises ConfigError if the two still disagree afterwards.
    """
    file = _file(source)
    if file is None or not getattr(tokenizer, "is_fast", False):
        return
    try:
        in_file = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises nothing narrower
        raise ConfigError(f"{file} cannot be read: {' '.join(str(error).split())}", "download it again") from error
    probes = [*PROBES, *_around_specials(tokenizer, in_file)]
    if _same(tokenizer, in_file, probes):
        return
    vocabulary = in_file.get_vocab()
    if all(vocabulary.get(token) == number for token, number in tokenizer.get_added_vocab().items()):
        for part in ("model", "normalizer", "pre_tokenizer", "decoder"):
            setattr(tokenizer.backend_tokenizer, part, getattr(in_file, part))
    if not _same(tokenizer, in_file, probes):
        raise ConfigError(
            f"the tokenizer of {name} disagrees with its {FILE}: transformers does not build it as it was trained",
            'for a Llama tokenizer add "legacy": true to tokenizer_config.json; else use another release of transformers',
        )


def _around_specials(tokenizer: PreTrainedTokenizerBase, in_file: Tokenizer) -> list[str]:
    """Words after each special token that both have, as after images and turns in prompts."""
    known = in_file.get_vocab()
    special = [str(token.content) for token in tokenizer.added_tokens_decoder.values() if token.special]
    return [f"{token}Question:what {token}\nCaption:a cat" for token in special[:8] if token in known]


def _same(tokenizer: PreTrainedTokenizerBase, in_file: Tokenizer, probes: list[str]) -> bool:
    encoded = tokenizer(probes, add_special_tokens=False)["input_ids"]
    return all(
        ids == in_file.encode(probe, add_special_tokens=False).ids for ids, probe in zip(encoded, probes, strict=True)
    )


def _file(source: str) -> Path | None:
    if Path(source).is_dir():
        file = Path(source) / FILE
        return file if file.is_file() else None
    return cached_file(source, FILE)
