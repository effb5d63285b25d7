"""Fine-tuning of OFA (`icltool.SupportsFineTuning`)."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from icltool import (
    AnswerBatch,
    Augmentation,
    BeamSample,
    GenerationOptions,
    ImageReader,
    Prompt,
    StoreError,
    Weights,
    evaluating,
    save_fine_tuned,
    tensor_names,
    weights_hash,
    write_card,
)
from icltool_ofa.prompts import OFAFormat, clean_caption
from icltool_ofa.settings import Settings, check_size

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from icltool_ofa.beam import Beams
    from icltool_ofa.network import OFAForConditionalGeneration

#: The published fine-tuning on captions in styles.
_RECIPE: Mapping[str, object] = {
    "batch_size": 4,
    "epochs": 3,
    "lr": 5e-5,
    "min_lr": 1e-7,
    "schedule": "polynomial",
    "warmup": 0.01,
    "weight_decay": 0.001,
    "label_smoothing": 0.1,
    "max_target_tokens": 16,
    "crop": "random",
}
#: A caption that a question quotes (image-text matching).
_QUOTED = re.compile(r'(?<=" ).*(?= ")', re.DOTALL)
#: Weights that take no part in text; see OFADecoder.
_IMAGE_GENERATION = (
    "decoder.embed_image_positions.",
    "decoder.image_pos_ln.",
    "decoder.code_layernorm_embedding.",
    "decoder.image_rel_pos_table_list.",
)


@dataclass(frozen=True)
class Tokens:
    """Ids of the encoder's input and of the decoder's target, including the end."""

    text: list[int]
    target: list[int]


class FineTuning:
    """The part of the adapter that training uses; `OFAModel` is the whole of it."""

    name: str
    device: torch.device
    weights: Weights
    source: str
    settings: Settings
    network: OFAForConditionalGeneration
    tokenizer: PreTrainedTokenizerFast
    format: OFAFormat

    @abstractmethod
    def _tokens(
        self,
        prompts: Sequence[Prompt],
        with_target: bool,
        answers: Sequence[Sequence[int]] | None = None,
        most: int | None = None,
    ) -> list[Tokens]:
        """Ids of texts and targets."""

    @abstractmethod
    def _answers(self, tokens: Sequence[Tokens], pixels: torch.Tensor) -> AnswerBatch:
        """Ids as one batch."""

    @abstractmethod
    def _search(self, tokens: Sequence[Tokens], pixels: torch.Tensor, options: GenerationOptions, count: int) -> Beams:
        """The best answers."""

    def fine_tuning_recipe(self, task: str) -> Mapping[str, object]:
        """See SupportsFineTuning. Images keep the size that the model reads (224 unless it was told otherwise), and what is cut
        out of them its share of the shorter side: see `pixel_reader`."""
        longest = 30 if task in ("inference", "inference-choice") else _RECIPE["max_target_tokens"]
        return {**_RECIPE, "max_target_tokens": longest}

    def fine_tuning_parts(self) -> Mapping[str, Sequence[str]]:
        """See SupportsFineTuning. `embeddings` are those of tokens, including the decoder's output; `_image_generation` is
        the part that text never uses."""
        names = [name for name, _ in self.network.named_parameters()]
        embeddings = ("encoder.embed_tokens.", "decoder.output_projection.")
        return {
            "resnet": ("encoder.embed_images.",),
            "encoder": ("encoder.", "!encoder.embed_images.", "!encoder.embed_tokens."),
            "decoder": ("decoder.",),
            "embeddings": tuple(p for p in embeddings if any(name.startswith(p) for name in names)),
            "_image_generation": tuple(p for p in _IMAGE_GENERATION if any(name.startswith(p) for name in names)),
        }

    def layer_ids(self) -> Mapping[str, int]:
        """See SupportsFineTuning: the published runs use one learning rate."""
        return {}

    def resize_images(self, size: int) -> None:
        """See SupportsFineTuning. There are positions enough for any size up to 16 * image_bucket_size pixels; nothing is
        resized in the network."""
        check_size(size, self.network.config.image_bucket_size)
        self.settings = self.settings.resized(size)

    def pixel_reader(self, augmentation: Augmentation) -> ImageReader:
        """See SupportsFineTuning. The shorter side is resized as in evaluation (256 pixels for images of 224, in that relation
        for others) unless the augmentation tells another length."""
        own = self.settings
        requested = augmentation.shorter
        shorter = own.shorter if requested is None else max(requested, own.image_size)
        varied = replace(augmentation, shorter=shorter)
        return ImageReader(own.image_size, own.image_mean, own.image_std, varied, own.fit, own.shorter)

    def plain_prompt(self, text: str, image: str, target: str) -> Prompt:
        """See SupportsFineTuning."""
        lower = self.settings.lower_case
        return self.format.plain(_QUOTED.sub(lambda match: clean_caption(match[0], lower), text), image, target)

    def fine_tuning_batch(
        self,
        prompts: Sequence[Prompt],
        pixels: torch.Tensor,
        max_target_tokens: int | None = None,
        answers: Sequence[Sequence[int]] | None = None,
        images: Sequence[int] | None = None,
    ) -> AnswerBatch:
        """See SupportsFineTuning. The encoder reads image and text together: with `images` once for each such pair."""
        fits = len(pixels) == len(prompts) if images is None else len(images) == len(prompts)
        if not fits or not all(0 <= place < len(pixels) for place in images or ()):
            named = len(pixels) if images is None else f"{list(images)} of {len(pixels)}"
            raise ValueError(f"{len(prompts)} prompts of one image each need as many images, not {named}")
        tokens = self._tokens(prompts, True, answers, max_target_tokens)
        batch = self._answers(tokens, pixels)
        if images is None:
            return batch
        pairs: dict[tuple[int, ...], int] = {}
        rows = [pairs.setdefault((place, *t.text), len(pairs)) for place, t in zip(images, tokens, strict=True)]
        firsts = torch.tensor([rows.index(pair) for pair in range(len(pairs))], device=self.device)
        inputs = {**batch.inputs, "shared": torch.tensor(rows, device=self.device)}
        inputs |= {name: inputs[name][firsts] for name in ("input_ids", "attention_mask")}
        inputs["patch_images"] = pixels[[place for place, *_ in pairs]]
        return replace(batch, inputs=inputs)

    def sample_beams(
        self, prompts: Sequence[Prompt], pixels: torch.Tensor, options: GenerationOptions
    ) -> list[list[BeamSample]]:
        """See SupportsFineTuning. Each beam ends with the end of the text."""
        with torch.no_grad(), evaluating(self.network):
            best = self._search(self._tokens(prompts, False), pixels, options, options.num_beams)
        pad = self.network.config.pad_token_id
        samples = []
        for beams, scores in zip(best.tokens.tolist(), best.scores.tolist(), strict=True):
            texts = self.tokenizer.batch_decode(beams, skip_special_tokens=True)
            ids = [tuple(token for token in beam if token != pad) for beam in beams]
            samples.append([BeamSample(*one) for one in zip(ids, texts, scores, strict=True)])
        return samples

    def save_fine_tuned(self, file: Path, names: Sequence[str], about: Mapping[str, Any]) -> None:
        """See SupportsFineTuning. Also writes the tensors that an earlier fine-tuning changed."""
        earlier = set() if self.weights.fine_tuned is None else tensor_names(self.weights.fine_tuned.file)
        base_hash = weights_hash(self.source)
        base = self.source
        if Path(base).is_dir():
            place = Path(base).resolve()
            base = "" if Path(__file__).resolve().parent in place.parents else str(place)
        saved = sorted({*names, *earlier})
        save_fine_tuned(file, self.network, saved, self.name, base, base_hash, self.settings.adapter(), about)

    def export(self, folder: Path) -> None:
        """See SupportsFineTuning."""
        about = {} if self.weights.fine_tuned is None else dict(self.weights.fine_tuned.about)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.network.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)
            write_card(folder, self.name, self.settings.adapter(), about)
        except OSError as error:
            reason = error.strerror or error
            raise StoreError(
                f"{folder} cannot be written: {reason}", "free some space, or choose another folder"
            ) from error
