"""Checkpoint files: weights with the index they speak of as safetensors, one config.json, a card."""

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
#: What the names of the weights of CLIP's trained towers begin with, and where features by them are kept.
CLIP, FEATURES_FOLDER = "clip.", "features"
#: How many index rows have their embeddings stored, to recognise another encoder's.
PROBES = 64


@dataclass(frozen=True)
class CheckpointConfig:
    """What config.json holds: everything needed to build the model, and what it was trained on.

    `examples` is N, `dim` D, `shots` the longest training sequence, `index_fingerprint` a hash of the index set's ids
    in row order. `clip` says how to build the encoder whose towers were trained along: its name, build options and
    architecture; empty where none was.
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
    """16 hex characters of the ids int64 [N] in row order."""
    return hashlib.blake2b(np.ascontiguousarray(ids, dtype="<i8").tobytes(), digest_size=8).hexdigest()


def probe_rows(examples: int) -> IntArray:
    """Up to PROBES rows, evenly spread over the index set."""
    rows: IntArray = np.unique(np.linspace(0, examples - 1, min(PROBES, examples)).round().astype(np.int64))
    return rows


def index_tensors(index: IndexSet, modalities: frozenset[str]) -> dict[str, Tensor]:
    """What a checkpoint keeps of the index set beside the weights: all ids, and the embeddings of the probe rows."""
    import torch

    rows = probe_rows(len(index))
    kept = {"index.ids": torch.from_numpy(np.array(index.ids, dtype=np.int64)), "index.probes": torch.from_numpy(rows)}
    for modality in sorted(modalities):
        kept[f"index.{modality}"] = torch.from_numpy(np.array(getattr(index, modality)[rows], dtype=np.float32))
    return kept


def save_weights(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Writes tensors (moved to the CPU) as safetensors, whole or not at all."""
    from safetensors.torch import save

    with replace_file(path) as temporary:
        # as bytes, so that a full disk is an OSError of Python's and no error of the library's own
        temporary.write_bytes(
            save({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, dict(metadata))
        )


def remove_old(folder: Path) -> None:
    """Removes what an earlier training left in the folder, so that no stale checkpoint passes for a new one."""
    names = [f"{name}.safetensors" for name in CHECKPOINTS] + [CONFIG_FILE, HISTORY_FILE, CARD_FILE]
    for name in names:
        (folder / name).unlink(missing_ok=True)
    for name in ("logs", FEATURES_FOLDER):
        shutil.rmtree(folder / name, ignore_errors=True)


def write_config(folder: Path, config: CheckpointConfig) -> None:
    write_json(folder / CONFIG_FILE, asdict(config))


def read_config(folder: Path) -> tuple[CheckpointConfig, LeverLMOptions]:
    """A checkpoint folder's configuration, and its options parsed. StoreError when missing or something else."""
    path = folder / CONFIG_FILE
    again = "train again: `icltool train lever-lm`"
    try:
        values = json.loads(read_whole(path))
    except FileNotFoundError as error:
        raise StoreError(f"{folder} is no Lever-LM checkpoint: it has no {CONFIG_FILE}", again) from error
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror or error}", again) from error
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path} is not JSON: {error}", again) from error
    if not isinstance(values, dict) or values.get("schema") != SCHEMA:
        raise StoreError(f"{path} does not describe a Lever-LM checkpoint", again)
    if values.get("schema_version") != SCHEMA_VERSION:
        raise StoreError(
            f"{path} has schema version {values.get('schema_version')}, this icltool reads {SCHEMA_VERSION}", again
        )
    try:
        config = CheckpointConfig(**values)
        _check_types(config)
        return config, LeverLMOptions.model_validate(config.options)
    except (TypeError, ValueError) as error:
        raise StoreError(f"{path} is malformed: {str(error).splitlines()[0]}", again) from error


def _check_types(config: CheckpointConfig) -> None:
    """ValueError for a field that is not what its name says; a width is no more than any model has."""
    for name, most in (("examples", 1 << 40), ("dim", 1 << 17), ("shots", 1 << 17)):
        if type(value := getattr(config, name)) is not int or not 0 < value <= most:
            raise ValueError(f"{name} is {value!r:.80}")
    for name in ("options", "provenance", "clip"):
        if not isinstance(value := getattr(config, name), dict):
            raise ValueError(f"{name} is {value!r:.80}, not an object")


def read_weights(folder: Path, checkpoint: str) -> dict[str, Tensor]:
    """All tensors of a checkpoint by its name. StoreError when it is missing (the ones there are listed) or cut."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / f"{checkpoint}.safetensors"
    if not path.is_file():
        there = ", ".join(sorted(p.stem for p in folder.glob("*.safetensors"))) or "none"
        raise StoreError(f"{path} does not exist; checkpoints there: {there}", "choose one of them, or train again")
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
    """README.md: what was trained on what, how it went, how to use it. `towers` are those of CLIP that were trained."""
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
            f"CLIP's {' and '.join(towers)} {'towers were' if len(towers) > 1 else 'tower was'} trained along, from the",
            "encoder's weights on. They are part of each checkpoint; in place of these embeddings it reads the",
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
        lines += [f"## {title}", ""] + [f"- {key}: `{_shown(value)}`" for key, value in sorted(values.items())] + [""]
    lines += [
        "## Use",
        "",
        "`icltool evaluate --method lever-lm --checkpoint FOLDER`, FOLDER being where this card lies.",
        "",
    ]
    write_text(folder / CARD_FILE, "\n".join(lines))


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
