"""OFA's tokenizer: the byte-pair pieces of GPT-2 and BART, 8192 image codes `<code_i>` and 1000 location bins `<bin_i>`."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from icltool.errors import DataError

CODES = 8192
"""How many `<code_i>` there are: the codebook of image generation, whose rows stand for styles as well."""

BINS = 1000
"""How many `<bin_i>` there are: the places of a coordinate."""

_SPECIAL = {"<s>": 0, "<pad>": 1, "</s>": 2}


def code_token(number: int) -> str:
    """The token of an image code, or of a style."""
    return f"<code_{number}>"


def bin_token(number: int) -> str:
    """The token of a location bin."""
    return f"<bin_{number}>"


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a folder with vocab.json and merges.txt (with added_tokens.json or without), or with tokenizer.json.

    Codes and bins that the files do not have follow the vocabulary, `<code_0>` at 50265 in the published one. They take
    the white space around them with them, so that `in <code_3>` has no piece for the space, as in training. A text is
    encoded as `<s>` text `</s>`; `add_special_tokens=False` leaves those out.

    Raises
    ------
    DataError
        A file is missing or malformed, or the vocabulary is not OFA's: other ids of `<s>`, `<pad>` and `</s>`, or codes and
        bins that are not one after the other.
    """
    folder = Path(folder)
    whole = folder / "tokenizer.json"
    try:
        pieces = Tokenizer.from_file(str(whole)) if whole.is_file() else _byte_pairs(folder)
    except FileNotFoundError as error:
        raise DataError(
            f"{folder} has no {Path(error.filename).name}",
            "a vocabulary is vocab.json and merges.txt, or tokenizer.json",
        ) from None
    except Exception as error:  # the tokenizers library raises no narrower class
        raise DataError(f"the vocabulary in {folder} cannot be read: {error}", "fetch its files again") from error
    _check_special(pieces, folder)
    pieces.add_tokens([_added(code_token(i)) for i in range(CODES)] + [_added(bin_token(i)) for i in range(BINS)])
    _check_added(pieces, folder)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=pieces,
        bos_token="<s>",
        cls_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        sep_token="</s>",
        unk_token="<unk>" if pieces.token_to_id("<unk>") is not None else None,
        mask_token=_mask() if pieces.token_to_id("<mask>") is not None else None,
        padding_side="right",
        truncation_side="right",
        clean_up_tokenization_spaces=False,
    )
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    return tokenizer


def _added(text: str) -> AddedToken:
    return AddedToken(text, lstrip=True, rstrip=True, normalized=False, special=False)


def _mask() -> AddedToken:
    return AddedToken("<mask>", lstrip=True, special=True)


def _byte_pairs(folder: Path) -> Tokenizer:
    vocabulary, merges = folder / "vocab.json", folder / "merges.txt"
    for path in (vocabulary, merges):
        if not path.is_file():
            raise FileNotFoundError(2, "no such file", str(path))
    unknown = "<unk>" if "<unk>" in json.loads(vocabulary.read_text(encoding="utf-8")) else None
    pieces = Tokenizer(models.BPE.from_file(str(vocabulary), str(merges), unk_token=unknown))
    pieces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pieces.decoder = decoders.ByteLevel()
    pieces.post_processor = processors.RobertaProcessing(
        ("</s>", _SPECIAL["</s>"]), ("<s>", _SPECIAL["<s>"]), trim_offsets=True, add_prefix_space=False
    )
    pieces.add_special_tokens(["<s>", "<pad>", "</s>"])
    extra = folder / "added_tokens.json"
    if extra.is_file():
        numbered = json.loads(extra.read_text(encoding="utf-8"))
        pieces.add_tokens([_added(text) for text in sorted(numbered, key=numbered.__getitem__)])
        for text, number in numbered.items():
            if pieces.token_to_id(text) != number:
                raise ValueError(f"added_tokens.json gives {text} the id {number}, which is not the next one")
    return pieces


def _check_special(pieces: Tokenizer, folder: Path) -> None:
    for text, number in _SPECIAL.items():
        if pieces.token_to_id(text) != number:
            raise DataError(
                f"{text} has the id {pieces.token_to_id(text)} in the vocabulary in {folder}, and OFA's has {number}",
                "use the vocabulary that came with the checkpoint",
            )


def _check_added(pieces: Tokenizer, folder: Path) -> None:
    for token, count in ((code_token, CODES), (bin_token, BINS)):
        first = pieces.token_to_id(token(0))
        wrong = next((i for i in range(count) if pieces.token_to_id(token(i)) != first + i), None)
        if wrong is not None:
            raise DataError(
                f"{token(wrong)} does not follow {token(wrong - 1)} in the vocabulary in {folder}",
                "use the vocabulary that came with the checkpoint",
            )
