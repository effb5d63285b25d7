"""The tiny LVLM's configuration, and the initialisation without which it learns nothing in context."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tests.world.recipe.episodes import IMAGE_SIZE

if TYPE_CHECKING:
    from transformers import IdeficsForVisionText2Text, PreTrainedTokenizerFast

INITIALIZER_RANGE = 0.08
EMBEDDING_STD = 0.5


def build_idefics(tokenizer: PreTrainedTokenizerFast) -> IdeficsForVisionText2Text:
    """A fresh IdeficsForVisionText2Text of 1.3 million parameters, drawn from torch's global generator.

    With the usual standard deviation of 0.02 a model of this size does not even learn to copy; with 0.08, wide input
    embeddings, gates at one and no layer norms on queries and keys it does within a hundred steps.
    """
    import torch
    from transformers import IdeficsConfig, IdeficsForVisionText2Text

    config = IdeficsConfig(
        vocab_size=len(tokenizer) - 2,
        additional_vocab_size=2,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        initializer_range=INITIALIZER_RANGE,
        alpha_initializer="ones",
        alpha_type="float",
        cross_layer_interval=1,
        qk_layer_norms=False,
        use_resampler=False,
        freeze_text_layers=False,
        freeze_vision_layers=False,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        max_position_embeddings=1024,
        vision_config={
            "embed_dim": 64,
            "image_size": IMAGE_SIZE,
            "patch_size": 8,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 256,
            "initializer_range": INITIALIZER_RANGE,
        },
    )
    model = IdeficsForVisionText2Text(config)
    with torch.no_grad():
        for table in (model.model.embed_tokens.weight, model.model.embed_tokens.additional_embedding.weight):
            table.normal_(0.0, EMBEDDING_STD)
    return model


def save_idefics(model: IdeficsForVisionText2Text, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Writes what `from_pretrained` reads: configuration, safetensors, tokenizer and image processor."""
    from transformers.models.idefics.image_processing_pil_idefics import IdeficsImageProcessorPil

    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    IdeficsImageProcessorPil(image_size=IMAGE_SIZE).save_pretrained(folder)
