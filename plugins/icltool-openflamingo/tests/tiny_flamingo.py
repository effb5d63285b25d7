"""Tiny OpenFlamingo models, built by open_flamingo's own classes and saved in the published layout."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import open_clip
import torch
from icltool_openflamingo.model import OpenFlamingoModel, OpenFlamingoOptions
from icltool_openflamingo.mpt import NormedMptForCausalLM
from open_flamingo.src.flamingo import Flamingo
from open_flamingo.src.flamingo_lm import FlamingoLMMixin
from open_flamingo.src.utils import extend_instance
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, MptConfig, MptForCausalLM, PreTrainedTokenizerFast

from icltool.testing.examples import COLOURS, SHAPES

INTERVALS = {"mosaic": 1, "mpt": 2, "llama": 2}
LAYERS = {"mosaic": "transformer.blocks", "mpt": "transformer.blocks", "llama": "model.layers"}
CLIP = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 32, "layers": 2, "head_width": 16},
    "text_cfg": {"context_length": 8, "vocab_size": 50, "width": 16, "heads": 2, "layers": 1},
}
#: New names of MPT's weights, and those of MosaicGPT.
OLDER = {
    ".norm_1.": ".ln_1.",
    ".norm_2.": ".ln_2.",
    ".norm_f.": ".ln_f.",
    ".ffn.up_proj.": ".mlp.mlp_up.",
    ".ffn.down_proj.": ".mlp.mlp_down.",
    ".Wqkv.q_ln.": ".q_ln.",
    ".Wqkv.k_ln.": ".k_ln.",
}


@dataclass
class Tiny:
    """`reference` is open_flamingo's own model, never saved nor loaded; `loaded` came out of `folder` by the loader."""

    kind: str
    folder: Path
    reference: Any
    loaded: OpenFlamingoModel


def build(kind: str, folder: Path) -> Tiny:
    """Random weights of a size at which image, order and text all matter."""
    torch.manual_seed(7)
    tokenizer = train_tokenizer(kind)
    tokenizer.save_pretrained(folder / "language_model")
    clip = open_clip.model.CLIP(**CLIP)
    torch.nn.init.uniform_(clip.visual.ln_post.weight, 0.2, 2.0)
    torch.nn.init.normal_(clip.visual.ln_post.bias)
    (folder / "clip").mkdir()
    config = {"model_cfg": CLIP, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3}}
    (folder / "clip" / "open_clip_config.json").write_text(json.dumps(config))
    save_file(clip.state_dict(), folder / "clip" / "open_clip_model.safetensors")
    language_model = make_language_model(kind, len(tokenizer))
    save_language_model(kind, language_model, folder / "language_model")
    reference = assemble(kind, clip, language_model, base=len(tokenizer))
    trained = {
        key: value.clone()
        for key, value in reference.state_dict().items()
        if key.startswith("perceiver.")
        or (LAYERS[kind] in key and ".gated_cross_attn_layer." in key)
        or key.endswith(("wte.weight", "embed_tokens.weight"))
    }
    torch.save(trained, folder / "checkpoint.pt")
    return Tiny(kind, folder, reference, load(kind, folder))


def load(kind: str, folder: Path, **options: Any) -> OpenFlamingoModel:
    """By the loader that users run."""
    options = {"device": "cpu", "dtype": "float32", "cross_attention_interval": INTERVALS[kind], **options}
    return OpenFlamingoModel(OpenFlamingoOptions(name=kind, path=str(folder), **options))


def train_tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """Byte-level BPE as GPT-NeoX has it, or BPE with visible blanks as LLaMA; without OpenFlamingo's own tokens."""
    words = [
        *COLOURS,
        *SHAPES,
        "Output",
        "Caption",
        "Question",
        "Short",
        "answer",
        "Input",
        "Label",
        "what",
        "is",
        "it",
    ]
    text = [" ".join(words[i:] + words[:i]) for i in range(len(words))]
    backend = Tokenizer(models.BPE())
    special = ["<|endoftext|>"]
    if kind == "llama":
        special = ["<unk>", "<s>", "</s>"]
        backend = Tokenizer(models.BPE(unk_token="<unk>"))
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
        backend.decoder = decoders.Metaspace(prepend_scheme="never")
        alphabet = list(":,.<>|/ ▁\n")
    else:
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        alphabet = [*":,.<>|/", "Ġ", "Ċ"]
    trainer = trainers.BpeTrainer(
        vocab_size=90, special_tokens=special, initial_alphabet=alphabet, min_frequency=1, show_progress=False
    )
    backend.train_from_iterator(text, trainer)
    names = {"bos_token": special[0], "eos_token": special[0], "unk_token": special[0]}
    if kind == "llama":
        names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False, **names)


def make_language_model(kind: str, vocabulary: int) -> Any:
    """MPT's embeddings have rows to spare, as the published ones have."""
    if kind == "llama":
        config = LlamaConfig(
            vocab_size=vocabulary, hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4,
            max_position_embeddings=256, initializer_range=0.3, bos_token_id=1, eos_token_id=2, tie_word_embeddings=False,
        )  # fmt: skip
        return LlamaForCausalLM(config)
    kind_of_model = NormedMptForCausalLM if kind == "mosaic" else MptForCausalLM
    config = MptConfig(
        d_model=32, n_heads=4, n_layers=4 if kind == "mpt" else 3, max_seq_len=256, vocab_size=vocabulary + 9,
        initializer_range=0.3, attn_config={"qk_ln": kind == "mosaic"},
    )  # fmt: skip
    model = kind_of_model(config)
    for module in model.modules():  # norms that do nothing would hide a wrong one
        if isinstance(module, torch.nn.LayerNorm):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    return model


def save_language_model(kind: str, model: Any, folder: Path) -> None:
    """As transformers saves it; MosaicGPT as its repository has it, a pickle of tensors and an older config.json."""
    if kind != "mosaic":
        model.save_pretrained(folder)
        return
    state = {}
    for key, value in model.state_dict().items():
        for new, old in OLDER.items():
            key = key.replace(new, old)
        state[key] = value.clone()
    del state["lm_head.weight"]
    torch.save(state, folder / "pytorch_model.bin")
    config = {
        "model_type": "mosaic_gpt", "architectures": ["MosaicGPT"], "alibi": True, "alibi_bias_max": 8,
        "attn_clip_qkv": None, "attn_qk_ln": True, "attn_impl": "torch", "attn_pdrop": 0, "d_model": model.config.d_model,
        "n_heads": model.config.n_heads, "n_layers": model.config.n_layers, "max_seq_len": model.config.max_seq_len,
        "vocab_size": model.config.vocab_size, "mlp_ratio": 4, "no_bias": True, "logit_scale": None, "prefix_lm": False,
        "low_precision_layernorm": True, "softmax_scale": None, "embedding_fraction": 1.0,
        "auto_map": {"AutoConfig": "configuration_mosaic_gpt.MosaicGPTConfig", "AutoModelForCausalLM": "x.MosaicGPT"},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))


def assemble(kind: str, clip: Any, language_model: Any, base: int) -> Any:
    """open_flamingo's model, put together as its own factory does: tokens of its own behind the base vocabulary."""
    head = language_model.get_output_embeddings()
    mean = head.weight.detach().mean(0)
    language_model.resize_token_embeddings(base + 3, mean_resizing=False)
    if kind == "llama":
        language_model.get_output_embeddings().weight.data[base:] = mean
    torch.nn.init.normal_(language_model.get_input_embeddings().weight, std=0.3)
    extend_instance(language_model, FlamingoLMMixin)
    language_model.set_decoder_layers_attr_name(LAYERS[kind])
    flamingo = Flamingo(SimpleNamespace(visual=_PatchTokens(clip.visual)), language_model, base, base + 1,
                        vis_dim=32, cross_attn_every_n_layers=INTERVALS[kind])  # fmt: skip
    for name, parameter in flamingo.named_parameters():
        if name.endswith("_gate"):
            torch.nn.init.constant_(parameter, 1.0)
        elif name.endswith("gated_cross_attn_layer.attn.to_out.weight"):
            torch.nn.init.normal_(parameter, std=0.3)
    return flamingo.eval().requires_grad_(False)


class _PatchTokens(torch.nn.Module):
    """The tower written out: (nothing, patch tokens as the last block leaves them)."""

    def __init__(self, tower: Any) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, pixels: torch.Tensor) -> tuple[None, torch.Tensor]:
        tower = self.tower
        x = tower.conv1(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([tower.class_embedding.expand(len(x), 1, -1), x], dim=1) + tower.positional_embedding
        return None, tower.transformer(tower.ln_pre(x))[:, 1:]


def pixels_of(paths: tuple[str, ...]) -> torch.Tensor:
    """[1, images, 1, 3, 32, 32]; images of 32 x 32 pixels are only normalised."""
    images = [torch.tensor(list(Image.open(p).convert("RGB").tobytes())).view(32, 32, 3) for p in paths]
    return ((torch.stack(images).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25)[None, :, None]
