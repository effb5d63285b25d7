"""A tiny OFA with a vocabulary, in the layout of the public repositories, and what its answers must equal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from icltool_ofa.model import OFAModel, OFAOptions
from icltool_ofa.tokenizer import BINS, CODES
from tiny_ofa import RECORD, build
from tokenizers import ByteLevelBPETokenizer
from torchvision import transforms

from icltool import GenerationOptions, Prompt, read_image
from icltool.testing import PlainTwin, torch_twin_apart

STYLES = ("Sweet", "Sour (Bitter)", "Wild")
BOS, PAD, EOS = 0, 1, 2
SIZE = 32
TEXTS = (
    " what does the image describe? reply in personality sweet.",
    " red bar green block blue frame yellow bar",
    " clue: what is it inference: does the image describe",
)


def write_vocabulary(folder: Path) -> int:
    """vocab.json and merges.txt; how many pieces there are, codes and bins included."""
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(TEXTS * 3, vocab_size=340, special_tokens=["<s>", "<pad>", "</s>", "<unk>"])
    trained.save_model(str(folder))
    return int(trained.get_vocab_size()) + CODES + BINS


def write_folder(folder: Path, seed: int = 0, **changes: Any) -> Path:
    """A whole folder: config.json, pytorch_model.bin, vocab.json, merges.txt."""
    folder.mkdir(parents=True, exist_ok=True)
    own = {"vocab_size": write_vocabulary(folder), "max_position_embeddings": 256, **changes}
    (folder / "config.json").write_text(json.dumps({**RECORD["config"], **own, "model_type": "ofa"}))
    torch.save(build(seed, **own).state_dict(), folder / "pytorch_model.bin")
    return folder


def load(path: Path, **options: Any) -> OFAModel:
    """As the registry does it; images of 32 pixels, unless fine-tuned weights say otherwise."""
    return OFAModel(OFAOptions(name="ofa-tiny", hub_id="OFA-Sys/ofa-tiny", path=str(path), device="cpu", **options))


class PublishedTwin(PlainTwin):
    """A plain twin that searches as fairseq does: the end of a text counts for each, also for the longest."""

    def answer(self, prompt: Prompt, options: GenerationOptions) -> str:
        alive: list[tuple[float, list[int]]] = [(0.0, [])]
        ended: list[tuple[float, list[int]]] = []
        while len(ended) < options.num_beams:
            reached = [pair for total, ids in alive for pair in self._following(prompt, total, ids, options)]
            best = sorted(reached, key=lambda pair: -pair[0])[: 2 * options.num_beams]
            ended += [pair for pair in best[: options.num_beams] if pair[1][-1] == EOS]
            alive = [pair for pair in best if pair[1][-1] != EOS][: options.num_beams]
        penalty = options.length_penalty if options.num_beams > 1 else 0.0
        return self.decode(max(ended, key=lambda pair: pair[0] / len(pair[1]) ** penalty)[1])

    def _following(
        self, prompt: Prompt, total: float, ids: list[int], options: GenerationOptions
    ) -> list[tuple[float, list[int]]]:
        row = self.forward(prompt, prompt.text, ids)[1][-1]
        if len(ids) == options.max_new_tokens:
            return [(total + float(row[EOS]), [*ids, EOS])]
        barred = (
            {PAD} | ({EOS} if len(ids) < options.min_new_tokens else set()) | _repeating(ids, options.no_repeat_ngram)
        )
        order = [int(token) for token in (-row).argsort()[:64] if int(token) not in barred]
        return [(total + float(row[token]), [*ids, token]) for token in order]


def _repeating(ids: Sequence[int], length: int) -> set[int]:
    """The tokens that would end a run of `length` tokens that is there already."""
    whole = [BOS, *ids]
    runs = [tuple(whole[i : i + length]) for i in range(len(whole) - length + 1)] if length else []
    return {run[-1] for run in runs if run[:-1] == tuple(whole[len(whole) - length + 1 :])}


def twin_of(model: OFAModel) -> PublishedTwin:
    """Reads text by the tokenizer's own special tokens, and images as torchvision does."""
    side = model.settings.image_size
    read = transforms.Compose(
        [
            transforms.Resize(model.settings.shorter, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(side),
            transforms.ToTensor(),
            transforms.Normalize([0.5] * 3, [0.5] * 3),
        ]
    )

    def inputs(prompt: Prompt) -> dict[str, Any]:
        ids = model.tokenizer(prompt.text.removeprefix("<s>").removesuffix("</s>"), return_tensors="pt")["input_ids"]
        return {"input_ids": ids, "patch_images": read(read_image(prompt.images[0]))[None]}

    plain = torch_twin_apart(model.network, model.tokenizer, inputs, [EOS], BOS)
    return PublishedTwin(plain.forward, plain.decode, plain.ends, plain.suppressed)
