"""Tiny random models of real architectures: built from configuration, with a tokenizer trained here, saved to disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

if TYPE_CHECKING:
    from tests.conftest import Shared

CORPUS = (
    "Caption:a red bar Caption:a green block Caption:a blue frame Caption:a yellow bar",
    "Question:what is it Short answer:red bar Question:what is it Short answer:blue frame",
    "Instruction: provide an answer to the question. Use the image to answer.",
    "Describe the image in one short sentence. Answer the question with a word or a short phrase.",
    "Input:what is it Label:red bar red green blue yellow bar block frame",
    "user assistant User: Assistant: model system You are a helpful assistant.",
)
LLAMA = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "initializer_range": 0.3, "max_position_embeddings": 2048}  # fmt: skip
VISION = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
          "initializer_range": 0.3}  # fmt: skip


def trained_tokenizer(
    named: Mapping[str, str], more: Sequence[str] = (), side: str = "left"
) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on the prompts' words. `named` maps attributes (eos_token, image_token …) to
    tokens; `more` are further special tokens."""
    backend = Tokenizer(models.BPE(unk_token=None))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    specials = list(dict.fromkeys([*named.values(), *more]))
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(CORPUS, trainer)
    usual = {k: v for k, v in named.items() if k in ("bos_token", "eos_token", "unk_token", "pad_token")}
    others = {k: v for k, v in named.items() if k not in usual}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, **usual, model_specific_special_tokens=others, extra_special_tokens=list(more),
        padding_side=side, clean_up_tokenization_spaces=False,
    )  # fmt: skip


def shared_folder(shared: Shared, build: Callable[[Path], str]) -> str:
    """The folder of a model, built once for all workers: `shared_folder(shared, gpt2)`. Copy it to change it."""
    return str(shared(f"{build.__module__}.{build.__qualname__}", build))


def save(folder: Path, model: Any, *parts: Any) -> str:
    """Writes model, processor, tokenizer… into `folder`, as they are published."""
    for part in (model, *parts):
        part.save_pretrained(folder)
    return str(folder)


def takes_features() -> bool:
    """Whether this release of transformers takes image features in place of pixels."""
    import inspect

    from transformers import Idefics2ForConditionalGeneration

    return "mm_encoder_outputs" in inspect.signature(Idefics2ForConditionalGeneration.forward).parameters


def ids_of(tokenizer: Any, *tokens: str) -> list[int]:
    return [int(tokenizer.convert_tokens_to_ids(token)) for token in tokens]


def idefics2(folder: Path) -> str:
    from transformers import Idefics2Config, Idefics2ForConditionalGeneration, Idefics2Processor
    from transformers.models.idefics2.image_processing_pil_idefics2 import Idefics2ImageProcessorPil

    torch.manual_seed(0)
    tokenizer = trained_tokenizer(
        {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<unk>"},
        ("<fake_token_around_image>", "<image>", "<end_of_utterance>"),
    )
    pad, bos, eos, image = ids_of(tokenizer, "<unk>", "<s>", "</s>", "<image>")
    config = Idefics2Config(
        image_token_id=image,
        text_config={**LLAMA, "model_type": "mistral", "vocab_size": len(tokenizer), "pad_token_id": pad,
                     "bos_token_id": bos, "eos_token_id": eos},
        vision_config={**VISION, "image_size": 56, "patch_size": 14},
        perceiver_config={"hidden_size": 32, "resampler_n_latents": 4, "resampler_depth": 1, "resampler_n_heads": 2,
                          "resampler_head_dim": 8, "num_key_value_heads": 1, "initializer_range": 0.3},
    )  # fmt: skip
    images = Idefics2ImageProcessorPil(size={"shortest_edge": 28, "longest_edge": 56}, do_image_splitting=True)
    processor = Idefics2Processor(images, tokenizer, image_seq_len=4)
    model = Idefics2ForConditionalGeneration(config)
    latents = model.model.connector.perceiver_resampler.latents
    torch.nn.init.normal_(latents)  # they begin as ones: the tokens of an image would be the same
    return save(folder, model, processor)


def idefics(folder: Path) -> str:
    """IDEFICS that reads the embedded world's words, with half the layers of the packaged one."""
    from transformers import IdeficsConfig, IdeficsForVisionText2Text
    from transformers.models.idefics.image_processing_pil_idefics import IdeficsImageProcessorPil

    from tests.world.recipe.tokenizer import build_tokenizer

    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    config = IdeficsConfig(
        vocab_size=len(tokenizer) - 2, additional_vocab_size=2, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, cross_layer_interval=1, use_resampler=False, alpha_initializer="ones", initializer_range=0.3,
        freeze_text_layers=False, freeze_vision_layers=False, bos_token_id=1, eos_token_id=2, pad_token_id=0,
        vision_config={"embed_dim": 32, "image_size": 28, "patch_size": 14, "num_hidden_layers": 1,
                       "num_attention_heads": 4, "intermediate_size": 64, "initializer_range": 0.3},
    )  # fmt: skip
    return save(folder, IdeficsForVisionText2Text(config), tokenizer, IdeficsImageProcessorPil(image_size=28))


_CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for c in m.content %}{% if c.type == 'image' %}IMAGE"
    "{% else %}{{ c.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def _chatml(image: str) -> str:
    """A template of the kind that most models use, with `image` in place of an image."""
    return _CHATML.replace("IMAGE", image)


#: Idefics3's and SmolVLM's way: roles in plain words, a blank before the answer.
_UTTERANCES = (
    "<|im_start|>{% for m in messages %}{{ m.role | capitalize }}{% if m.content[0].type == 'image' %}:{% else %}: "
    "{% endif %}{% for c in m.content %}{% if c.type == 'image' %}<image>{% else %}{{ c.text }}{% endif %}{% endfor %}"
    "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)

_GEMMA = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{% for c in m.content %}{% if c.type == 'image' %}<start_of_image>{% else %}{{ c.text | trim }}{% endif %}{% endfor %}"
    "<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


def _idefics3(folder: Path, family: str) -> str:
    import transformers

    kind: Any = transformers
    torch.manual_seed(0)
    tokenizer = trained_tokenizer(
        {"bos_token": "<|im_start|>", "eos_token": "<end_of_utterance>", "pad_token": "<|im_end|>"},
        (
            "<fake_token_around_image>",
            "<image>",
            "<global-img>",
            *(f"<row_{r}_col_{c}>" for r in (1, 2) for c in (1, 2)),
        ),
    )
    pad, bos, eos, image = ids_of(tokenizer, "<|im_end|>", "<|im_start|>", "<end_of_utterance>", "<image>")
    config = getattr(kind, f"{family}Config")(
        image_token_id=image, scale_factor=2,
        text_config={**LLAMA, "model_type": "llama", "vocab_size": len(tokenizer), "pad_token_id": pad,
                     "bos_token_id": bos, "eos_token_id": eos},
        vision_config={**VISION, "image_size": 28, "patch_size": 7},
    )  # fmt: skip
    images = getattr(kind, f"{family}ImageProcessorPil")(
        size={"longest_edge": 56}, max_image_size={"longest_edge": 28}, do_image_splitting=True
    )
    parts = [images, tokenizer]
    if family == "SmolVLM":
        parts.append(kind.SmolVLMVideoProcessor())
    processor = getattr(kind, f"{family}Processor")(*parts, image_seq_len=4, chat_template=_UTTERANCES)
    return save(folder, getattr(kind, f"{family}ForConditionalGeneration")(config), processor)


def idefics3(folder: Path) -> str:
    return _idefics3(folder, "Idefics3")


def smolvlm(folder: Path) -> str:
    return _idefics3(folder, "SmolVLM")


def _out() -> dict[str, int]:
    """Of a vision encoder: the width of the language model."""
    return {"out_hidden_size": int(LLAMA["hidden_size"])}


def _qwen(folder: Path, family: str, vision: dict[str, Any], **text: Any) -> str:
    import transformers

    kind: Any = transformers
    torch.manual_seed(0)
    tokenizer = trained_tokenizer(
        {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
        ("<|im_start|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"),
    )
    eos, pad, start, end, image, video = ids_of(
        tokenizer, "<|im_end|>", "<|endoftext|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"
    )
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
    later = family in ("Qwen3VL", "Qwen3_5")
    if later:
        rope["mrope_interleaved"] = True
    config = getattr(kind, f"{family}Config")(
        image_token_id=image, video_token_id=video, vision_start_token_id=start, vision_end_token_id=end,
        text_config={**LLAMA, "vocab_size": len(tokenizer), "eos_token_id": eos, "pad_token_id": pad,
                     "bos_token_id": None, "rope_parameters": rope, "head_dim": 8, **text},
        vision_config={"depth": 2, "num_heads": 4, "patch_size": 7, "spatial_merge_size": 2, "initializer_range": 0.3,
                       **vision},
    )  # fmt: skip
    size = {"shortest_edge": 28 * 28, "longest_edge": 56 * 56}
    images = kind.Qwen2VLImageProcessorPil(size=size, patch_size=7, merge_size=2)
    videos = getattr(kind, "Qwen3VLVideoProcessor" if later else "Qwen2VLVideoProcessor")(patch_size=7, merge_size=2)
    name = "Qwen3VL" if later else family
    processor = getattr(kind, f"{name}Processor")(
        images, tokenizer, videos, chat_template=_chatml("<|vision_start|><|image_pad|><|vision_end|>")
    )
    return save(folder, getattr(kind, f"{family}ForConditionalGeneration")(config), processor)


def qwen2_vl(folder: Path) -> str:
    return _qwen(folder, "Qwen2VL", {"embed_dim": 32, "hidden_size": 32, "mlp_ratio": 2})


def qwen2_5_vl(folder: Path) -> str:
    vision = {"hidden_size": 32, "intermediate_size": 48, **_out(), "window_size": 28,
              "fullatt_block_indexes": [1]}  # fmt: skip
    return _qwen(folder, "Qwen2_5_VL", vision)


def qwen3_vl(folder: Path) -> str:
    vision = {"hidden_size": 32, "intermediate_size": 48, **_out(), "num_position_embeddings": 16,
              "deepstack_visual_indexes": [0]}  # fmt: skip
    return _qwen(folder, "Qwen3VL", vision)


def qwen3_5(folder: Path) -> str:
    """Layers with a recurrent state before and after one with full attention."""
    vision = {
        "hidden_size": 32,
        "intermediate_size": 48,
        **_out(),
        "num_position_embeddings": 16,
    }
    sizes = {
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
    }
    kinds = ["linear_attention", "full_attention", "linear_attention"]
    return _qwen(folder, "Qwen3_5", vision, num_hidden_layers=3, layer_types=kinds, **sizes)


def _mistral3(folder: Path, text: dict[str, Any]) -> str:
    import transformers

    kind: Any = transformers
    torch.manual_seed(0)
    tokenizer = trained_tokenizer(
        {"bos_token": "<s>", "eos_token": "<|im_end|>", "pad_token": "<pad>"},
        ("[IMG]", "[IMG_BREAK]", "[IMG_END]", "<|im_start|>"),
    )
    bos, eos, pad, image = ids_of(tokenizer, "<s>", "<|im_end|>", "<pad>", "[IMG]")
    config = kind.Mistral3Config(
        image_token_index=image, spatial_merge_size=2, tie_word_embeddings=False,
        text_config={**LLAMA, "vocab_size": len(tokenizer), "head_dim": 8, "bos_token_id": bos, "eos_token_id": eos,
                     "pad_token_id": pad, "sliding_window": None, **text},
        vision_config={**VISION, "model_type": "pixtral", "image_size": 56, "patch_size": 7},
    )  # fmt: skip
    images = kind.PixtralImageProcessorPil(size={"longest_edge": 56}, patch_size={"height": 14, "width": 14})
    processor = kind.PixtralProcessor(
        images, tokenizer, patch_size=7, spatial_merge_size=2, chat_template=_chatml("[IMG]")
    )
    return save(folder, kind.Mistral3ForConditionalGeneration(config), processor)


def mistral3(folder: Path) -> str:
    return _mistral3(folder, {"model_type": "mistral"})


def ministral3(folder: Path) -> str:
    """Queries are scaled by their position, from the 17th token on."""
    rope = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 8.0, "original_max_position_embeddings": 16,
            "llama_4_scaling_beta": 0.1}  # fmt: skip
    return _mistral3(folder, {"model_type": "ministral3", "rope_parameters": rope})


def llava_onevision(folder: Path) -> str:
    import transformers

    kind: Any = transformers
    torch.manual_seed(0)
    tokenizer = trained_tokenizer(
        {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}, ("<|im_start|>", "<image>", "<video>")
    )
    eos, pad, image, video = ids_of(tokenizer, "<|im_end|>", "<|endoftext|>", "<image>", "<video>")
    pinpoints = [[28, 28], [28, 56], [56, 28], [56, 56]]
    config = kind.LlavaOnevisionConfig(
        image_token_index=image, video_token_index=video, image_grid_pinpoints=pinpoints,
        vision_feature_layer=-1, vision_feature_select_strategy="full",
        text_config={**LLAMA, "model_type": "qwen2", "vocab_size": len(tokenizer), "eos_token_id": eos,
                     "pad_token_id": pad, "bos_token_id": None},
        vision_config={**VISION, "model_type": "siglip_vision_model", "image_size": 28, "patch_size": 7,
                       "vision_use_head": False},
    )  # fmt: skip
    images = kind.LlavaOnevisionImageProcessorPil(size={"height": 28, "width": 28}, image_grid_pinpoints=pinpoints)
    processor = kind.LlavaOnevisionProcessor(
        images, tokenizer, kind.LlavaOnevisionVideoProcessor(), num_image_tokens=16,
        vision_feature_select_strategy="full", chat_template=_chatml("<image>\n"),
    )  # fmt: skip
    return save(folder, kind.LlavaOnevisionForConditionalGeneration(config), processor)


def gemma3(folder: Path) -> str:
    import transformers

    kind: Any = transformers
    torch.manual_seed(0)
    tokenizer = trained_tokenizer(
        {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "boi_token": "<start_of_image>",
         "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"},
        ("<start_of_turn>", "<end_of_turn>"),
    )  # fmt: skip
    pad, eos, bos, boi, eoi, image, turn = ids_of(
        tokenizer,
        "<pad>",
        "<eos>",
        "<bos>",
        "<start_of_image>",
        "<end_of_image>",
        "<image_soft_token>",
        "<end_of_turn>",
    )
    config = kind.Gemma3Config(
        mm_tokens_per_image=4, boi_token_index=boi, eoi_token_index=eoi, image_token_index=image,
        text_config={**LLAMA, "vocab_size": len(tokenizer), "head_dim": 8, "pad_token_id": pad, "eos_token_id": [eos, turn],
                     "bos_token_id": bos, "sliding_window": 24, "layer_types": ["sliding_attention", "full_attention"]},
        vision_config={**VISION, "image_size": 28, "patch_size": 7, "vision_use_head": False},
    )  # fmt: skip
    images = kind.Gemma3ImageProcessorPil(size={"height": 28, "width": 28})
    processor = kind.Gemma3Processor(images, tokenizer, chat_template=_GEMMA, image_seq_length=4)
    model = kind.Gemma3ForConditionalGeneration(config)
    model.generation_config.eos_token_id = [eos, turn]
    torch.nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight)  # zeros: images would not count
    return save(folder, model, processor)


def _gemma4(folder: Path, **text: Any) -> str:
    """Heads of another width in layers with full attention; a window shorter than an image."""
    import transformers

    kind: Any = transformers
    torch.manual_seed(0)
    tokenizer = trained_tokenizer(
        {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "boi_token": "<|image>",
         "eoi_token": "<image|>", "image_token": "<|image|>", "audio_token": "<|audio|>", "boa_token": "<|audio>",
         "eoa_token": "<audio|>"},
        ("<|video|>", "<start_of_turn>", "<end_of_turn>"),
    )  # fmt: skip
    named = dict(zip(
        ("pad", "eos", "bos", "boi", "eoi", "image", "audio", "boa", "eoa", "video", "turn"),
        ids_of(tokenizer, "<pad>", "<eos>", "<bos>", "<|image>", "<image|>", "<|image|>", "<|audio|>", "<|audio>",
               "<audio|>", "<|video|>", "<end_of_turn>"), strict=True,
    ))  # fmt: skip
    ends = [named["eos"], named["turn"]]
    config = kind.Gemma4Config(
        boi_token_id=named["boi"], eoi_token_id=named["eoi"], image_token_id=named["image"], audio_config=None,
        video_token_id=named["video"], audio_token_id=named["audio"], boa_token_id=named["boa"],
        eoa_token_index=named["eoa"],
        text_config={**LLAMA, "vocab_size": len(tokenizer), "vocab_size_per_layer_input": len(tokenizer), "head_dim": 8,
                     "global_head_dim": 16, "pad_token_id": named["pad"], "eos_token_id": ends,
                     "bos_token_id": named["bos"], "sliding_window": 48, "hidden_size_per_layer_input": 0,
                     "layer_types": ["sliding_attention", "full_attention"], "final_logit_softcapping": 30.0, **text},
        vision_config={**VISION, "num_key_value_heads": 4, "head_dim": 8, "patch_size": 2, "pooling_kernel_size": 2,
                       "position_embedding_size": 64},
    )  # fmt: skip
    images = kind.Gemma4ImageProcessorPil(patch_size=2, max_soft_tokens=70, pooling_kernel_size=2)
    videos = kind.Gemma4VideoProcessor(patch_size=2, max_soft_tokens=70, pooling_kernel_size=2)
    processor = kind.Gemma4Processor(
        kind.Gemma4AudioFeatureExtractor(), images, tokenizer, videos, image_seq_length=70,
        chat_template=_GEMMA.replace("<start_of_image>", "<|image|>"),
    )  # fmt: skip
    model = kind.Gemma4ForConditionalGeneration(config)
    model.generation_config.eos_token_id = ends
    return save(folder, model, processor)


def gemma4(folder: Path) -> str:
    """As the larger models: tokens of an image attend to each other."""
    return _gemma4(folder, use_bidirectional_attention="vision", attention_k_eq_v=True, num_global_key_value_heads=1)


def gemma4_small(folder: Path) -> str:
    """As the smaller models: the last layers use keys and values of earlier ones, and each layer has embeddings."""
    kinds = ["sliding_attention", "full_attention"] * 2
    return _gemma4(
        folder, num_hidden_layers=4, layer_types=kinds, num_kv_shared_layers=2, hidden_size_per_layer_input=8
    )


def internvl(folder: Path) -> str:
    import transformers

    kind: Any = transformers
    torch.manual_seed(0)
    tokenizer = trained_tokenizer(
        {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "start_image_token": "<img>",
         "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>", "video_token": "<video>"},
        ("<|im_start|>",),
    )  # fmt: skip
    eos, pad, image = ids_of(tokenizer, "<|im_end|>", "<|endoftext|>", "<IMG_CONTEXT>")
    config = kind.InternVLConfig(
        image_token_id=image, image_seq_length=4, downsample_ratio=0.5,
        text_config={**LLAMA, "model_type": "qwen2", "vocab_size": len(tokenizer), "eos_token_id": eos,
                     "pad_token_id": pad, "bos_token_id": None},
        vision_config={**VISION, "image_size": [28, 28], "patch_size": [7, 7]},
    )  # fmt: skip
    images = kind.GotOcr2ImageProcessorPil(size={"height": 28, "width": 28}, crop_to_patches=True, max_patches=2)
    processor = kind.InternVLProcessor(
        images, tokenizer, kind.InternVLVideoProcessor(), image_seq_length=4, chat_template=_chatml("<IMG_CONTEXT>\n")
    )
    return save(folder, kind.InternVLForConditionalGeneration(config), processor)


def gpt2(folder: Path) -> str:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    tokenizer = trained_tokenizer({"eos_token": "<|endoftext|>", "bos_token": "<|endoftext|>"})
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=512, n_embd=32, n_layer=2, n_head=4, initializer_range=0.3,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return save(folder, GPT2LMHeadModel(config), tokenizer)


def llama(folder: Path) -> str:
    from tokenizers.processors import TemplateProcessing
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    tokenizer = trained_tokenizer({"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<unk>"})
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    config = LlamaConfig(
        **LLAMA, vocab_size=len(tokenizer), bos_token_id=1, eos_token_id=2, pad_token_id=0, tie_word_embeddings=True
    )
    return save(folder, LlamaForCausalLM(config), tokenizer)


CHAT: dict[str, Callable[[Path], str]] = {
    "idefics3": idefics3, "smolvlm": smolvlm, "qwen2-vl": qwen2_vl, "qwen2.5-vl": qwen2_5_vl, "qwen3-vl": qwen3_vl,
    "llava-onevision": llava_onevision, "gemma3": gemma3, "internvl": internvl, "gemma4": gemma4,
    "gemma4-small": gemma4_small, "mistral3": mistral3, "ministral3": ministral3, "qwen3.5": qwen3_5,
}  # fmt: skip
TEXT: dict[str, Callable[[Path], str]] = {"gpt2": gpt2, "llama": llama}


def plain_inputs(folder: str, **changes: Any) -> Callable[[Any, str], dict[str, torch.Tensor]]:
    """What the processor in `folder`, loaded anew, makes of one prompt's images and a text: the plain twin of batches."""
    from PIL import Image
    from transformers import AutoImageProcessor, AutoProcessor

    processor: Any = AutoProcessor.from_pretrained(folder)
    processor.image_processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    for key, value in changes.items():
        setattr(processor.image_processor, key, value)

    def inputs(prompt: Any, text: str) -> dict[str, torch.Tensor]:
        images = [Image.open(path).convert("RGB") for path in prompt.images]
        return dict(processor(text=[text], images=[images], return_tensors="pt", add_special_tokens=False))

    return inputs


def plain_text_inputs(folder: str) -> Callable[[Any, str], dict[str, torch.Tensor]]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return lambda prompt, text: dict(tokenizer(text, return_tensors="pt", add_special_tokens=False))


def idefics_resampled(folder: Path) -> str:
    """IDEFICS with idefics-9b's features: perceiver, cross attention in every second layer, norms of queries and keys. Its
    weights are the same under every release of torch and transformers."""
    import zlib

    import numpy as np
    from transformers import IdeficsConfig, IdeficsForVisionText2Text
    from transformers.models.idefics.image_processing_pil_idefics import IdeficsImageProcessorPil

    from tests.world.recipe.tokenizer import build_tokenizer

    tokenizer = build_tokenizer()
    config = IdeficsConfig(
        vocab_size=len(tokenizer) - 2, additional_vocab_size=2, hidden_size=32, intermediate_size=48, num_hidden_layers=4,
        num_attention_heads=4, cross_layer_interval=2, qk_layer_norms=True, use_resampler=True,
        alpha_initializer="ones", freeze_text_layers=False, freeze_vision_layers=False, bos_token_id=1, eos_token_id=2,
        pad_token_id=0,
        vision_config={"embed_dim": 32, "image_size": 28, "patch_size": 14, "num_hidden_layers": 2,
                       "num_attention_heads": 4, "intermediate_size": 64},
        perceiver_config={"use_resampler": True, "resampler_n_latents": 3, "resampler_depth": 2, "resampler_n_heads": 2,
                          "resampler_head_dim": 8, "qk_layer_norms_perceiver": True},
    )  # fmt: skip
    model = IdeficsForVisionText2Text(config)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            drawn = 0.3 * np.random.default_rng(zlib.crc32(name.encode())).standard_normal(weights.shape)
            centre = 1.0 if ("norm" in name and name.endswith("weight")) or "alpha" in name else 0.0
            weights.copy_(torch.from_numpy(centre + drawn))
    return save(folder, model, tokenizer, IdeficsImageProcessorPil(image_size=28))
