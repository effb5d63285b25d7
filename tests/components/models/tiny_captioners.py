"""Tiny random captioners of real architectures: BLIP-2, InstructBLIP and BLIP, saved as they are published."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from tests.components.models.tiny import LLAMA, ids_of, save

CORPUS = (
    "a photo of a red bar a green block a blue frame a yellow bar a picture of",
    "Question: what is it Short answer: red bar Question: what is it Short answer: blue frame",
    "clue: what is it inference: red bar. what does the image describe? reply in personality Happy.",
)
VISION = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
          "image_size": 28, "patch_size": 7, "initializer_range": 0.3}  # fmt: skip
QFORMER = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
           "cross_attention_frequency": 1, "encoder_hidden_size": 32, "initializer_range": 0.3, "vocab_size": 400}  # fmt: skip
QUERIES = 3
OPT = {"hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "word_embed_proj_dim": 32,
       "max_position_embeddings": 256, "init_std": 0.3}  # fmt: skip
T5 = {"d_model": 32, "d_ff": 48, "num_layers": 2, "num_heads": 4, "d_kv": 8, "feed_forward_proj": "gated-gelu",
      "tie_word_embeddings": False, "initializer_factor": 1.0, "dropout_rate": 0.0}  # fmt: skip


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """As OPT's: byte-level BPE, `</s>` before each text."""
    backend = Tokenizer(models.BPE(unk_token=None))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<pad>", "</s>", "<image>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    backend.train_from_iterator(CORPUS, trainer)
    backend.post_processor = TemplateProcessing(single="</s> $A", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="</s>", eos_token="</s>", pad_token="<pad>", unk_token="</s>",
        extra_special_tokens=["<image>"], clean_up_tokenization_spaces=False,
    )  # fmt: skip


def _words(pattern: str) -> list[str]:
    """The words of the corpus in order. Vocabularies are made of them: what the trainers of pieces find is another one in
    every process."""
    return list(dict.fromkeys(re.findall(pattern, " ".join(CORPUS))))


def piece_tokenizer(start: str, scheme: str = "always") -> PreTrainedTokenizerFast:
    """As T5's (`</s>` behind each text, start "") or Vicuna's (`start` before it): pieces that begin with a blank."""
    specials = ["<pad>", "</s>", "<unk>", "<image>", *([start] if start else [])]
    letters = ["\u2581", *"abcdefghijklmnopqrstuvwxyz?.:HQS", *(["\n"] if start else [])]
    words = ["\u2581" + word for word in _words(r"\S+")]
    pieces = [(token, 0.0) for token in specials] + [(w, -2.0) for w in words] + [(c, -10.0) for c in letters]
    backend = Tokenizer(models.Unigram(list(dict(reversed(pieces)).items())[::-1], unk_id=2))
    backend.normalizer = normalizers.NFKC()
    split: list[Any] = [pre_tokenizers.Metaspace(prepend_scheme=scheme)]
    if not start:
        split.insert(0, pre_tokenizers.WhitespaceSplit())
    backend.pre_tokenizer = pre_tokenizers.Sequence(split)
    backend.decoder = decoders.Metaspace()
    backend.add_special_tokens(specials)
    single, token = (f"{start} $A", start) if start else ("$A </s>", "</s>")
    backend.post_processor = TemplateProcessing(single=single, special_tokens=[(token, backend.token_to_id(token))])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="</s>", pad_token="<pad>", unk_token="<unk>", bos_token=start or None,
        extra_special_tokens=["<image>"], clean_up_tokenization_spaces=False,
    )  # fmt: skip


def word_tokenizer() -> PreTrainedTokenizerFast:
    """As BERT's: word pieces in lower case between `[CLS]` and `[SEP]`."""
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = "abcdefghijklmnopqrstuvwxyz?.:"
    pieces = [*specials, *(w.lower() for w in _words(r"\w+")), *letters, *(f"##{letter}" for letter in letters)]
    backend = Tokenizer(models.WordPiece({p: i for i, p in enumerate(dict.fromkeys(pieces))}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", clean_up_tokenization_spaces=False,
    )  # fmt: skip


def _images(size: int) -> Any:
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    return BlipImageProcessorPil(size={"height": size, "width": size})


def _text(kind: str, tokenizer: Any) -> dict[str, Any]:
    pad, end = ids_of(tokenizer, "<pad>", "</s>")
    known = {"vocab_size": len(tokenizer) + 5, "pad_token_id": pad, "eos_token_id": end}
    if kind == "opt":
        return {**OPT, **known, "model_type": "opt", "bos_token_id": end}
    if kind == "t5":
        return {**T5, **known, "model_type": "t5", "decoder_start_token_id": pad}
    return {**LLAMA, **known, "model_type": "llama", "bos_token_id": ids_of(tokenizer, "<s>")[0]}


def _lively(model: Any) -> Any:
    """Query tokens begin as zeros and position embeddings near them: images would hardly count."""
    with torch.no_grad():
        torch.nn.init.normal_(model.query_tokens)
        torch.nn.init.normal_(model.vision_model.embeddings.position_embedding)
        torch.nn.init.normal_(model.vision_model.embeddings.patch_embedding.weight, std=0.3)
        torch.nn.init.normal_(model.language_projection.weight, std=0.5)
        if model.config.text_config.is_encoder_decoder:
            torch.nn.init.normal_(model.language_model.lm_head.weight, std=0.3)
        for part in (model.qformer, model.vision_model):
            for module in part.modules():
                if isinstance(module, torch.nn.Linear):
                    torch.nn.init.normal_(module.weight, std=0.3)
    return model


def _blip2(folder: Path, kind: str, size: int = 28, width: int = 32) -> str:
    from transformers import Blip2Config, Blip2ForConditionalGeneration, Blip2Processor

    torch.manual_seed(0)
    tokenizer = byte_tokenizer() if kind == "opt" else piece_tokenizer("")
    config = Blip2Config(
        text_config=_text(kind, tokenizer),
        vision_config={**VISION, "image_size": size, "hidden_size": width},
        qformer_config={**QFORMER, "encoder_hidden_size": width},
        num_query_tokens=QUERIES, image_token_index=ids_of(tokenizer, "<image>")[0],
    )  # fmt: skip
    model = _lively(Blip2ForConditionalGeneration(config))
    return save(folder, model, Blip2Processor(_images(size), tokenizer, num_query_tokens=QUERIES))


def blip2_opt(folder: Path) -> str:
    return _blip2(folder, "opt")


def blip2_opt_wider(folder: Path) -> str:
    return _blip2(folder, "opt", width=48)


def blip2_t5(folder: Path) -> str:
    return _blip2(folder, "t5")


def _instructblip(folder: Path, kind: str) -> str:
    from transformers import InstructBlipConfig, InstructBlipForConditionalGeneration, InstructBlipProcessor

    torch.manual_seed(0)
    tokenizer = piece_tokenizer("<s>" if kind == "llama" else "")
    config = InstructBlipConfig(
        text_config=_text(kind, tokenizer), vision_config=VISION, qformer_config=QFORMER,
        num_query_tokens=QUERIES, image_token_index=ids_of(tokenizer, "<image>")[0],
    )  # fmt: skip
    model = _lively(InstructBlipForConditionalGeneration(config))
    processor = InstructBlipProcessor(_images(28), tokenizer, word_tokenizer(), num_query_tokens=QUERIES)
    return save(folder, model, processor)


def instructblip_llama(folder: Path) -> str:
    return _instructblip(folder, "llama")


def instructblip_t5(folder: Path) -> str:
    return _instructblip(folder, "t5")


def blip(folder: Path) -> str:
    from transformers import BlipConfig, BlipForConditionalGeneration, BlipProcessor

    torch.manual_seed(0)
    tokenizer = word_tokenizer()
    words = len(tokenizer)  # the two start tokens behind them are not among the tokenizer's files
    text = {"vocab_size": words + 2, "hidden_size": 32, "encoder_hidden_size": 32, "intermediate_size": 48,
            "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 128, "bos_token_id": words,
            "sep_token_id": 3, "eos_token_id": 3, "pad_token_id": 0, "initializer_range": 0.3, "is_decoder": True,
            "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}  # fmt: skip
    config = BlipConfig(text_config=text, vision_config={**VISION, "hidden_size": 32})
    model = BlipForConditionalGeneration(config)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.Linear):
                torch.nn.init.normal_(module.weight, std=0.3)
    return save(folder, model, BlipProcessor(_images(28), tokenizer))
