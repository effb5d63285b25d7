"""Trains `tiny-clip`: an open_clip model, contrastively, on the image-caption pairs of a world's index split."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

IMAGE_SIZE = 32
CONTEXT_LENGTH = 24

Report = Callable[[int, int, dict[str, float]], None]


@dataclass(frozen=True)
class ClipRecipe:
    """Short on purpose: colours are told apart at once, shapes late, so neighbours are alike in colour first."""

    steps: int = 800
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup: int = 30
    seed: int = 0


@dataclass(frozen=True)
class Pair:
    """One image (its file's bytes) with its captions, and the scene that it shows."""

    image: bytes
    captions: tuple[str, ...]
    scene: str


def clip_config(vocab_size: int) -> dict[str, Any]:
    """open_clip's model configuration: 64-dimensional towers, under a million parameters together."""
    return {
        "model_cfg": {
            "embed_dim": 64,
            "vision_cfg": {"image_size": IMAGE_SIZE, "layers": 3, "width": 64, "head_width": 32, "patch_size": 8},
            "text_cfg": {
                "context_length": CONTEXT_LENGTH,
                "vocab_size": vocab_size,
                "width": 64,
                "heads": 2,
                "layers": 2,
                "hf_tokenizer_name": "tiny-clip",
                "pool_type": "eos",
                "pad_id": 0,
                "eos_id": 2,
                "tokenizer_kwargs": {"clean": "whitespace"},
            },
        },
        "preprocess_cfg": {
            "mean": [0.5, 0.5, 0.5],
            "std": [0.25, 0.25, 0.25],
            "resize_mode": "squash",
            "interpolation": "bicubic",
        },
    }


def train_clip(
    folder: Path, pairs: Sequence[Pair], recipe: ClipRecipe, device: str = "cpu", report: Report | None = None
) -> None:
    """Trains on `pairs` and saves model, configuration and tokenizer to `folder`.

    Each batch holds one image of every scene, so that no pair in it is a false negative.
    """
    import open_clip
    import torch
    import torch.nn.functional as F
    from safetensors.torch import save_file

    from tests.world.recipe.tokenizer import build_clip_tokenizer

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = build_clip_tokenizer()
    tokenizer.save_pretrained(folder)
    (folder / "open_clip_config.json").write_text(json.dumps(clip_config(len(tokenizer)), indent=2) + "\n")
    torch.manual_seed(recipe.seed)
    where = torch.device(device)
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}", load_weights=False)
    tokenize = open_clip.get_tokenizer(f"local-dir:{folder}")
    model = model.to(where).train()
    rng = np.random.default_rng([recipe.seed, 0xC11B])
    pixels = torch.stack([transform(Image.open(io.BytesIO(p.image)).convert("RGB")) for p in pairs])
    rows_of: dict[str, list[int]] = {}
    for row, pair in enumerate(pairs):
        rows_of.setdefault(pair.scene, []).append(row)
    optimiser = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    for step in range(recipe.steps):
        progress = step / recipe.steps
        rate = min(1.0, (step + 1) / recipe.warmup) * 0.5 * (1 + math.cos(math.pi * progress))
        for group in optimiser.param_groups:
            group["lr"] = recipe.learning_rate * rate
        rows = [int(rng.choice(members)) for members in rows_of.values()]
        texts = [str(rng.choice(pairs[row].captions)) for row in rows]
        image = F.normalize(model.encode_image(pixels[rows].to(where)), dim=-1)
        text = F.normalize(model.encode_text(tokenize(texts).to(where)), dim=-1)
        logits = model.logit_scale.exp() * image @ text.T
        target = torch.arange(len(rows), device=where)
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        if report is not None and (step % 20 == 0 or step == recipe.steps - 1):
            right = (logits.argmax(1) == target).float().mean().item()
            report(step + 1, recipe.steps, {"loss": loss.item(), "right": right})
    state = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
