"""IDEFICS, first generation (transformers' IdeficsForVisionText2Text): idefics-9b, its kin, and the embedded world's model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from icltool.contracts import Example, GenerationOptions, Prompt, TargetScore
from icltool.errors import ConfigError
from icltool.models.images import read_image
from icltool.models.prompt_format import IDEFICS
from icltool.models.tokens import TokenizedPrompt, batches_by_length, tokenize
from icltool.models.weights import find_weights, fingerprint, quiet_loading

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class IdeficsModel:
    """The adapter. Image attention follows the prompt: a token sees the last image before it, none before the first.

    Masks and positions are always those of the unpadded prompt, whatever else is in the batch.
    """

    def __init__(
        self,
        name: str = "idefics",
        packaged: str | None = None,
        hub_id: str | None = None,
        path: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        attention: str = "sdpa",
    ) -> None:
        """Loads tokenizer, image processor and weights.

        `device` "auto" takes a GPU when there is one; `dtype` "auto" is bfloat16 there and float32 on the CPU.
        Raises ConfigError when weights are missing or an option is unknown.
        """
        from transformers import AutoTokenizer, IdeficsForVisionText2Text

        self.name = name
        self.device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
        chosen = ("bfloat16" if self.device.type == "cuda" else "float32") if dtype == "auto" else dtype
        if chosen not in DTYPES:
            raise ConfigError(f"unknown dtype {dtype!r}", f"known: auto, {', '.join(DTYPES)}")
        self.dtype = DTYPES[chosen]
        weights = find_weights(name, packaged, hub_id, path)
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(weights.source, local_files_only=weights.local_only)
            self.image_processor = _image_processor(weights.source, weights.local_only)
            with quiet_loading():
                model: Any = IdeficsForVisionText2Text.from_pretrained(
                    weights.source, dtype=self.dtype, attn_implementation=attention, local_files_only=weights.local_only
                )
        except (OSError, ValueError) as error:
            first_line = str(error).strip().splitlines()[0]
            raise ConfigError(
                f"model {name} cannot be loaded from {weights.source}: {first_line}",
                "check the folder, or download it anew",
            ) from error
        self.model = model.eval().requires_grad_(False)
        self.model.to(self.device)
        self._source, self._precision = weights.source, chosen
        vocabulary = self.tokenizer.get_vocab()
        missing = [token for token in ("<image>", "<fake_token_around_image>") if token not in vocabulary]
        if missing:
            raise ConfigError(f"the tokenizer in {weights.source} has no {missing[0]}", "this is no idefics model")
        self._image_token = int(vocabulary["<image>"])
        self._markers = [self._image_token, int(vocabulary["<fake_token_around_image>"])]
        pad = self.tokenizer.pad_token_id
        self._pad = 0 if pad is None else int(pad)
        self._resampled = bool(self.model.config.use_resampler)

    def fingerprint(self) -> str:
        return fingerprint(self._source, self._precision, repr(IDEFICS))

    def prompt(self, task: str, demonstrations: Sequence[Example], query: Example) -> Prompt:
        return IDEFICS.prompt(task, demonstrations, query)

    def clean(self, task: str, text: str) -> str:
        return IDEFICS.clean(task, text)

    @torch.inference_mode()
    def image_features(self, paths: Sequence[str], batch_size: int) -> list[torch.Tensor]:
        """One tensor [tokens, width] per image: the perceiver's output, or the vision encoder's where there is none."""
        found: list[torch.Tensor] = []
        for start in range(0, len(paths), batch_size):
            encoded = self.model.model.vision_model(pixel_values=self._pixels(paths[start : start + batch_size]))
            states = encoded.last_hidden_state
            if self._resampled:
                states = self.model.model.perceiver_resampler(states)
            found += list(states)
        return found

    @torch.inference_mode()
    def score(
        self, prompts: Sequence[Prompt], batch_size: int, features: Mapping[str, Any] | None = None
    ) -> list[TargetScore]:
        """See Model.score. Logits are computed at target positions only, their log-softmax in float32."""
        tokens = tokenize(self.tokenizer, prompts, with_target=True, limit=self._limit())
        scores: list[TargetScore | None] = [None] * len(prompts)
        for batch in batches_by_length([len(t.ids) for t in tokens], batch_size):
            chosen = [tokens[i] for i in batch]
            inputs = self._inputs(chosen, [prompts[i] for i in batch], features, left=False)
            hidden = self.model.model(**inputs, use_cache=False).last_hidden_state
            rows, columns, targets, owners = _target_positions(chosen)
            logits = self.model.lm_head(hidden[rows, columns])
            log_probs = torch.log_softmax(logits.float(), dim=-1)
            picked = log_probs.gather(1, torch.tensor(targets, device=self.device)[:, None])[:, 0].double()
            sums = torch.zeros(len(batch), dtype=torch.float64, device=self.device)
            sums.index_add_(0, torch.tensor(owners, device=self.device), picked)
            for i, token, total in zip(batch, chosen, sums.tolist(), strict=True):
                scores[i] = TargetScore(total, len(token.ids) - token.target_start)
        return [s for s in scores if s is not None]

    @torch.inference_mode()
    def generate(
        self,
        prompts: Sequence[Prompt],
        options: GenerationOptions,
        batch_size: int,
        features: Mapping[str, Any] | None = None,
    ) -> list[str]:
        """See Model.generate. The image tokens are never generated: an answer shows no image."""
        limit = None if self._limit() is None else self._limit() - options.max_new_tokens  # type: ignore[operator]
        tokens = tokenize(self.tokenizer, prompts, with_target=False, limit=limit)
        texts: list[str] = [""] * len(prompts)
        for batch in batches_by_length([len(t.ids) for t in tokens], batch_size):
            inputs = self._inputs([tokens[i] for i in batch], [prompts[i] for i in batch], features, left=True)
            for key in ("perceiver_embeddings", "image_encoder_embeddings"):
                if key in inputs:  # generate() hands features on under this name only
                    inputs["image_hidden_states"] = inputs.pop(key)
            output = self.model.generate(
                **inputs,
                max_new_tokens=options.max_new_tokens,
                num_beams=options.num_beams,
                **({"length_penalty": options.length_penalty} if options.num_beams > 1 else {}),
                do_sample=False,
                suppress_tokens=self._markers,
                pad_token_id=self._pad,
                eos_token_id=self.tokenizer.eos_token_id,
            )
            new = output[:, inputs["input_ids"].shape[1] :]
            for i, text in zip(batch, self.tokenizer.batch_decode(new, skip_special_tokens=True), strict=True):
                texts[i] = text
        return texts

    def _limit(self) -> int | None:
        limit = getattr(self.model.config, "max_position_embeddings", None)
        return None if limit is None else int(limit)

    def _pixels(self, paths: Sequence[str]) -> torch.Tensor:
        """Pixel values [n, 3, H, W] on the model's device."""
        pictures = [read_image(path) for path in paths]
        prepared = self.image_processor(pictures, return_tensors="pt")
        values = prepared if isinstance(prepared, torch.Tensor) else prepared["pixel_values"]
        return values.to(self.device, self.dtype)

    def _inputs(
        self,
        tokens: Sequence[TokenizedPrompt],
        prompts: Sequence[Prompt],
        features: Mapping[str, Any] | None,
        left: bool,
    ) -> dict[str, Any]:
        """Padded model inputs for one batch: ids, masks [B, T] and [B, T, I], and pixels or ready features [B, I, …]."""
        length, images = max(len(t.ids) for t in tokens), max(1, *(len(p.images) for p in prompts))
        ids = torch.full((len(tokens), length), self._pad, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, token in enumerate(tokens):
            n = len(token.ids)
            span = slice(length - n, length) if left else slice(0, n)
            ids[row, span] = torch.tensor(token.ids)
            mask[row, span] = 1
        current = ids.eq(self._image_token).cumsum(1) - 1
        attends = (current[:, :, None] == torch.arange(images)) & mask[:, :, None].bool()
        inputs: dict[str, Any] = {
            "input_ids": ids.to(self.device),
            "attention_mask": mask.to(self.device),
            "image_attention_mask": attends.long().to(self.device),
        }
        if features is None:
            inputs["pixel_values"] = self._stack([p.images for p in prompts], images, self._pixel_map(prompts))
        else:
            key = "perceiver_embeddings" if self._resampled else "image_encoder_embeddings"
            inputs[key] = self._stack([p.images for p in prompts], images, features)
        return inputs

    def _pixel_map(self, prompts: Sequence[Prompt]) -> dict[str, torch.Tensor]:
        paths = list(dict.fromkeys(path for p in prompts for path in p.images))
        return dict(zip(paths, self._pixels(paths), strict=True))

    def _stack(self, rows: Sequence[Sequence[str]], images: int, values: Mapping[str, Any]) -> torch.Tensor:
        """[B, images, …]: each row's images in order, zeros where a row has fewer (no token attends to them)."""
        blank = torch.zeros_like(values[next(path for row in rows for path in row)])
        return torch.stack([torch.stack([values[p] for p in row] + [blank] * (images - len(row))) for row in rows])


def _target_positions(tokens: Sequence[TokenizedPrompt]) -> tuple[list[int], list[int], list[int], list[int]]:
    """(rows, columns) of the positions that predict each target token, the target ids, and the prompt each belongs to."""
    rows: list[int] = []
    columns: list[int] = []
    targets: list[int] = []
    for row, token in enumerate(tokens):
        span = range(token.target_start, len(token.ids))
        rows += [row] * len(span)
        columns += [k - 1 for k in span]
        targets += [token.ids[k] for k in span]
    return rows, columns, targets, rows


def _image_processor(source: str, local_only: bool) -> Any:
    """The image processor that works on PIL pictures: the same pixels on every machine, torchvision or not."""
    from transformers.models.idefics.image_processing_pil_idefics import IdeficsImageProcessorPil

    return IdeficsImageProcessorPil.from_pretrained(source, local_files_only=local_only)
