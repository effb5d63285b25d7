"""Tiny random models of transformers' image-text-to-text families, made from their default configurations by rule."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import CONFIG_MAPPING, AutoModelForImageTextToText, PreTrainedTokenizerFast
from transformers.models.auto.feature_extraction_auto import FEATURE_EXTRACTOR_MAPPING_NAMES
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES
from transformers.models.auto.video_processing_auto import VIDEO_PROCESSOR_MAPPING_NAMES

from tests.components.models.tiny import LLAMA, trained_tokenizer

FAMILIES = tuple(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)
MOST_PARAMETERS = 30_000_000

_ATTRIBUTES = """
image video audio boi eoi boa eoa image_start image_end vision_start vision_end start_image end_image context_image fake_image
global_image document img_line_break image_break image_boundary image_wrapper eof eol image_id_start image_id_end slice_start
slice_end vision_bos vision_eos grid_bos grid_eos row audio_bos audio_eos audio_start audio_end video_start video_end video_sep
image_thumbnail audio_prompt audio_delay audio_latent
"""
_NAMED = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "bos_token": "<s>", "unk_token": "<unk>"} | {
    f"{name}_token": f"<{name}>" for name in _ATTRIBUTES.split()
}
#: Tokens that processors name in their code.
_FIXED = (
    "<|im_start|>", "<|image|>", "<|video|>", "<|imgpad|>", "<|videopad|>", "<|audiopad|>", "<|python_tag|>", "<|image_pad|>",
    "<|video_pad|>", "<|vision_start|>", "<|vision_end|>", "<|image_start|>", "<|image_end|>", "<|patch|>",
    "<|tile_x_separator|>", "<|tile_y_separator|>", "<fake_token_around_image>", "<global-img>",
)  # fmt: skip
_CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for c in m.content %}{% if c.type == 'image' %}IMAGE{% else %}"
    "{{ c.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_TEXT = {**LLAMA, "max_position_embeddings": 16384}
#: Sizes of a configuration, by what its key looks like.
_SIZES: tuple[tuple[str, int], ...] = (
    (r"num_key_value_heads$|num_kv_heads$", 2),
    (r"num_attention_heads$|num_heads$|n_head$|attention_heads$", 4),
    (r"num_hidden_layers$|^depth$|num_layers$|(en|de)coder_layers$|^n_layer$|num_global_layers$", 2),
    (r"^head_dim$|v_head_dim$|qk_nope_head_dim$|qk_rope_head_dim$", 8),
    (r"lora_rank$", 16),
    (r"intermediate_size|ffn_dim|mlp_dim", 48),
    (r"num_experts$|n_routed_experts|num_local_experts", 4),
    (r"^max_position_embeddings$", 16384),
)
_WIDTHS = re.compile(r"hidden_size|d_model|embed_dim|^n_embd|^width$|^dim$|out_hidden|output_dim|_dim$|embed_size")


@dataclass(frozen=True)
class Family:
    """What a family needs beside the rules: arguments of its configuration, changes by dotted key, and of its processors."""

    init: Mapping[str, Any] | Callable[[PreTrainedTokenizerFast], Mapping[str, Any]] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    images: Mapping[str, Any] | None = None
    processor: Mapping[str, Any] = field(default_factory=dict)
    marker: str = ""


def _emu3(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    visual = {f"<|visual token {number:06d}|>": 500 + number for number in range(16)}
    return {
        "vocabulary_map": {"<image>": tokenizer.convert_tokens_to_ids("<image>"), **visual, "<|extra_200|>": 499},
        "text_config": {**_TEXT, "vocab_size": 600},
        "vq_config": {"base_channels": 32, "channel_multiplier": [1, 1, 1, 1], "num_res_blocks": 1,
                      "temporal_downsample_factor": 1},
    }  # fmt: skip


def _square(side: int) -> dict[str, dict[str, int]]:
    return {"size": {"height": side, "width": side}}


SPECIAL: dict[str, Family] = {
    "mllama": Family(
        config={
            "vision_config.patch_size": 14, "vision_config.image_size": 28, "vision_config.max_num_tiles": 2,
            "vision_config.intermediate_layers_indices": [0], "vision_config.num_global_layers": 1,
            "vision_config.vision_output_dim": 64, "vision_config.supported_aspect_ratios": [[1, 1], [1, 2], [2, 1]],
            "text_config.cross_attention_layers": [1],
        },
        images={**_square(28), "max_image_tiles": 2},
    ),
    "deepseek_vl": Family(
        config={"vision_config.image_size": 64, "vision_config.patch_size": 16},
        images=_square(64), processor={"num_image_tokens": 16},
    ),
    "deepseek_vl_hybrid": Family(
        config={
            "vision_config.image_size": 64, "vision_config.patch_size": 16, "high_res_vision_config.image_size": 128,
            "high_res_vision_config.output_channels": 8, "high_res_vision_config.global_attn_indexes": [1],
        },
        images={**_square(64), "high_res_size": {"height": 128, "width": 128}}, processor={"num_image_tokens": 16},
    ),
    "llama4": Family(
        config={
            "image_token_index": "<|patch|>", "vision_config.intermediate_size": 128,
            "vision_config.projector_input_dim": 32, "vision_config.projector_output_dim": 32,
            "vision_config.vision_output_dim": 32, "text_config.no_rope_layers": [1, 0], "text_config.moe_layers": [0, 1],
        },
        images={**_square(56), "max_patches": 2}, marker="<|image|>",
    ),
    "perception_lm": Family(
        init={"vision_config": {
            "architecture": "vit_pe_core_large_patch14_336",
            "model_args": {"embed_dim": 32, "img_size": [28, 28], "depth": 2, "num_heads": 4, "global_pool": "",
                           "use_post_transformer_norm": False, "init_values": 0.1, "ref_feat_shape": [2, 2]},
        }},
        images={**_square(28), "tile_size": 28, "max_num_tiles": 2}, processor={"patch_size": 14, "pooling_ratio": 1},
    ),
    "emu3": Family(
        init=_emu3,
        config={"vq_config.codebook_size": 16, "vq_config.embed_dim": 4, "text_config.vocab_size": 600},
        images={"min_pixels": 32 * 32, "max_pixels": 64 * 64},
    ),
    "janus": Family(
        init={"vq_config": {"base_channels": 32, "channel_multiplier": [1, 1], "num_embeddings": 64, "latent_channels": 32}},
        config={"vision_config.num_image_tokens": 16, "vision_config.image_size": 64, "vq_config.num_patches": 4},
        images=_square(64), processor={"num_image_tokens": 16},
    ),
    "dots3_note": Family(
        init={
            "text_config": {"num_hidden_layers": 2, "layer_types": ["full_attention"] * 2},
            "vision_config": {"num_hidden_layers": 2, "mlp_layer_types": ["dense", "dense"]},
            "audio_config": {"num_hidden_layers": 2},
        },
        config={"image_token_id": "<|imgpad|>", "text_config.num_key_value_heads": 4, "audio_config.adapter_input_size": 32},
        images={"temporal_patch_size": 1, "size": {"shortest_edge": 28 * 28, "longest_edge": 56 * 56}}, marker="<|imgpad|>",
    ),
}  # fmt: skip


_MINICPM = Family(config={"image_token_id": "<image>"}, images={"patch_size": 16})
#: Families whose defaults do not fit one another.
FITTED = dict.fromkeys(("minicpm_ocr", "minicpmv4_6", "minicpmv4_7"), _MINICPM)


def build(kind: str, folder: Path) -> None:
    """Writes a model of the family, whose model_type is `kind`, with its processor into `folder`. Raises whatever the classes
    of transformers raise for a configuration that the rules make wrong, and ValueError for a model that stays large."""
    torch.manual_seed(0)
    family, tokenizer = (SPECIAL | FITTED).get(kind, Family()), trained_tokenizer(_NAMED, _FIXED)
    config_class = CONFIG_MAPPING[kind]
    init = family.init(tokenizer) if callable(family.init) else family.init
    values = _shrunk(config_class(**init).to_dict(), tokenizer)
    values.pop("transformers_version", None)
    for key, value in family.config.items():
        *parts, last = key.split(".")
        place = values
        for part in parts:
            place = place[part]
        place[last] = tokenizer.convert_tokens_to_ids(value) if isinstance(value, str) else value
    config = config_class.from_dict(values)
    model_class: Any = AutoModelForImageTextToText._model_mapping[type(config)]
    with torch.device("meta"):
        size = sum(parameter.numel() for parameter in model_class(copy.deepcopy(config)).parameters())
    if size > MOST_PARAMETERS:
        raise ValueError(f"{kind} has {size:,} parameters")
    model = model_class(config)
    _draw_constants(model)
    processor = _processor(kind, family, tokenizer, values)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def _draw_constants(model: torch.nn.Module) -> None:
    """Random numbers in place of weights that begin as zeros or ones: through a closed gate no image would count."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            constant = weight.numel() and weight.is_floating_point() and bool((weight == weight.flatten()[0]).all())
            if constant and not name.endswith("bias") and "norm" not in name.lower():
                torch.nn.init.normal_(weight, std=0.3)


def _shrunk(values: Mapping[str, Any], tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    patch = values.get("patch_size") or 14
    side = 4 * (patch if isinstance(patch, int) else patch[-1])
    return {key: _value(key, value, side, tokenizer) for key, value in values.items()}


def _value(key: str, value: Any, side: int, tokenizer: PreTrainedTokenizerFast) -> Any:
    if isinstance(value, Mapping):
        return _shrunk(value, tokenizer)
    if key in ("layer_types", "mlp_layer_types") and value:
        return [value[0], value[-1]]
    if key == "image_size" and value:
        return side if isinstance(value, int) else [side] * len(value)
    if key in ("dtype", "torch_dtype"):
        return "float32"
    if key == "initializer_range":
        return 0.3
    return _size(key, value, tokenizer) if isinstance(value, int) and not isinstance(value, bool) else value


def _size(key: str, value: int, tokenizer: PreTrainedTokenizerFast) -> int:
    if re.search(r"_token_(id|index)$", key):
        return _token_id(key, tokenizer)
    if key == "vocab_size":
        return len(tokenizer)
    if re.search(r"vocab_size|codebook_size|num_embeddings$", key):
        return max(len(tokenizer), min(value, 2000))
    if re.search(r"experts_per_tok|top_k", key):
        return min(value, 2)
    for pattern, size in _SIZES:
        if re.search(pattern, key):
            return size
    return 32 if value >= 32 and _WIDTHS.search(key) else value


def _token_id(key: str, tokenizer: PreTrainedTokenizerFast) -> int:
    name = re.sub(r"_(id|index)$", "", key)
    token = _NAMED.get(name) or ("<image>" if "image" in name else "<video>" if "video" in name else "<|endoftext|>")
    return int(tokenizer.convert_tokens_to_ids(token))


def _class(name: Any) -> Any:
    if isinstance(name, Mapping):
        name = name.get("pil") or next(iter(name.values()))
    if isinstance(name, (tuple, list)):
        name = [part for part in name if part][-1]
    return getattr(transformers, name)


def _processor(kind: str, family: Family, tokenizer: PreTrainedTokenizerFast, values: Mapping[str, Any]) -> Any:
    processor_class, parts = _class(PROCESSOR_MAPPING_NAMES[kind]), {}
    for name in processor_class.get_attributes():
        if name == "tokenizer":
            parts[name] = tokenizer
        elif name == "image_processor":
            image_class = _class(IMAGE_PROCESSOR_MAPPING_NAMES[kind])
            parts[name] = image_class(**(_images(image_class, values) if family.images is None else family.images))
        elif name == "video_processor":
            parts[name] = _class(VIDEO_PROCESSOR_MAPPING_NAMES[kind])()
        elif name == "feature_extractor":
            parts[name] = _class(FEATURE_EXTRACTOR_MAPPING_NAMES[kind])()
    processor = processor_class(**parts, chat_template=_CHATML, **family.processor)
    processor.chat_template = _CHATML.replace(
        "IMAGE", family.marker or getattr(processor, "image_token", None) or "<image>"
    )
    return processor


def _images(image_class: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of an image processor for images of four patches a side."""
    vision = values.get("vision_config") or {}
    patch, merged = vision.get("patch_size") or 14, vision.get("spatial_merge_size") or 2
    patch = patch if isinstance(patch, int) else patch[-1]
    size = getattr(image_class, "size", None)
    keys = set(size) if isinstance(size, Mapping) else set()
    if keys == {"height", "width"}:
        return _square(4 * patch)
    if keys == {"shortest_edge", "longest_edge"} and (size or {}).get("shortest_edge", 0) > 2000:
        return {"size": {"shortest_edge": (patch * merged) ** 2, "longest_edge": 4 * (patch * merged) ** 2}}
    return {}
