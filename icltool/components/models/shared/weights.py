"""Locating a model's weights: in the package, a folder, the local hub cache, or on request the hub."""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from icltool.components.models.shared.fine_tuned import (
    CHOICES,
    FineTuned,
    check_fine_tuned,
    fine_tuned_file,
    read_fine_tuned,
)
from icltool.errors import ConfigError, DataError, IclWarning, MissingWeightsError, StoreError
from icltool.store.makers import content_mark

if TYPE_CHECKING:
    from icltool.components.models.shared.options import TransformersOptions

#: Environment variables for a folder of models, each in a subfolder named by its hub id or its name.
FOLDERS = ("MODEL_CPK_DIR", "CHECKPOINT_PATH")
#: One of these holds a tokenizer's vocabulary.
_TOKENIZERS = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
)
#: (words in a loading error, files of which one is then missing).
_NEEDED: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("",), ("config.json",)),
    (("processor", "feature extractor"), ("processor_config.json", "preprocessor_config.json")),
    (("tokenizer",), _TOKENIZERS),
)
#: OWNER/NAME of the Hugging Face hub.
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_SAMPLE = 1 << 20  # bytes hashed at either end of a weights file; whole files of tens of GB would take minutes


@dataclass(frozen=True)
class Weights:
    """`source` is the argument of `from_pretrained`; `local_only` forbids the network. `fine_tuned` is a file of weights that
    replace some of `source` (see `fine_tuned.py`). Code from the repository runs only if it is `trusted`."""

    source: str
    local_only: bool
    fine_tuned: FineTuned | None = None
    trusted: bool = False

    @property
    def where(self) -> dict[str, bool]:
        """Arguments of every `from_pretrained`. transformers never prompts for permission to run a repository's code."""
        return {"local_files_only": self.local_only, "trust_remote_code": self.trusted}


def packaged_weights(name: str) -> Path:
    """The folder of weights that ship with icltool. Raises DataError if the installation is incomplete."""
    folder = Path(str(resources.files("icltool.world") / "weights" / name))
    if not folder.is_dir():
        raise DataError(f"packaged weights {name!r} are missing from {folder}", "reinstall icltool")
    return folder


def find_weights(name: str, packaged: str | None, hub_id: str | None, path: str | None) -> Weights:
    """Looks in this order: `path` (a folder, or a hub id that the user named), the package, MODEL_CPK_DIR,
    CHECKPOINT_PATH, the hub cache. If `path` is a file or folder of fine-tuned weights, their base weights are looked for in
    the same way, and in their place at the time of training.

    Raises MissingWeightsError if there are none; the hint says what would help. Only a hub id in `path` permits a download.
    """
    if path is not None:
        if (file := fine_tuned_file(Path(path))) is not None:
            return _base_weights(name, packaged, hub_id, read_fine_tuned(file))
        if Path(path).is_dir():
            _expect_weights(Path(path))
            return Weights(path, local_only=True)
        if HUB_ID.fullmatch(path):
            if no_folder(path):
                raise ConfigError(f"--model-path {path}: there is no such folder", "check the path")
            if not _in_cache(path):
                warnings.warn(f"downloading {path} from the hub; this may take a while", IclWarning, stacklevel=2)
            return Weights(path, local_only=False)
        raise ConfigError(f"model path {path!r} is neither a folder nor a hub id of the form owner/name")
    if packaged is not None:
        return Weights(str(packaged_weights(packaged)), local_only=True)
    if hub_id is None:
        raise ConfigError(f"model {name!r} needs a path", "give --model-path DIR or --model-path OWNER/NAME")
    roots = {name: os.environ[name] for name in FOLDERS if os.environ.get(name)}
    candidates = [Path(root) / name for root in roots.values() for name in (hub_id, hub_id.partition("/")[2])]
    there = next((str(folder) for folder in candidates if (folder / "config.json").is_file()), None)
    if there is not None or _in_cache(hub_id):
        return Weights(there or hub_id, local_only=True)
    where = "nor in " + " or ".join(f"{name} ({root})" for name, root in roots.items())
    where = where if roots else "and MODEL_CPK_DIR is not set"
    raise MissingWeightsError(
        f"weights of {name} are not on this machine: not in the hub cache, {where}",
        f"use --model-path DIR for a local folder, --model-path {hub_id} to download them, or --model tiny-idefics, which "
        "ships with icltool",
        hub_id,
    )


def no_folder(path: str) -> bool:
    """Whether `path`, which may have the form OWNER/NAME, must be meant as a folder, and that folder does not exist."""
    place = Path(path)
    return not place.exists() and (path[0] in "./~" or (len(place.parts) > 1 and place.parent.is_dir()))


def weights_of(options: TransformersOptions) -> Weights:
    """The weights that the options name; see `find_weights`."""
    weights = find_weights(options.name, options.packaged, options.hub_id, options.path)
    return replace(weights, trusted=options.trusted)


#: File types that are read from a model's folder.
_READ = frozenset({".json", ".safetensors", ".bin", ".pt", ".jinja", ".model", ".txt"})


def check_files(folder: Path) -> None:
    """Raises ConfigError for a folder with anything other than a regular file in place of a file."""
    for entry in sorted(folder.iterdir()):
        if entry.suffix in _READ and not entry.is_file() and not entry.is_dir():
            raise ConfigError(
                f"{entry} is not a file but a pipe, a device or a broken link",
                "remove it, or put the file there",
            )


def _expect_weights(folder: Path) -> None:
    """Raises ConfigError for a folder of a training or an export from which the weights are missing."""
    check_files(folder)
    ours = any((folder / name).is_file() for name in ("training.json", "icltool.json"))
    if ours and not (folder / "config.json").is_file():
        there = ", ".join(sorted(p.name for p in folder.glob("*.safetensors"))) or "none"
        raise ConfigError(
            f"{folder} lacks {CHOICES[0]}, its fine-tuned weights; weights there: {there}",
            "restore it, pass one of the other files as --model-path, or train again",
        )


def file_fault(folder: Path, error: str) -> str:
    """A description of the file in a model's folder that explains `error`: invalid JSON, or a missing file; "" if no file
    does."""
    for file in sorted(folder.glob("*.json")):
        try:
            json.loads(file.read_bytes())
        except (OSError, ValueError, RecursionError) as fault:
            return f"{file.name} is truncated or malformed: {' '.join(str(fault).split())}"
    for words, names in _NEEDED:
        if any(word in error.lower() for word in words) and not any((folder / name).is_file() for name in names):
            return f"{' or '.join(names[:2])} is missing there"
    return ""


def _base_weights(name: str, packaged: str | None, hub_id: str | None, fine_tuned: FineTuned) -> Weights:
    """The base weights of fine-tuned ones. Raises ConfigError if they are missing or have changed."""
    if fine_tuned.model != name:
        raise ConfigError(
            f"{fine_tuned.file} is a fine-tuned {fine_tuned.model}, not {name}", f"use --model {fine_tuned.model}"
        )
    moved = bool(fine_tuned.base) and not Path(fine_tuned.base).is_dir() and (packaged or hub_id) is not None
    base = find_weights(name, packaged, hub_id, None if moved or not fine_tuned.base else fine_tuned.base)
    check_fine_tuned(fine_tuned, name, weights_hash(base.source))
    return Weights(base.source, base.local_only, fine_tuned)


def fingerprint(folder: str, *extra: str) -> str:
    """12 hex characters that change with the configuration, the weights and `extra`.

    The size and both ends of each weights file are hashed; for a hub id, the id itself.
    """
    digest = hashlib.sha256("\0".join(extra).encode())
    root = Path(folder)
    if not root.is_dir():
        digest.update(folder.encode())
        return digest.hexdigest()[:12]
    for file in sorted(root.iterdir()):
        if file.suffix in {".json", ".safetensors", ".bin", ".pt"} and file.is_file():
            _add_file(digest, file)
    return digest.hexdigest()[:12]


def _add_file(digest: hashlib._Hash, file: Path) -> None:
    """Adds a file's name, size, and both ends to the digest."""
    size = file.stat().st_size
    digest.update(f"{file.name}:{size}".encode())
    with file.open("rb") as handle:
        digest.update(handle.read(_SAMPLE))
        if size > _SAMPLE:
            handle.seek(max(_SAMPLE, size - _SAMPLE))
            digest.update(handle.read())


def weights_mark(name: str, options: Mapping[str, object], path: str | None) -> str:
    """A mark of the content of the weights with which a model of this name, registered with `options`, would be loaded; "" if
    they are not on this machine, or if the model locates them itself."""
    packaged, hub_id = (str(options[key]) if options.get(key) else None for key in ("packaged", "hub_id"))
    if path is None and packaged is None and hub_id is None:
        return ""
    if path is not None and not Path(path).exists():
        return content_mark(_folder_of(path))
    try:
        weights = find_weights(name, packaged, hub_id, path)
    except (ConfigError, DataError, StoreError):  # loading reports why
        return "" if path is None else content_mark(Path(path))
    fine_tuned = weights.fine_tuned.digest if weights.fine_tuned is not None else ""
    return "-".join(filter(None, (content_mark(_folder_of(weights.source)), fine_tuned)))


def _folder_of(source: str) -> Path:
    """The folder that `from_pretrained` reads: a hub id is looked up in the local cache."""
    if Path(source).is_dir() or not HUB_ID.fullmatch(source):
        return Path(source)
    config = cached_file(source, "config.json")
    return Path(source) if config is None else config.parent


def weights_hash(source: str) -> str:
    """A hash of the weights alone, independent of their location: 12 hex characters. A hub id is looked up in the local cache.
    The size and both ends of each file are hashed, in the order of their names."""
    root = _folder_of(source)
    if not root.is_dir():
        return hashlib.sha256(source.encode()).hexdigest()[:12]
    digest = hashlib.sha256()
    files = sorted(f for f in root.iterdir() if f.suffix in {".safetensors", ".bin", ".pt"})
    if any(f.suffix == ".safetensors" for f in files):  # other files in the folder hold the same weights again
        files = [f for f in files if f.suffix == ".safetensors"]
    for file in files:
        _add_file(digest, file)
    return digest.hexdigest()[:12]


def _in_cache(hub_id: str) -> bool:
    return cached_file(hub_id, "config.json") is not None


def cached_file(hub_id: str, name: str) -> Path | None:
    """A file of a hub repository in the local cache, or None."""
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(hub_id, name)
    return Path(cached) if isinstance(cached, str) else None
