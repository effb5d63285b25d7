"""Features computed with the towers in a checkpoint, for decoding; those of an index set are cached on disk."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from icltool.components.learners.lever_lm import checkpoint as files
from icltool.components.learners.lever_lm.clip import AHEAD, Preprocess, open_in, thread_count, values_of
from icltool.components.learners.lever_lm.options import LeverLMOptions
from icltool.contracts import FloatArray, IndexSet, QuerySet, TrainableEncoder
from icltool.errors import ConfigError, StoreError
from icltool.store.atomic import replace_file

#: Builds an encoder from its name and options.
BuildEncoder: TypeAlias = Callable[..., object]

#: Images or texts encoded at once, and the number in one file on disk.
ENCODED_AT_ONCE, BLOCK = 64, 4096


class TrainedClip:
    """The towers of one checkpoint, in float32."""

    def __init__(
        self,
        towers: Mapping[str, nn.Module],
        preprocess: Mapping[str, Preprocess],
        dim: int,
        folder: Path,
        device: str,
    ) -> None:
        """Features of index sets are cached in `folder`."""
        self._towers = {m: tower.to(device).float().eval().requires_grad_(False) for m, tower in towers.items()}
        self._preprocess, self._dim, self._folder, self._device = dict(preprocess), dim, folder, torch.device(device)
        self._marks: dict[str, str] = {}
        self._latest: dict[tuple[str, str], tuple[tuple[str, ...], FloatArray]] = {}

    def filled_index(self, index: IndexSet, modalities: Iterable[str]) -> IndexSet:
        """The index set with these modalities' features from the towers, read from disk if they are cached."""
        filled = self._filled(index, modalities, self._stored)
        return replace(index, image=filled.get("image", index.image), text=filled.get("text", index.text))

    def filled_queries(self, queries: QuerySet, modalities: Iterable[str]) -> QuerySet:
        """The queries with these modalities' features from the towers."""
        filled = self._filled(queries, modalities, self.encode)
        return replace(queries, image=filled.get("image", queries.image), text=filled.get("text", queries.text))

    @torch.inference_mode()
    def encode(self, modality: str, values: Sequence[str]) -> FloatArray:
        """float32 [n, D] for image paths or texts.

        All batches have the same size, padded with the last value, so that features hardly depend on the other values.
        """
        batches = [values[start : start + ENCODED_AT_ONCE] for start in range(0, len(values), ENCODED_AT_ONCE)]
        features = [np.empty((0, self._dim), dtype=np.float32)]
        with ThreadPoolExecutor(thread_count()) as pool:
            opening = deque(open_in(pool, self._preprocess[modality], batch) for batch in batches[:AHEAD])
            for place, batch in enumerate(batches):
                if place + AHEAD < len(batches):
                    opening.append(open_in(pool, self._preprocess[modality], batches[place + AHEAD]))
                inputs = opening.popleft()()
                missing = ENCODED_AT_ONCE - len(batch)
                inputs = torch.cat([inputs, inputs[-1:].expand(missing, *inputs.shape[1:])])
                features.append(self._towers[modality](inputs.to(self._device)).float().cpu().numpy()[: len(batch)])
        return np.concatenate(features)

    def _filled(
        self,
        arrays: IndexSet | QuerySet,
        modalities: Iterable[str],
        encode: Callable[[str, Sequence[str]], FloatArray],
    ) -> dict[str, FloatArray]:
        """Features float32 [n, D] by modality, for the available towers; values that examples share are encoded once."""
        filled: dict[str, FloatArray] = {}
        for modality in set(modalities) & set(self._towers):
            values, kind = values_of(arrays, modality), (type(arrays).__name__, modality)
            if kind not in self._latest or self._latest[kind][0] != values:
                places = {value: place for place, value in enumerate(dict.fromkeys(values))}
                features = encode(modality, list(places))[[places[value] for value in values]]
                self._latest[kind] = (values, features)  # further numbers of shots need the same
            filled[modality] = self._latest[kind][1]
        return filled

    def _stored(self, modality: str, values: Sequence[str]) -> FloatArray:
        """As `encode`, in blocks that are cached on disk."""
        folder = self._folder / f"{modality}-{self._mark(modality, values)}"
        blocks = []
        for start in range(0, len(values), BLOCK):
            part = values[start : start + BLOCK]
            path = folder / f"{start // BLOCK:05d}.h5"
            block = _read_block(path, (len(part), self._dim))
            if block is None:
                block = self.encode(modality, part)
                _write_block(path, block)
            blocks.append(block)
        return np.concatenate(blocks) if blocks else np.empty((0, self._dim), dtype=np.float32)

    def _mark(self, modality: str, values: Sequence[str]) -> str:
        """A hash of the tower's weights and of the values in order: 16 hex characters."""
        if modality not in self._marks:
            hasher = hashlib.blake2b(digest_size=8)
            for name, tensor in sorted(self._towers[modality].state_dict().items()):
                hasher.update(name.encode() + np.ascontiguousarray(tensor.cpu().numpy()).tobytes())
            self._marks[modality] = hasher.hexdigest()
        text = json.dumps([self._marks[modality], *values])
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def load_clip(
    path: Path,
    config: files.CheckpointConfig,
    options: LeverLMOptions,
    weights: Mapping[str, Tensor],
    device: str,
    build_encoder: BuildEncoder | None,
) -> TrainedClip:
    """The towers of the checkpoint `path` with its `weights` (named image.…, text.…).

    Raises ConfigError if the encoder cannot be built, StoreError if the weights do not fit it.
    """
    misfit = f"{path} does not fit {files.CONFIG_FILE} beside it"
    name, build_options, architecture = (config.clip.get(key) for key in ("encoder", "options", "architecture"))
    if {key.split(".")[0] for key in weights} != options.trained or not isinstance(build_options, dict) or not name:
        raise StoreError(f"{misfit}: other towers of CLIP", "train again")
    if build_encoder is None:
        raise ConfigError(
            f"{path} contains trained towers of encoder {name!r}, which cannot be built without build_encoder",
            "pass build_encoder, for example a function that builds icltool's encoder of that name",
        )
    encoder = build_encoder(str(name), **{**build_options, "device": "cpu"})
    if not isinstance(encoder, TrainableEncoder):
        raise ConfigError(
            f"{path} contains trained towers of encoder {name!r}, which is not trainable here", "update its package"
        )
    if encoder.architecture() != architecture:
        raise StoreError(
            f"{path} was trained with another architecture or preprocessing than encoder {name!r} has here",
            "use the release of the encoder that it was trained with, or train again",
        )
    towers, preprocess = {}, {}
    for modality in sorted(options.trained):
        towers[modality], preprocess[modality] = encoder.tower(modality), encoder.preprocessor(modality)
        start = f"{modality}."
        own = {key.removeprefix(start): value for key, value in weights.items() if key.startswith(start)}
        try:
            towers[modality].load_state_dict(own, strict=True)
        except RuntimeError as error:
            raise StoreError(f"{misfit}: {str(error).splitlines()[0]}", "train again") from error
    return TrainedClip(towers, preprocess, config.dim, path.parent / files.FEATURES_FOLDER, device)


def _read_block(path: Path, shape: tuple[int, int]) -> FloatArray | None:
    """The features in a block file; None if it is missing or unreadable."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            features: FloatArray = np.asarray(file["features"][:], dtype=np.float32)
    except (OSError, KeyError):
        return None
    return features if features.shape == shape else None


def _write_block(path: Path, features: FloatArray) -> None:
    """Writes a block atomically. If the folder is not writable, nothing is cached."""
    import h5py

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replace_file(path) as temporary, h5py.File(temporary, "w") as file:
            file.create_dataset("features", data=features, fletcher32=True)
    except OSError:
        return
