"""The adapter: OFA as an `icltool.Model` whose weights can be fine-tuned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from pydantic import Field

from icltool import (
    Adapter,
    AnswerBatch,
    Augmentation,
    ConfigError,
    DataError,
    Features,
    GenerationOptions,
    LoadOptions,
    Prompt,
    TargetScore,
    apply_fine_tuned,
    batches_by_length,
    fingerprint,
    in_batches,
    padded_rows,
    read_card,
    target_scores,
    trained_search,
)
from icltool_ofa.beam import Beams, beam_search
from icltool_ofa.fine_tuning import FineTuning, Tokens
from icltool_ofa.folders import find_model, folder_of, read_folder
from icltool_ofa.prompts import OFAFormat
from icltool_ofa.settings import SettingsOptions, settled

#: How the published captions are searched for.
_SEARCH: Mapping[str, float] = {
    "num_beams": 5,
    "max_new_tokens": 16,
    "min_new_tokens": 1,
    "no_repeat_ngram": 3,
    "length_penalty": 1.0,
}


class OFAOptions(LoadOptions, SettingsOptions):
    """Settings that are not set are those with which fine-tuned weights were trained."""

    hub_id: str | None = Field(None, description="OWNER/NAME of the published weights")
    packaged: str | None = Field(None, description="name of weights that are part of the plugin")
    on_hub: bool = Field(True, description="hub_id is on the Hugging Face hub; false: on ModelScope")


class OFAModel(Adapter, FineTuning):
    """An encoder reads one image and a prompt, a decoder writes the answer. Demonstrations are text only.

    What the encoder reads stands between `<s>` and `</s>`, a target ends with `</s>`, the decoder begins with `<s>`.
    """

    images_per_prompt = 1
    target_apart = True

    options_model = OFAOptions
    format: OFAFormat

    def __init__(self, options: OFAOptions) -> None:
        """Loads the network and its vocabulary; for their location see README.md.

        Raises ConfigError or DataError if files are missing or do not fit, or for a wrong option.
        """
        name = options.name
        if options.attention not in (None, "sdpa"):
            raise ConfigError(f"{name} has no attention implementation {options.attention!r}", "leave out --attention")
        self.name, self.device, self.precision = name, options.target(), options.precision()
        self.weights = find_model(name, options.packaged, options.hub_id, options.path, options.on_hub)
        self.source = self.weights.source
        folder = folder_of(self.weights)
        fine_tuned = self.weights.fine_tuned
        known = read_card(folder, name) if fine_tuned is None else fine_tuned.adapter
        self.network, self.tokenizer = read_folder(folder, getattr(torch, self.precision))
        chosen = options.model_dump(include=set(SettingsOptions.model_fields))
        self.settings = settled(known, chosen, self.network.config.image_bucket_size)
        self.format = self.settings.format()
        #: All but the batch norms', which are in float32 always.
        self._weights_of_one_kind = [
            parameter
            for module in self.network.modules()
            if not isinstance(module, torch.nn.BatchNorm2d)
            for parameter in module.parameters(recurse=False)
        ]
        if fine_tuned is not None:
            apply_fine_tuned(self.network, fine_tuned)
        try:
            self.network.requires_grad_(False).to(self.device)
        except torch.OutOfMemoryError as error:
            raise ConfigError(
                f"{name} does not fit into the memory of {self.device}", "use --dtype bfloat16"
            ) from error

    @property
    def styles(self) -> tuple[str, ...]:
        """The styles that the model knows; () if none."""
        return self.settings.styles

    def fingerprint(self) -> str:
        fine_tuned = "" if self.weights.fine_tuned is None else self.weights.fine_tuned.digest
        return fingerprint(self.source, self.precision, repr(self.settings), fine_tuned)

    def generation_defaults(self, task: str) -> Mapping[str, Any]:
        """See HasGenerationDefaults. The score of an answer is its mean log-probability, including the end. Weights
        fine-tuned for the task use the search by which the best of them were chosen."""
        published: Mapping[str, float] = _SEARCH if task in ("caption", "style", "inference") else {}
        longer = {"max_new_tokens": 30} if task == "inference" else {}
        return {**published, **longer, **trained_search(self.weights, task)}

    def token_counts(self, prompts: Sequence[Prompt]) -> list[int]:
        """See CountsTokens. The image's positions are not counted."""
        counted = {
            scored: iter(self._tokens([p for p in prompts if bool(p.target) is scored], scored))
            for scored in (True, False)
        }
        each = (next(counted[bool(prompt.target)]) for prompt in prompts)
        return [len(tokens.text) + len(tokens.target) for tokens in each]

    @torch.inference_mode()
    def score(self, prompts: Sequence[Prompt], batch_size: int, features: Features = None) -> list[TargetScore]:
        """See Model.score. The end of the text is a token of the target."""
        tokens = self._tokens(prompts, with_target=True)

        def compute(batch: Sequence[int]) -> list[TargetScore]:
            chosen = [tokens[i] for i in batch]
            logits = self.answer_logits(self._answers(chosen, self._pixels([prompts[i] for i in batch])))
            return target_scores(logits, [t.target for t in chosen])

        return in_batches(batches_by_length([len(t.text) + len(t.target) for t in tokens], batch_size), compute)

    @torch.inference_mode()
    def generate(
        self, prompts: Sequence[Prompt], options: GenerationOptions, batch_size: int, features: Features = None
    ) -> list[str]:
        """See Model.generate. At most `max_new_tokens` tokens and the end, whose log-probability counts, as in the published
        search (see `icltool_ofa.beam`). Raises ConfigError for a repetition penalty, which that search lacks."""
        tokens = self._tokens(prompts, with_target=False)

        def compute(batch: Sequence[int]) -> list[str]:
            pixels = self._pixels([prompts[i] for i in batch])
            best = self._search([tokens[i] for i in batch], pixels, options, 1).tokens[:, 0]
            return list(self.tokenizer.batch_decode(best, skip_special_tokens=True))

        return in_batches(batches_by_length([len(t.text) for t in tokens], batch_size), compute)

    def answer_logits(self, batch: AnswerBatch) -> torch.Tensor:
        """See SupportsFineTuning."""
        read = dict(batch.inputs)
        decoder = {name: read.pop(name) for name in list(read) if name.startswith("decoder_")}
        shared = read.pop("shared", None)
        read["patch_images"] = self._as_read(read["patch_images"])
        with self.one_precision():
            encoded = self.network.encoder(**read)
            encoded = encoded if shared is None else encoded.rows(shared)
            logits: torch.Tensor = self.network(encoder_outputs=encoded, **decoder, use_cache=False).logits
        return logits[batch.rows, batch.columns]

    @contextmanager
    def one_precision(self) -> Iterator[None]:
        """Autocast, if weights are in another precision than that of loading (they are, or were, trained), and autocast is not
        already active."""
        half = getattr(torch, self.precision)
        mixed = half != torch.float32 and any(p.dtype != half for p in self._weights_of_one_kind)
        if not mixed or torch.is_autocast_enabled(self.device.type):
            yield
            return
        with torch.autocast(self.device.type, half):
            yield

    def _as_read(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.to(self.network.encoder.embed_images.conv1.weight.dtype)

    def _search(self, tokens: Sequence[Tokens], pixels: torch.Tensor, options: GenerationOptions, count: int) -> Beams:
        """The `count` best answers of each prompt."""
        if options.temperature > 0:
            raise ConfigError(f"{self.name} searches for its answers and cannot sample them", "leave out --temperature")
        if options.repetition_penalty != 1.0:
            raise ConfigError(
                f"{self.name} does not support a repetition penalty, got {options.repetition_penalty:g}",
                "set repetition_penalty to 1, or use no_repeat_ngram",
            )
        encoder_inputs = self._padded([t.text for t in tokens])
        with self.one_precision():
            return beam_search(
                self.network,
                encoder_inputs["input_ids"],
                encoder_inputs["attention_mask"],
                self._as_read(pixels),
                num_beams=options.num_beams,
                max_length=options.max_new_tokens,
                min_length=options.min_new_tokens,
                no_repeat_ngram_size=options.no_repeat_ngram,
                length_penalty=options.length_penalty if options.num_beams > 1 else 0.0,
                num_return=count,
            )

    def _tokens(
        self,
        prompts: Sequence[Prompt],
        with_target: bool,
        answers: Sequence[Sequence[int]] | None = None,
        most: int | None = None,
    ) -> list[Tokens]:
        """The prompts' ids; targets, or the `answers` in their place, are cut after `most`.

        Raises ValueError for an empty text or target, DataError for a prompt that is too long or does not have one image.
        """
        for prompt in prompts:
            if not prompt.text or (with_target and answers is None and not prompt.target):
                raise ValueError("a prompt needs a text, and a target to be scored")
            if len(prompt.images) != 1:
                raise DataError(f"{self.name} reads one image per prompt, not {len(prompt.images)}")
        texts = self._ids([p.text for p in prompts])
        if answers is not None:
            targets = [[int(token) for token in answer] for answer in answers]
        else:
            targets = self._ids([p.target for p in prompts]) if with_target else [[] for _ in prompts]
        tokens_by_prompt = [Tokens(text, self._cut(target, most)) for text, target in zip(texts, targets, strict=True)]
        limit = self.network.config.max_position_embeddings
        longest = max((max(len(t.text), len(t.target)) for t in tokens_by_prompt), default=0)
        if longest > limit:
            raise DataError(f"a prompt has {longest} tokens, the model reads at most {limit}", "use fewer shots")
        return tokens_by_prompt

    def _cut(self, target: list[int], most: int | None) -> list[int]:
        """At most `most` tokens; if these are two or more, the last is still the end."""
        if most is None or len(target) <= most:
            return target
        ended = most > 1 and target[-1] == self.network.config.eos_token_id
        return [*target[: most - 1], target[-1]] if ended else target[:most]

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        ids: list[list[int]] = self.tokenizer(list(texts), add_special_tokens=False)["input_ids"] if texts else []
        return ids

    def _pixels(self, prompts: Sequence[Prompt]) -> torch.Tensor:
        """float32 [B, 3, H, W] on the device; an image of several prompts is read once."""
        read = self.pixel_reader(Augmentation())
        paths = list(dict.fromkeys(prompt.images[0] for prompt in prompts))
        pixels = torch.from_numpy(np.stack([read(path) for path in paths])).to(self.device)
        return pixels[[paths.index(prompt.images[0]) for prompt in prompts]]

    def _answers(self, tokens: Sequence[Tokens], pixels: torch.Tensor) -> AnswerBatch:
        """Rows padded on the right, with the positions that predict the targets' tokens."""
        start = self.network.config.decoder_start_token_id
        inputs = {**self._padded([t.text for t in tokens]), "patch_images": pixels}
        decoder = self._padded([[start, *t.target][: max(1, len(t.target))] for t in tokens])
        inputs |= {f"decoder_{name}": value for name, value in decoder.items()}
        at = [(row, k) for row, t in enumerate(tokens) for k in range(len(t.target))]
        places = torch.tensor(at, dtype=torch.long, device=self.device).reshape(-1, 2)
        flat = torch.tensor([i for t in tokens for i in t.target], dtype=torch.long, device=self.device)
        lasts = torch.zeros(len(tokens), dtype=torch.long, device=self.device)
        return AnswerBatch(inputs, places[:, 0], places[:, 1], flat, lasts)

    def _padded(self, rows: Sequence[Sequence[int]]) -> dict[str, torch.Tensor]:
        padded = padded_rows(rows, int(self.network.config.pad_token_id)).to(self.device)
        return {"input_ids": padded.ids, "attention_mask": padded.mask}
