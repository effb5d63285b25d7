"""The tokenizer on a small byte-pair vocabulary in the published files' layout."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from icltool_ofa.tokenizer import BINS, CODES, bin_token, code_token, load_tokenizer
from tokenizers import ByteLevelBPETokenizer
from transformers import PreTrainedTokenizerFast

from icltool.errors import DataError

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
TEXTS = [
    "what does the image describe? reply in personality sweet.",
    "a dog runs over the grass, it's happy",
    "Zürich 1999",
]


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """vocab.json and merges.txt, `<mask>` the last as in BART's."""
    folder = tmp_path_factory.mktemp("vocabulary")
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator([f" {text}" for text in TEXTS] * 3, vocab_size=340, special_tokens=SPECIAL)
    trained.save_model(str(folder))
    vocabulary = json.loads((folder / "vocab.json").read_text())
    (folder / "vocab.json").write_text(json.dumps(vocabulary | {"<mask>": len(vocabulary)}))
    return folder


@pytest.fixture(scope="session")
def tokenizer(files: Path) -> PreTrainedTokenizerFast:
    return load_tokenizer(files)


def size(files: Path) -> int:
    return len(json.loads((files / "vocab.json").read_text()))


def test_ids_are_the_published_ones(tokenizer: PreTrainedTokenizerFast, files: Path) -> None:
    assert (tokenizer.bos_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    base = size(files)
    assert len(tokenizer) == base + CODES + BINS
    assert tokenizer.convert_tokens_to_ids([code_token(0), code_token(8191)]) == [base, base + 8191]
    assert tokenizer.convert_tokens_to_ids([bin_token(0), bin_token(999)]) == [base + 8192, base + 9191]
    # With the published vocabulary of 50265 that is 50265, and the rows of the embedding are all taken.
    assert 50265 + CODES + BINS == 59457


@pytest.mark.parametrize("text", [*TEXTS, "", " two  spaces ", "snow ☃"])
def test_a_text_comes_back(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    ids = tokenizer(text)["input_ids"]
    assert (ids[0], ids[-1]) == (0, 2)
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == ids[1:-1]


def test_codes_take_the_white_space_around_them(tokenizer: PreTrainedTokenizerFast) -> None:
    def ids(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    code = tokenizer.convert_tokens_to_ids(code_token(17))
    assert ids("reply in personality <code_17>.") == [*ids("reply in personality"), code, *ids(".")]
    assert ids(f"a {bin_token(3)} {bin_token(4)} dog") == [*ids("a"), *ids("<bin_3><bin_4>"), *ids("dog")]
    assert tokenizer.decode([code], skip_special_tokens=True) == code_token(17)


def test_offsets_point_into_the_text(tokenizer: PreTrainedTokenizerFast) -> None:
    text = "a dog in <code_5> runs"
    actual = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)
    pieces = [text[start:end].strip() for start, end in actual["offset_mapping"]]
    assert "".join(pieces) == text.replace(" ", "")


def test_batches_are_padded_on_the_right(tokenizer: PreTrainedTokenizerFast) -> None:
    batch = tokenizer(["a dog", "a dog runs over the grass"], padding=True, return_tensors="pt")
    assert set(batch) == {"input_ids", "attention_mask"}
    assert (batch["input_ids"][0, -1], batch["attention_mask"][0, -1]) == (1, 0)


def test_a_saved_tokenizer_is_the_same(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    again = load_tokenizer(tmp_path)
    text = "reply in personality <code_17>."
    assert again(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert len(again) == len(tokenizer)


def test_added_tokens_in_a_file_keep_their_ids(files: Path, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / name).write_bytes((files / name).read_bytes())
    base = size(files)
    added = {code_token(i): base + i for i in range(CODES)} | {bin_token(i): base + CODES + i for i in range(BINS)}
    (tmp_path / "added_tokens.json").write_text(json.dumps(added))
    actual = load_tokenizer(tmp_path)
    assert actual.get_vocab() == tokenizer.get_vocab()

    (tmp_path / "added_tokens.json").write_text(json.dumps({code_token(0): base + 5}))
    with pytest.raises(DataError, match="<code_0> the id"):
        load_tokenizer(tmp_path)


def test_codes_in_the_vocabulary_are_used(files: Path, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    (tmp_path / "merges.txt").write_bytes((files / "merges.txt").read_bytes())
    (tmp_path / "vocab.json").write_text(json.dumps(tokenizer.get_vocab()))
    actual = load_tokenizer(tmp_path)
    assert actual.get_vocab() == tokenizer.get_vocab()
    text = "reply in personality <code_17>."
    assert actual(text)["input_ids"] == tokenizer(text)["input_ids"]


def test_what_is_missing_or_another_s_is_told(files: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no vocab\.json"):
        load_tokenizer(tmp_path)
    (tmp_path / "vocab.json").write_bytes((files / "vocab.json").read_bytes())
    with pytest.raises(DataError, match=r"has no merges\.txt"):
        load_tokenizer(tmp_path)
    (tmp_path / "merges.txt").write_bytes((files / "merges.txt").read_bytes())
    vocabulary = json.loads((files / "vocab.json").read_text())
    vocabulary["<s>"], vocabulary["<pad>"] = 1, 0
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    with pytest.raises(DataError, match="<s> has the id 1"):
        load_tokenizer(tmp_path)
    (tmp_path / "vocab.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        load_tokenizer(tmp_path)
