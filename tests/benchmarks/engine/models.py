"""IDEFICS models with random weights, at sizes from a test's to idefics-9b's, behind icltool's own adapter."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from transformers import IdeficsConfig, IdeficsForVisionText2Text, PreTrainedTokenizerFast

from icltool.components.models.idefics.idefics import IdeficsModel
from icltool.components.models.idefics.idefics_prefix_cache import ready_features
from icltool.components.models.idefics.options import IdeficsOptions
from icltool.components.models.shared.loading import Loaded
from icltool.components.models.shared.options import DTYPES
from tests.benchmarks.engine.data import LEXICON, WHOLE, lexicon

FAKE, IMAGE = "<fake_token_around_image>", "<image>"
_COMMON: dict[str, Any] = {
    "additional_vocab_size": 2, "alpha_initializer": "ones", "qk_layer_norms": True, "use_resampler": True,
    "freeze_text_layers": False, "freeze_vision_layers": False, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
#: tiny: for tests. 60m: what a CPU scores in minutes. idefics-9b: the dimensions of HuggingFaceM4/idefics-9b; its gates
#: (alpha) are open here, as they are after training.
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {
        "vocab_size": 4000, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4,
        "num_attention_heads": 4, "cross_layer_interval": 2, "max_position_embeddings": 512,
        "vision_config": {"embed_dim": 48, "image_size": 56, "patch_size": 14, "num_hidden_layers": 2,
                          "num_attention_heads": 4, "intermediate_size": 96},
        "perceiver_config": {"use_resampler": True, "resampler_n_latents": 6, "resampler_depth": 2,
                             "resampler_n_heads": 2, "resampler_head_dim": 16, "qk_layer_norms_perceiver": True},
    },
    "60m": {
        "vocab_size": 12000, "hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 8,
        "num_attention_heads": 8, "cross_layer_interval": 4,
        "vision_config": {"embed_dim": 384, "image_size": 224, "patch_size": 16, "num_hidden_layers": 6,
                          "num_attention_heads": 6, "intermediate_size": 1536},
        "perceiver_config": {"use_resampler": True, "resampler_n_latents": 64, "resampler_depth": 2,
                             "resampler_n_heads": 8, "resampler_head_dim": 48, "qk_layer_norms_perceiver": True},
    },
    "idefics-9b": {
        "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
        "num_attention_heads": 32, "cross_layer_interval": 4,
        "vision_config": {"embed_dim": 1280, "image_size": 224, "patch_size": 14, "num_hidden_layers": 32,
                          "num_attention_heads": 16, "intermediate_size": 5120},
        "perceiver_config": {"use_resampler": True, "resampler_n_latents": 64, "resampler_depth": 6,
                             "resampler_n_heads": 16, "resampler_head_dim": 96, "qk_layer_norms_perceiver": True},
    },
}  # fmt: skip
#: Sizes whose weights are made on the device, because writing and reading them would take longer than the benchmark.
IN_MEMORY = frozenset({"idefics-9b"})


def adapter(size: str, folder: Path, device: torch.device, dtype: str, in_memory: bool | None = None) -> IdeficsModel:
    """The adapter of a model of this size, made in `folder` as published models are laid out.

    With `in_memory` (default: for the sizes of IN_MEMORY) weights go straight to the device and only configuration,
    tokenizer and image processor are written; else they are written and loaded as any user's are.
    """
    from transformers.models.idefics.image_processing_pil_idefics import IdeficsImageProcessorPil

    words = tokenizer(SIZES[size]["vocab_size"])
    words.save_pretrained(folder)
    IdeficsImageProcessorPil(image_size=SIZES[size]["vision_config"]["image_size"]).save_pretrained(folder)
    if not (size in IN_MEMORY if in_memory is None else in_memory):
        build(size, words, torch.device("cpu"), torch.float32).save_pretrained(folder)
        return IdeficsModel(IdeficsOptions(name=size, path=str(folder), device=str(device), dtype=dtype))
    model = build(size, words, device, DTYPES[dtype]).eval().requires_grad_(False)
    model.config.save_pretrained(folder)
    with mock.patch("icltool.components.models.shared.adapter.load_model", return_value=Loaded(model, device, dtype)):
        return IdeficsModel(IdeficsOptions(name=size, path=str(folder)))


def configuration(size: str) -> IdeficsConfig:
    shape = SIZES[size]
    config = IdeficsConfig(**{**_COMMON, **shape, "initializer_range": shape["hidden_size"] ** -0.5})
    config.vision_config.initializer_range = shape["vision_config"]["embed_dim"] ** -0.5
    return config


def build(size: str, words: PreTrainedTokenizerFast, device: torch.device, dtype: torch.dtype) -> Any:
    """A fresh model on `device`, drawn from a fixed seed.

    Weights have a standard deviation of 1/sqrt(width), so that every layer changes its input about as much as it passes
    on, and the output matrix is shifted so that words come out as likely as the captions have them: else the probability
    of a caption would be some 1e-5, and differences between candidates would drown in the tolerance for ties.
    """
    torch.manual_seed(0)
    config = configuration(size)
    with device:
        model: Any = IdeficsForVisionText2Text._from_config(config, dtype=dtype)
    with torch.no_grad():
        for table in (model.model.embed_tokens.weight, model.model.embed_tokens.additional_embedding.weight):
            table.normal_(1.0, 1.0)  # a mean that all tokens share survives the layers
        mean = _mean_state(model, device, dtype)
        shift = torch.tensor(_log_shares(words), dtype=torch.float32) / (config.hidden_size * mean)
        model.lm_head.weight.add_(shift[: config.vocab_size, None].to(device, dtype))
        model.lm_head.additional_fc.weight.add_(shift[config.vocab_size :, None].to(device, dtype))
    return model


def _mean_state(model: Any, device: torch.device, dtype: torch.dtype) -> float:
    """The mean number in the states that the output matrix sees, of a random text that shows no image."""
    config = model.config
    ids = torch.randint(3, config.vocab_size, (4, 48), device=device)
    latents = (config.perceiver_config.resampler_n_latents, config.vision_config.embed_dim)
    with ready_features(model.model.config):
        output = model.model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            image_encoder_embeddings=torch.zeros(4, 1, *latents, device=device, dtype=dtype),
            image_attention_mask=torch.zeros(4, 48, 1, device=device, dtype=torch.long),
            use_cache=False,
        )
    return float(output.last_hidden_state.float().mean())


def _log_shares(words: PreTrainedTokenizerFast) -> np.ndarray:
    """For every id the logarithm of how often captions have it; float64 [vocabulary]."""
    known = lexicon()
    shares = np.full(len(words), 1e-9)
    for word, share in zip(known.words, known.shares, strict=True):
        for token in words(word, add_special_tokens=False)["input_ids"]:
            shares[token] += share
    for token in (".", "\n", "</s>"):
        shares[words.convert_tokens_to_ids(token)] = 0.1
    return np.log(shares / shares.sum())


def tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """Frequent words are one token, others two syllables: 1.15 tokens a word. Filled up to `vocabulary` entries; the image
    tokens come after them, where idefics has its second embedding table."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    known = lexicon()
    pieces = ["<unk>", "<s>", "</s>", "\n", ":", ".", "Cap", "##tion", *known.words[:WHOLE], *known.syllables]
    pieces += [f"##{s}" for s in known.syllables]
    filler = [f"[unused{k}]" for k in range(vocabulary - len(pieces))]
    ids = {token: place for place, token in enumerate([*pieces, *filler, FAKE, IMAGE])}
    if len(ids) != vocabulary + 2 or len(known.words) != LEXICON:
        raise ValueError(f"a vocabulary of {vocabulary} does not hold {len(pieces)} pieces")
    backend = Tokenizer(models.WordPiece(ids, unk_token="<unk>", continuing_subword_prefix="##"))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"[ \t\r]+"), "removed"),
            pre_tokenizers.Split("\n", "isolated"),
            pre_tokenizers.Punctuation("isolated"),
        ]
    )
    backend.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<unk>",
        additional_special_tokens=[FAKE, IMAGE], padding_side="left", clean_up_tokenization_spaces=False,
    )  # fmt: skip


def parameters(model: Any) -> int:
    return sum(math.prod(p.shape) for p in model.parameters())
