"""A small captioner that can be fine-tuned: a vision transformer with a batch norm, and a GPT-2 that attends to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import GPT2Config, VisionEncoderDecoderConfig, VisionEncoderDecoderModel, ViTConfig

from icltool.components.models.shared.fine_tuned import save_fine_tuned
from icltool.contracts import (
    AnswerBatch,
    Augmentation,
    BeamSample,
    Example,
    GenerationOptions,
    Prompt,
    TargetScore,
)
from icltool.errors import DataError
from tests.components.models.tiny import trained_tokenizer

SIDE = 16


@dataclass(frozen=True)
class Reader:
    """A PixelReader."""

    size: int
    augmentation: Augmentation

    def __call__(self, reference: str, generator: Any | None = None, flip: bool = True) -> np.ndarray:
        try:
            image = Image.open(reference).convert("RGB")
        except OSError as error:
            raise DataError(f"image {reference} cannot be read", "restore it") from error
        if generator is not None:
            if self.augmentation.crop != "none":
                width, height = image.size
                share = float(generator.uniform(*self.augmentation.scale)) ** 0.5
                wide, high = int(width * share), int(height * share)
                left, top = int(generator.integers(width - wide + 1)), int(generator.integers(height - high + 1))
                image = image.crop((left, top, left + wide, top + high))
            if flip and self.augmentation.flip and generator.random() < 0.5:
                image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        resized = image.resize((self.size, self.size), Image.Resampling.BICUBIC)
        return np.asarray(resized, np.float32).transpose(2, 0, 1) / 127.5 - 1


class NormedPatches(torch.nn.Conv2d):
    """Patches with statistics of batches, as a ResNet has them."""

    def __init__(self, *sizes: int, **options: int) -> None:
        super().__init__(*sizes, **options)
        self.norm = torch.nn.BatchNorm2d(self.out_channels)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        actual: torch.Tensor = self.norm(super().forward(pixels))
        return actual


def network(vocabulary: int, dropout: float) -> Any:
    vision = ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, image_size=SIDE, patch_size=8,
        hidden_dropout_prob=dropout, initializer_range=0.2,
    )  # fmt: skip
    text = GPT2Config(
        vocab_size=vocabulary, n_positions=64, n_embd=16, n_layer=1, n_head=2, add_cross_attention=True, is_decoder=True,
        resid_pdrop=dropout, embd_pdrop=dropout, attn_pdrop=dropout, bos_token_id=0, eos_token_id=1, pad_token_id=2,
        initializer_range=0.2,
    )  # fmt: skip
    model = VisionEncoderDecoderModel(VisionEncoderDecoderConfig.from_encoder_decoder_configs(vision, text))
    patches = model.encoder.embeddings.patch_embeddings
    patches.projection = NormedPatches(3, 16, 8, stride=8)
    return model


class TinyCaptioner:
    """Implements Model and SupportsFineTuning."""

    name = "tiny-captioner"

    def __init__(self, seed: int = 0, dropout: float = 0.1, recipe: Mapping[str, Any] | None = None) -> None:
        self.tokenizer = trained_tokenizer({"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"})
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.network = network(len(self.tokenizer), dropout).eval().requires_grad_(False)
        self.recipe = dict(recipe or {})
        self.device = torch.device("cpu")

    def fingerprint(self) -> str:
        return "tiny"

    def prompt(self, task: str, demonstrations: Sequence[Example], query: Example) -> Prompt:
        question = f" {query.style or query.question}:" if query.style or query.question else ""
        return Prompt(f"<s>{question}", (query.image,), f"{query.label}</s>")

    def plain_prompt(self, text: str, image: str, target: str) -> Prompt:
        return Prompt(f"<s>{text}", (image,), f"{target}</s>")

    def clean(self, task: str, text: str) -> str:
        return text.strip()

    def score(self, prompts: Sequence[Prompt], batch_size: int, features: Any = None) -> list[TargetScore]:
        scores = []
        for prompt in prompts:
            with torch.no_grad():
                batch = self.fine_tuning_batch([prompt], self._pixels([prompt]))
                log_probs = torch.log_softmax(self.answer_logits(batch), -1).gather(1, batch.tokens[:, None])
            scores.append(TargetScore(float(log_probs.sum()), len(batch.tokens)))
        return scores

    def generate(
        self, prompts: Sequence[Prompt], options: GenerationOptions, batch_size: int, features: Any = None
    ) -> list[str]:
        actual: list[str] = []
        for low in range(0, len(prompts), batch_size):
            part = prompts[low : low + batch_size]
            actual += [beams[0].text for beams in self.sample_beams(part, self._pixels(part), options)]
        return actual

    def fine_tuning_recipe(self, task: str) -> Mapping[str, Any]:
        return self.recipe

    def fine_tuning_parts(self) -> Mapping[str, Sequence[str]]:
        return {
            "vision": ("encoder.", "!encoder.layernorm."),
            "language": ("decoder.", "enc_to_dec_proj."),
            "embeddings": ("decoder.transformer.wte.", "decoder.transformer.wpe."),
        }

    def layer_ids(self) -> Mapping[str, int]:
        actual = {}
        for name, _ in self.network.named_parameters():
            if name.startswith("encoder.embeddings."):
                actual[name] = 0
            elif name.startswith("encoder."):
                parts = [part for part in name.split(".") if part.isdigit()]
                actual[name] = 1 + int(parts[0]) if parts else 3
        return actual

    def resize_images(self, size: int) -> None:
        raise NotImplementedError

    def pixel_reader(self, augmentation: Augmentation) -> Reader:
        return Reader(SIDE, augmentation)

    def fine_tuning_batch(
        self, prompts: Sequence[Prompt], pixels: Any, max_target_tokens: int | None = None, answers: Any = None,
        images: Sequence[int] | None = None,
    ) -> AnswerBatch:  # fmt: skip
        texts = self._ids([prompt.text for prompt in prompts])
        targets = answers if answers is not None else self._ids([prompt.target for prompt in prompts])
        targets = [list(target)[:max_target_tokens] for target in targets]
        whole = [[*text, *target] for text, target in zip(texts, targets, strict=True)]
        ids = torch.full((len(whole), max(map(len, whole))), 2)
        for row, own in enumerate(whole):
            ids[row, : len(own)] = torch.tensor(own)
        places = [(r, len(t) - 1 + k) for r, t in enumerate(texts) for k in range(len(targets[r]))]
        rows, columns = torch.tensor(places).T.to(pixels.device)
        tokens = torch.tensor([token for target in targets for token in target], device=pixels.device)
        selected = pixels if images is None else pixels[list(images)]
        inputs = {"pixel_values": selected, "decoder_input_ids": ids.to(pixels.device)}
        return AnswerBatch(inputs, rows, columns, tokens, torch.tensor([len(t) - 1 for t in texts]))

    def answer_logits(self, batch: AnswerBatch) -> torch.Tensor:
        logits: torch.Tensor = self.network(**batch.inputs).logits
        return logits[batch.rows, batch.columns]

    def sample_beams(
        self, prompts: Sequence[Prompt], pixels: Any, options: GenerationOptions
    ) -> list[list[BeamSample]]:
        texts = self._ids([prompt.text for prompt in prompts])
        actual: list[list[BeamSample]] = [[] for _ in texts]
        for length in sorted({len(text) for text in texts}):  # those that need no padding together
            places = [place for place, text in enumerate(texts) if len(text) == length]
            with torch.no_grad():
                output = self.network.generate(
                    pixel_values=torch.stack([pixels[place] for place in places]),
                    decoder_input_ids=torch.tensor([texts[place] for place in places], device=self.device),
                    num_beams=options.num_beams, num_return_sequences=options.num_beams, do_sample=False,
                    max_new_tokens=options.max_new_tokens, length_penalty=options.length_penalty,
                    return_dict_in_generate=True, output_scores=True, bos_token_id=0, eos_token_id=1, pad_token_id=2,
                )  # fmt: skip
            rows = output.sequences.tolist()
            scores = output.sequences_scores.tolist() if options.num_beams > 1 else [0.0] * len(rows)
            for row, (ids, score) in enumerate(zip(rows, scores, strict=True)):
                answer = ids[length:]
                answer = answer[: answer.index(1) + 1] if 1 in answer else answer
                text = self.tokenizer.decode(answer, skip_special_tokens=True)
                actual[places[row // options.num_beams]].append(BeamSample(tuple(answer), text, score))
        return actual

    def save_fine_tuned(self, file: Path, names: Sequence[str], about: Mapping[str, Any]) -> None:
        save_fine_tuned(file, self.network, names, self.name, "", "f00d", {}, about)

    def export(self, folder: Path) -> None:
        raise NotImplementedError

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        return self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]

    def _pixels(self, prompts: Sequence[Prompt]) -> torch.Tensor:
        reader = self.pixel_reader(Augmentation())
        return torch.from_numpy(np.stack([reader(prompt.images[0]) for prompt in prompts]))
