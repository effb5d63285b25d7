"""Tokenizers that are loaded otherwise than their file says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, trainers
from transformers import AutoTokenizer

from icltool.components.models.shared.tokenizer_file import FILE, PROBES, as_in_file
from icltool.errors import ConfigError

CORPUS = ["Question:what is it Short answer:2 red cats", "Caption:a well-worn umbrella, isn't it?"] * 8


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer made as Llama 2's is: a blank is put before every text that stands alone, and behind special tokens."""
    folder = tmp_path_factory.mktemp("llama")
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    specials = ["<unk>", "<s>", "</s>", *(f"<0x{number:02X}>" for number in range(256))]
    tokenizer.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=420, special_tokens=specials, show_progress=False)
    )
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = content["added_tokens"][:3]
    (folder / FILE).write_text(json.dumps(content))
    tokens: dict[str, Any] = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "add_bos_token": True}
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer", **tokens}))
    return folder


def test_it_is_given_the_rules_of_its_file(llama: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(str(llama))
    written = Tokenizer.from_file(str(llama / FILE))
    behind = "<s>Question : what"
    expected = written.encode(behind, add_special_tokens=False).ids
    assert tokenizer(behind, add_special_tokens=False)["input_ids"] != expected, (
        "this release builds it as its file says"
    )
    as_in_file(tokenizer, str(llama), "llama")
    for probe in (behind, *PROBES):
        actual = tokenizer(probe, add_special_tokens=False)["input_ids"]
        assert actual == written.encode(probe, add_special_tokens=False).ids
    assert tokenizer.decode(tokenizer("a red cat")["input_ids"], skip_special_tokens=True).strip() == "a red cat"


def test_one_that_is_as_in_its_file_is_left_alone(llama: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(str(llama))
    before = tokenizer(list(PROBES))["input_ids"]
    as_in_file(tokenizer, str(tmp_path), "without a file")
    as_in_file(tokenizer, "owner/name", "of the hub, not on this machine")
    assert tokenizer(list(PROBES))["input_ids"] == before
    as_in_file(tokenizer, str(llama), "llama")
    mended = tokenizer.backend_tokenizer.to_str()
    as_in_file(tokenizer, str(llama), "llama")
    assert tokenizer.backend_tokenizer.to_str() == mended


def test_one_whose_added_tokens_have_other_numbers_is_refused(llama: Path, tmp_path: Path) -> None:
    content = json.loads((llama / FILE).read_text())
    vocabulary = content["model"]["vocab"]
    last = max(vocabulary, key=lambda token: vocabulary[token])
    vocabulary["<s>"], vocabulary[last] = vocabulary[last], vocabulary["<s>"]
    content["added_tokens"][1]["id"] = vocabulary["<s>"]
    (tmp_path / FILE).write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"disagrees with its tokenizer\.json"):
        as_in_file(AutoTokenizer.from_pretrained(str(llama)), str(tmp_path), "llama")
    (tmp_path / FILE).write_text("{")
    with pytest.raises(ConfigError, match="cannot be read"):
        as_in_file(AutoTokenizer.from_pretrained(str(llama)), str(tmp_path), "llama")
