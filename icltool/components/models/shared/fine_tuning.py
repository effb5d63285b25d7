"""SupportsFineTuning for captioners: adapters of transformers models with a vision transformer."""

from __future__ import annotations

import contextlib
import json
import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from icltool.components.models.shared.augmentation import ImageReader
from icltool.components.models.shared.captioner import Captioner, CaptionerOptions
from icltool.components.models.shared.captioner_format import clean_caption
from icltool.components.models.shared.fine_tuned import apply_fine_tuned, save_fine_tuned, tensor_names
from icltool.components.models.shared.scoring import beam_options
from icltool.components.models.shared.weights import Weights, packaged_weights, weights_hash
from icltool.contracts import AnswerBatch, Augmentation, BeamSample, GenerationOptions, Prompt, read_whole
from icltool.errors import ConfigError, StoreError

#: A caption that a question quotes (image-text matching).
QUOTED = re.compile(r'(?<=" ).*(?= ")', re.DOTALL)
#: The file that describes an exported model in its folder, and its schema.
CARD, SCHEMA, VERSION = "icltool.json", "icltool.model", 1
#: What the published fine-tunings of the families have in common.
COMMON_RECIPE: Mapping[str, object] = {
    "lr": 1e-5,
    "min_lr": 0.0,
    "weight_decay": 0.05,
    "betas": (0.9, 0.999),
    "clip": 0.0,
    "epochs": 5,
    "crop": "resized",
    "crop_scale": (0.5, 1.0),
    "flip": True,
    "label_smoothing": 0.0,
}


class TunableCaptioner(Captioner):
    """A captioner whose weights can be fine-tuned, and which reads fine-tuned weights."""

    def __init__(self, options: CaptionerOptions) -> None:
        super().__init__(options)
        weights = self.weights
        own = options.packaged is not None and Path(weights.source) == packaged_weights(options.packaged)
        #: The base that files of fine-tuned weights record; weights that ship with icltool are found by the model's name.
        self._base = "" if own else str(Path(self.source).resolve()) if Path(self.source).is_dir() else self.source
        self.network = self.model
        known = (
            weights.fine_tuned.adapter if weights.fine_tuned is not None else read_card(Path(weights.source), self.name)
        )
        if (trained := known.get("image_size")) is not None:
            self.resize_images(int(trained))
        if weights.fine_tuned is not None:
            apply_fine_tuned(self.network, weights.fine_tuned)
        if options.image_size is not None:
            self.resize_images(options.image_size)

    @abstractmethod
    def published_search(self, task: str) -> Mapping[str, float]:
        """The search options of the published runs for this task; see HasGenerationDefaults."""

    def generation_defaults(self, task: str) -> Mapping[str, Any]:
        """See HasGenerationDefaults. Weights fine-tuned for the task use the search by which the best of them were chosen."""
        return {**self.published_search(task), **trained_search(self.weights, task)}

    @abstractmethod
    def fine_tuning_parts(self) -> Mapping[str, Sequence[str]]:
        """See SupportsFineTuning."""

    def layer_ids(self) -> Mapping[str, int]:
        """See SupportsFineTuning: the layers are the vision transformer's."""
        count = len(self.model.vision_model.encoder.layers)
        ids = {}
        for name, _ in self.network.named_parameters():
            if name.startswith("vision_model.embeddings."):
                ids[name] = 0
            elif name.startswith("vision_model.encoder.layers."):
                ids[name] = 1 + int(name.split(".")[3])
            elif name.startswith("vision_model."):
                ids[name] = count + 1
        return ids

    def resize_images(self, size: int) -> None:
        """See SupportsFineTuning."""
        patch = int(self.model.config.vision_config.patch_size)
        if size < patch or size % patch:
            near = max(1, round(size / patch)) * patch
            raise ConfigError(
                f"{self.name} cannot read images of {size} x {size} pixels: its patches are {patch} x {patch}",
                f"give a multiple of {patch}, such as {near}",
            )
        embeddings = self.model.vision_model.embeddings
        if size != self.image_size:
            old = embeddings.position_embedding
            new = resized_positions(old.detach(), size // patch)
            embeddings.position_embedding = torch.nn.Parameter(new, requires_grad=old.requires_grad)
            embeddings.image_size = size
            embeddings.num_patches, embeddings.num_positions = new.shape[1] - 1, new.shape[1]
            for config in (self.model.config.vision_config, self.model.vision_model.config, embeddings.config):
                config.image_size = size
        self.processor.image_processor.size = {"height": size, "width": size}

    def pixel_reader(self, augmentation: Augmentation) -> ImageReader:
        """See SupportsFineTuning. In evaluation images are resized to the square, as the processor does it."""
        images = self.processor.image_processor
        mean, std = (tuple(float(x) for x in values) for values in (images.image_mean, images.image_std))
        return ImageReader(self.image_size, mean, std, augmentation)  # type: ignore[arg-type]

    def plain_prompt(self, text: str, image: str, target: str) -> Prompt:
        """See SupportsFineTuning."""
        return self.format.plain(QUOTED.sub(lambda match: clean_caption(match[0]), text), image, target)

    def fine_tuning_batch(
        self,
        prompts: Sequence[Prompt],
        pixels: torch.Tensor,
        max_target_tokens: int | None = None,
        answers: Sequence[Sequence[int]] | None = None,
        images: Sequence[int] | None = None,
    ) -> AnswerBatch:
        """See SupportsFineTuning. `answer_logits` computes an image's states once for all prompts that read it."""
        if any(len(p.images) != 1 for p in prompts):
            raise ValueError("fine-tuning needs prompts with exactly one image each")
        check_images(len(prompts), len(pixels), images)
        tokens = self._tokens(prompts, with_target=True, answers=answers, most=max_target_tokens)
        inputs = {"pixel_values": pixels, **self._image_inputs(prompts)}
        if images is not None:
            inputs["images"] = torch.tensor(images, dtype=torch.long, device=pixels.device)
        return self._answers(tokens, inputs, "right")

    def sample_beams(
        self, prompts: Sequence[Prompt], pixels: torch.Tensor, options: GenerationOptions
    ) -> list[list[BeamSample]]:
        """See SupportsFineTuning."""
        tokens = self._tokens(prompts, with_target=False, reserve=options.max_new_tokens)
        search = {
            **beam_options(self._pad, options),
            "num_return_sequences": options.num_beams,
            "return_dict_in_generate": True,
            ("output_logits" if options.num_beams == 1 else "output_scores"): True,  # else it returns no sums
        }
        with torch.no_grad(), evaluating(self.network):
            inputs = {"pixel_values": pixels, **self._image_inputs(prompts)}
            output = self._search(tokens, inputs, search)
        ids = [until_end(row, self.end_tokens) for row in output.sequences.tolist()]
        greedy = options.num_beams == 1
        scores = _greedy_scores(ids, output.logits) if greedy else output.sequences_scores.tolist()
        texts = self.tokenizer.batch_decode(output.sequences, skip_special_tokens=True)
        beams = [BeamSample(tuple(i), text, float(s)) for i, text, s in zip(ids, texts, scores, strict=True)]
        return [beams[start : start + options.num_beams] for start in range(0, len(beams), options.num_beams)]

    def save_fine_tuned(self, file: Path, names: Sequence[str], about: Mapping[str, Any]) -> None:
        """See SupportsFineTuning. Also writes the tensors that an earlier fine-tuning changed, and resized position
        embeddings."""
        earlier = set() if self.weights.fine_tuned is None else tensor_names(self.weights.fine_tuned.file)
        saved = {*names, *earlier, "vision_model.embeddings.position_embedding"}
        base_hash = weights_hash(self.source)
        save_fine_tuned(file, self.network, sorted(saved), self.name, self._base, base_hash, self._adapter(), about)

    def export(self, folder: Path) -> None:
        """See SupportsFineTuning."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.model.save_pretrained(folder)
            self.processor.save_pretrained(folder)
            about = {} if self.weights.fine_tuned is None else dict(self.weights.fine_tuned.about)
            write_card(folder, self.name, self._adapter(), about)
        except OSError as error:
            reason = error.strerror or error
            raise StoreError(
                f"{folder} cannot be written: {reason}", "free some space, or choose another folder"
            ) from error

    def _adapter(self) -> dict[str, Any]:
        return {"image_size": self.image_size}


def check_images(prompts: int, pixels: int, images: Sequence[int] | None) -> None:
    """Raises ValueError if prompts and images do not match; see SupportsFineTuning.fine_tuning_batch."""
    if images is None and pixels != prompts:
        raise ValueError(f"{prompts} prompts of one image each need as many images, not {pixels}")
    if images is not None and (len(images) != prompts or not all(0 <= place < pixels for place in images)):
        raise ValueError(f"`images` must name one of {pixels} images for each of {prompts} prompts: {images}")


def resized_positions(embeddings: torch.Tensor, side: int) -> torch.Tensor:
    """Position embeddings [1, 1 + n * n, width] of a class token and n x n patches, bicubically resized to side x side."""
    first, patches = embeddings[:, :1], embeddings[:, 1:]
    old = round(patches.shape[1] ** 0.5)
    grid = patches.reshape(1, old, old, -1).permute(0, 3, 1, 2).float()
    grid = torch.nn.functional.interpolate(grid, size=(side, side), mode="bicubic", align_corners=False)
    resized = grid.permute(0, 2, 3, 1).reshape(1, side * side, -1).to(embeddings.dtype)
    return torch.cat([first, resized], dim=1).contiguous()


@contextmanager
def evaluating(network: torch.nn.Module) -> Iterator[None]:
    """A context in which the module and all its parts are in evaluation mode; each returns to its own mode afterwards."""
    modes = [(part, part.training) for part in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def until_end(ids: Sequence[int], ends: Sequence[int]) -> list[int]:
    """The ids up to and including the first that ends an answer."""
    for k, token in enumerate(ids):
        if token in ends:
            return list(ids[: k + 1])
    return list(ids)


def read_card(folder: Path, name: str) -> Mapping[str, Any]:
    """What the adapter needs to read an exported model; {} for a folder without a card. Raises ConfigError for a damaged card,
    or one of another model."""
    file = folder / CARD
    if not file.is_file():
        return {}
    try:
        card = json.loads(read_whole(file))
        schema, version, model, adapter = (card[key] for key in ("schema", "version", "model", "adapter"))
        about_size = dict(adapter).get("image_size")
        if schema != SCHEMA or version != VERSION or not isinstance(about_size, (int, type(None))):
            raise ValueError(f"schema {schema!r}, version {version!r}")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(f"{file} is damaged, or of another version: {error}", "export the model again") from error
    if model != name:
        raise ConfigError(f"{folder} contains {model}, not {name}", f"use --model {model}")
    return dict(adapter)


def trained_search(weights: Weights, task: str) -> dict[str, Any]:
    """The search options used in the training of these weights, if it was for this task: fields of GenerationOptions. {} for
    weights without such a record."""
    about: Any = {}
    card = Path(weights.source) / CARD
    if weights.fine_tuned is not None:
        about = weights.fine_tuned.about
    elif card.is_file():
        with contextlib.suppress(OSError, ValueError):
            about = json.loads(read_whole(card)).get("about", {})
    options = about.get("generation") if isinstance(about, Mapping) and about.get("task") == task else None
    known = {field.name for field in fields(GenerationOptions)}
    return {name: value for name, value in options.items() if name in known} if isinstance(options, Mapping) else {}


def write_card(folder: Path, model: str, adapter: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """The card of an exported model."""
    card = {"schema": SCHEMA, "version": VERSION, "model": model, "adapter": dict(adapter), "about": dict(about)}
    (folder / CARD).write_text(json.dumps(card, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _greedy_scores(ids: Sequence[Sequence[int]], logits: Sequence[torch.Tensor]) -> list[float]:
    """Summed log-probabilities of greedy answers, from the logits [B, vocabulary] of each step."""
    scores = []
    for row, answer in enumerate(ids):
        picked = [torch.log_softmax(logits[k][row].double(), -1)[token] for k, token in enumerate(answer)]
        scores.append(float(sum(picked)))
    return scores
