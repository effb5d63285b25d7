"""Checkpoint files: weights and their index set as safetensors, config.json, and a card."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from icltool.components.learners.lever_lm.options import SOURCES, LeverLMOptions
from icltool.contracts import IndexSet, IntArray, read_whole
from icltool.errors import StoreError
from icltool.store.atomic import replace_file, write_json, write_text

if TYPE_CHECKING:
    from torch import Tensor

SCHEMA = "icltool-lever-lm"
SCHEMA_VERSION = 1
#: Checkpoints by name, and what each holds.
CHECKPOINTS = {
    "last": "the weights after the last validation",
    "min_vl": "the lowest validation loss",
    "min_tl": "the lowest training loss (mean over the batches between two validations)",
}
CONFIG_FILE, HISTORY_FILE, CARD_FILE = "config.json", "history.json", "README.md"
#: Prefix of the weights of CLIP's trained towers, and the folder in which their features are cached.
CLIP, FEATURES_FOLDER = "clip.", "features"
#: Number of index rows whose embeddings are stored, to recognise those of another encoder.
PROBES = 64


@dataclass(frozen=True)
class CheckpointConfig:
    """The content of config.json: everything needed to build the model, and a record of its training data.

    `examples` is N, `dim` D, `shots` the longest training sequence, `index_fingerprint` a hash of the index set's ids
    in row order. `clip` describes the encoder whose towers were trained: its name, build options and architecture; empty if
    none was.
    """

    options: dict[str, object]
    examples: int
    dim: int
    shots: int
    seed: int
    index_fingerprint: str
    provenance: dict[str, object] = field(default_factory=dict)
    clip: dict[str, object] = field(default_factory=dict)
    schema: str = SCHEMA
    schema_version: int = SCHEMA_VERSION

    @property
    def encoder(self) -> str:
        return str(self.provenance.get("encoder", "an encoder that is not recorded"))


def index_fingerprint(ids: IntArray) -> str:
    """A hash of the ids int64 [N] in row order: 16 hex characters."""
    return hashlib.blake2b(np.ascontiguousarray(ids, dtype="<i8").tobytes(), digest_size=8).hexdigest()


def probe_rows(examples: int) -> IntArray:
    """Up to PROBES rows, evenly spread over the index set."""
    rows: IntArray = np.unique(np.linspace(0, examples - 1, min(PROBES, examples)).round().astype(np.int64))
    return rows


def index_tensors(index: IndexSet, modalities: frozenset[str]) -> dict[str, Tensor]:
    """A checkpoint's tensors of the index set: all ids, and the embeddings of the probe rows."""
    import torch

    rows = probe_rows(len(index))
    tensors = {
        "index.ids": torch.from_numpy(np.array(index.ids, dtype=np.int64)),
        "index.probes": torch.from_numpy(rows),
    }
    for modality in sorted(modalities):
        tensors[f"index.{modality}"] = torch.from_numpy(np.array(getattr(index, modality)[rows], dtype=np.float32))
    return tensors


def save_weights(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Writes tensors (moved to the CPU) as safetensors, atomically."""
    from safetensors.torch import save

    with replace_file(path) as temporary:
        # written by Python, so that a full disk is an OSError instead of an error of the library
        temporary.write_bytes(
            save({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, dict(metadata))
        )


def remove_old(folder: Path) -> None:
    """Removes the files of an earlier training, so that no stale checkpoint is taken for a new one."""
    names = [f"{name}.safetensors" for name in CHECKPOINTS] + [CONFIG_FILE, HISTORY_FILE, CARD_FILE]
    for name in names:
        (folder / name).unlink(missing_ok=True)
    for name in ("logs", FEATURES_FOLDER):
        shutil.rmtree(folder / name, ignore_errors=True)


def write_config(folder: Path, config: CheckpointConfig) -> None:
    write_json(folder / CONFIG_FILE, asdict(config))


def read_config(folder: Path) -> tuple[CheckpointConfig, LeverLMOptions]:
    """A checkpoint folder's configuration, and its parsed options. Raises StoreError if it is missing or invalid."""
    path = folder / CONFIG_FILE
    again = "train again: `icltool train lever-lm`"
    try:
        values = json.loads(read_whole(path))
    except FileNotFoundError as error:
        raise StoreError(f"{folder} is not a Lever-LM checkpoint: it has no {CONFIG_FILE}", again) from error
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror or error}", again) from error
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path} is not JSON: {error}", again) from error
    if not isinstance(values, dict) or values.get("schema") != SCHEMA:
        raise StoreError(f"{path} does not describe a Lever-LM checkpoint", again)
    if values.get("schema_version") != SCHEMA_VERSION:
        raise StoreError(
            f"{path} has schema version {values.get('schema_version')}, but this version of icltool reads {SCHEMA_VERSION}",
            again,
        )
    try:
        config = CheckpointConfig(**values)
        _check_types(config)
        return config, LeverLMOptions.model_validate(config.options)
    except (TypeError, ValueError) as error:
        raise StoreError(f"{path} is malformed: {str(error).splitlines()[0]}", again) from error


def _check_types(config: CheckpointConfig) -> None:
    """Raises ValueError for a field of the wrong type or of an impossible size."""
    for name, most in (("examples", 1 << 40), ("dim", 1 << 17), ("shots", 1 << 17)):
        if type(value := getattr(config, name)) is not int or not 0 < value <= most:
            raise ValueError(f"{name} is {value!r:.80}")
    for name in ("options", "provenance", "clip"):
        if not isinstance(value := getattr(config, name), dict):
            raise ValueError(f"{name} is {value!r:.80}, not an object")


def read_weights(folder: Path, checkpoint: str) -> dict[str, Tensor]:
    """All tensors of a checkpoint by its name. Raises StoreError if it is missing (listing the existing ones) or truncated."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / f"{checkpoint}.safetensors"
    if not path.is_file():
        names = ", ".join(sorted(p.stem for p in folder.glob("*.safetensors"))) or "none"
        raise StoreError(
            f"{path} does not exist; checkpoints in its folder: {names}", "choose one of them, or train again"
        )
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise StoreError(
            f"{path} is truncated or not a safetensors file: {error}", "train again: `icltool train lever-lm`"
        ) from error


def write_card(
    folder: Path,
    config: CheckpointConfig,
    parameters: int,
    towers: Sequence[str],
    history: Sequence[Mapping[str, float]],
    figures: Mapping[str, object],
) -> None:
    """Writes README.md: the model, its data, its training and its use. `towers` are CLIP's trained towers."""
    best = {"min_vl": min(history, key=lambda r: r["val_loss"]), "min_tl": min(history, key=lambda r: r["train_loss"])}
    lines = [
        "---",
        "library_name: icltool",
        "tags: [in-context-learning, lever-lm]",
        "---",
        "",
        "# Lever-LM selector",
        "",
    ]
    options = config.options
    lines += [
        f"A {options['network']} model ({parameters:,} parameters, variant `{options['variant']}`) that chooses",
        f"in-context demonstrations from an index set of {config.examples:,} examples (their ids hash to",
        f"`{config.index_fingerprint}`),",
        f"trained on sequences of up to {config.shots} demonstrations. It reads embeddings of {config.encoder},",
        f"width {config.dim}.",
        "",
    ]
    if towers:
        lines += [
            f"CLIP's {' and '.join(towers)} {'towers were' if len(towers) > 1 else 'tower was'} trained, too, starting from",
            "the encoder's weights. They are part of each checkpoint, which reads, in place of these embeddings, the",
            f"{' and '.join(SOURCES[tower] for tower in towers)} themselves.",
            "",
        ]
    lines += [
        "## Checkpoints",
        "",
        "| file | holds | step | epoch | training loss | validation loss |",
        "|---|---|---|---|---|---|",
    ]
    for name, meaning in CHECKPOINTS.items():
        row = {"last": history[-1], **best}[name]
        numbers = f"{row['step']:.0f} | {row['epoch']:.2f} | {row['train_loss']:.4f} | {row['val_loss']:.4f}"
        lines.append(f"| `{name}.safetensors` | {meaning} | {numbers} |")
    lines += ["", "Losses are cross-entropies per token in nats; the validation queries were never trained on.", ""]
    for title, values in (("Data", figures), ("Provenance", config.provenance), ("Options", options)):
        lines += [f"## {title}", ""] + [f"- {key}: `{_text(value)}`" for key, value in sorted(values.items())] + [""]
    lines += [
        "## Use",
        "",
        "`icltool evaluate --method lever-lm --checkpoint FOLDER`, where FOLDER is the folder of this card.",
        "",
    ]
    write_text(folder / CARD_FILE, "\n".join(lines))


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
