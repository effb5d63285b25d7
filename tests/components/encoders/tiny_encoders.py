"""Tiny random encoders of real architectures, saved to disk as they are published."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.components.models.tiny import CORPUS, save, trained_tokenizer

TOWER = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
VISION = {**TOWER, "image_size": 32, "patch_size": 8}


def spread(model: nn.Module) -> Any:
    """The model with larger random weights than transformers gives it, so that different inputs have different features."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.3)
    return model.eval()


def clip(folder: Path) -> str:
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    tokenizer = trained_tokenizer({"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}, side="right")
    end = int(tokenizer.convert_tokens_to_ids("</s>"))
    text = {**TOWER, "vocab_size": len(tokenizer), "max_position_embeddings": 20, "eos_token_id": end}
    config = CLIPConfig(text_config=text, vision_config=VISION, projection_dim=16)
    with_end(tokenizer)
    processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    return save(folder, spread(CLIPModel(config)), tokenizer, processor)


def siglip(folder: Path) -> str:
    """The architecture of SigLIP and of SigLIP 2 with images of one size."""
    from transformers import SiglipConfig, SiglipImageProcessor, SiglipModel

    tokenizer = with_end(trained_tokenizer({"eos_token": "</s>", "pad_token": "<pad>"}, side="right"))
    text = {**TOWER, "vocab_size": len(tokenizer), "max_position_embeddings": 20}
    config = SiglipConfig(text_config=text, vision_config=VISION)
    return save(folder, spread(SiglipModel(config)), tokenizer, SiglipImageProcessor(size={"height": 32, "width": 32}))


def siglip2(folder: Path) -> str:
    """SigLIP 2 with images of any aspect ratio."""
    from tokenizers import Tokenizer, models, normalizers, trainers
    from transformers import Siglip2Config, Siglip2ImageProcessor, Siglip2Model, Siglip2Tokenizer

    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    backend.normalizer = normalizers.Replace(" ", "\u2581")
    specials = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    backend.train_from_iterator(
        [text.lower() for text in CORPUS],
        trainers.BpeTrainer(vocab_size=200, special_tokens=specials, show_progress=False),
    )
    model = json.loads(backend.to_str())["model"]
    merges = [tuple(pair) for pair in model["merges"]]
    tokenizer = Siglip2Tokenizer(vocab=model["vocab"], merges=merges, padding_side="right")
    with_end(tokenizer, end="<eos>")
    text = {**TOWER, "vocab_size": len(tokenizer), "max_position_embeddings": 20}
    vision = {**TOWER, "num_patches": 16, "patch_size": 8}
    config = Siglip2Config(text_config=text, vision_config=vision)
    processor = Siglip2ImageProcessor(patch_size=8, max_num_patches=16)
    return save(folder, spread(Siglip2Model(config)), tokenizer, processor)


def dinov2(folder: Path) -> str:
    from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

    config = Dinov2Config(**{**VISION, "mlp_ratio": 2})
    processor = BitImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    return save(folder, spread(Dinov2Model(config)), processor)


def dinov3(folder: Path) -> str:
    from transformers import DINOv3ViTConfig, DINOv3ViTImageProcessor, DINOv3ViTModel

    config = DINOv3ViTConfig(**VISION, num_register_tokens=3)
    return save(folder, spread(DINOv3ViTModel(config)), DINOv3ViTImageProcessor(size={"height": 32, "width": 32}))


def bert(folder: Path, **changes: Any) -> str:
    """A text encoder without modules.json."""
    from transformers import BertConfig, BertModel

    tokenizer = trained_tokenizer({"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}, side="right")
    with_end(tokenizer, start="[CLS]", end="[SEP]")
    config = BertConfig(**{**TOWER, "vocab_size": len(tokenizer), "max_position_embeddings": 40, **changes})
    return save(folder, spread(BertModel(config)), tokenizer)


def sentence_bert(
    folder: Path, pooling: Mapping[str, object], *modules: str, settings: Mapping[str, object] | None = None
) -> str:
    """`bert` as a folder of sentence-transformers: `pooling` is the content of its pooling layer's config.json, `modules` are
    the classes behind it, `settings` the content of config_sentence_transformers.json."""
    bert(folder)
    names = ["Transformer", "Pooling", *modules]
    listed = [
        {
            "idx": i,
            "name": str(i),
            "path": "" if i == 0 else f"{i}_{name}",
            "type": f"sentence_transformers.models.{name}",
        }
        for i, name in enumerate(names)
    ]
    write(folder / "modules.json", listed)
    write(folder / "sentence_bert_config.json", {"max_seq_length": 12, "do_lower_case": False})
    write(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": 32, **pooling})
    if settings is not None:
        write(folder / "config_sentence_transformers.json", settings)
    for place, name in enumerate(modules, start=2):
        if name == "Dense":
            dense = {"in_features": 32, "out_features": 8, "bias": True}
            write(
                folder / f"{place}_Dense" / "config.json",
                {**dense, "activation_function": "torch.nn.modules.activation.Tanh"},
            )
            torch.manual_seed(2)
            weights = {f"linear.{k}": v for k, v in nn.Linear(32, 8).state_dict().items()}
            torch.save(weights, folder / f"{place}_Dense" / "pytorch_model.bin")
    return str(folder)


def write(file: Path, content: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


def with_end(tokenizer: Any, start: str = "", end: str = "</s>") -> Any:
    """The tokenizer, which now puts `start` in front of a text and `end` behind it."""
    from tokenizers import processors

    specials = [(token, int(tokenizer.convert_tokens_to_ids(token))) for token in (start, end) if token]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}".strip(), special_tokens=specials
    )
    return tokenizer
