"""Where a model's weights are: inside the package, in a folder, in the local hub cache, or on the hub when asked for."""

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
from icltool.errors import ConfigError, DataError, IclWarning, StoreError
from icltool.store.makers import content_mark

if TYPE_CHECKING:
    from icltool.components.models.shared.options import TransformersOptions

#: Environment variables that name a folder of models, each in a folder by its hub id or its name.
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
#: What a loading error that speaks of the first lacks, one file of the second.
_NEEDED: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("",), ("config.json",)),
    (("processor", "feature extractor"), ("processor_config.json", "preprocessor_config.json")),
    (("tokenizer",), _TOKENIZERS),
)
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_SAMPLE = 1 << 20  # bytes hashed at either end of a weights file; whole files of tens of GB would take minutes


@dataclass(frozen=True)
class Weights:
    """`source` is what `from_pretrained` takes; `local_only` forbids the network. `fine_tuned` is a file of weights that
    are to be laid over it (see `models.fine_tuned`). Only where it is `trusted` does code of the repository run."""

    source: str
    local_only: bool
    fine_tuned: FineTuned | None = None
    trusted: bool = False

    @property
    def where(self) -> dict[str, bool]:
        """For every `from_pretrained`. Nobody is ever asked whether code of a repository may run."""
        return {"local_files_only": self.local_only, "trust_remote_code": self.trusted}


def packaged_weights(name: str) -> Path:
    """The folder of weights that ship inside icltool. DataError when the installation is incomplete."""
    folder = Path(str(resources.files("icltool.world") / "weights" / name))
    if not folder.is_dir():
        raise DataError(f"packaged weights {name!r} are missing from {folder}", "reinstall icltool")
    return folder


def find_weights(name: str, packaged: str | None, hub_id: str | None, path: str | None) -> Weights:
    """Looks in this order: `path` (a folder, or a hub id that the user named), the package, MODEL_CPK_DIR,
    CHECKPOINT_PATH, the hub cache. Where `path` is a file or folder of fine-tuned weights, those that their training began
    with are looked for in the same way, and where they were then.

    Raises ConfigError when there is nothing, saying what would help. Only a hub id in `path` permits a download.
    """
    if path is not None:
        if (file := fine_tuned_file(Path(path))) is not None:
            return _below(name, packaged, hub_id, read_fine_tuned(file))
        if Path(path).is_dir():
            _expect_weights(Path(path))
            return Weights(path, local_only=True)
        if _HUB_ID.fullmatch(path):
            if not _in_cache(path):
                warnings.warn(f"downloading {path} from the hub, which takes its time", IclWarning, stacklevel=2)
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
    raise ConfigError(
        f"weights of {name} are not on this machine: not in the hub cache, {where}",
        f"--model-path DIR uses a folder, --model-path {hub_id} downloads them; --model tiny-idefics, which comes along, works "
        "without",
    )


def weights_of(options: TransformersOptions) -> Weights:
    """The weights that the options name; see `find_weights`."""
    found = find_weights(options.name, options.packaged, options.hub_id, options.path)
    return replace(found, trusted=options.trusted)


#: What is read of a model's folder.
_READ = frozenset({".json", ".safetensors", ".bin", ".pt", ".jinja", ".model", ".txt"})


def check_files(folder: Path) -> None:
    """ConfigError for a folder with something that cannot be read to its end in the place of a file."""
    for entry in sorted(folder.iterdir()):
        if entry.suffix in _READ and not entry.is_file() and not entry.is_dir():
            raise ConfigError(
                f"{entry} is no file: a pipe, a device, or a link that leads nowhere",
                "remove it, or put the file there",
            )


def _expect_weights(folder: Path) -> None:
    """ConfigError for a folder that a training or an export left, and that has lost its weights."""
    check_files(folder)
    ours = any((folder / name).is_file() for name in ("training.json", "icltool.json"))
    if ours and not (folder / "config.json").is_file():
        there = ", ".join(sorted(p.name for p in folder.glob("*.safetensors"))) or "none"
        raise ConfigError(
            f"{folder} lacks {CHOICES[0]}, its fine-tuned weights; weights there: {there}",
            "restore it, give one of the other files as --model-path, or train again",
        )


def file_fault(folder: Path, error: str) -> str:
    """Which file of a model's folder explains `error`, in words: one that is no JSON, or one that is missing; "" where that
    cannot be told from the files."""
    for file in sorted(folder.glob("*.json")):
        try:
            json.loads(file.read_bytes())
        except (OSError, ValueError, RecursionError) as fault:
            return f"{file.name} is cut or malformed: {' '.join(str(fault).split())}"
    for words, names in _NEEDED:
        if any(word in error.lower() for word in words) and not any((folder / name).is_file() for name in names):
            return f"{' or '.join(names[:2])} is missing there"
    return ""


def _below(name: str, packaged: str | None, hub_id: str | None, fine_tuned: FineTuned) -> Weights:
    """The weights that fine-tuned ones are laid over. ConfigError where they are not found, or others than they were."""
    if fine_tuned.model != name:
        raise ConfigError(
            f"{fine_tuned.file} is a fine-tuned {fine_tuned.model}, not {name}", f"use --model {fine_tuned.model}"
        )
    moved = bool(fine_tuned.base) and not Path(fine_tuned.base).is_dir() and (packaged or hub_id) is not None
    found = find_weights(name, packaged, hub_id, None if moved or not fine_tuned.base else fine_tuned.base)
    check_fine_tuned(fine_tuned, name, weights_hash(found.source))
    return Weights(found.source, found.local_only, fine_tuned)


def fingerprint(folder: str, *extra: str) -> str:
    """12 hex characters that change with the configuration, the weights and `extra`.

    Of each weights file the size and both ends are hashed. For a hub id the id itself stands for the files.
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
    """Adds a file's name, size, and both ends."""
    size = file.stat().st_size
    digest.update(f"{file.name}:{size}".encode())
    with file.open("rb") as handle:
        digest.update(handle.read(_SAMPLE))
        if size > _SAMPLE:
            handle.seek(max(_SAMPLE, size - _SAMPLE))
            digest.update(handle.read())


def weights_mark(name: str, options: Mapping[str, object], path: str | None) -> str:
    """What stands for the content of the weights that a model of this name, registered with `options`, would be loaded with;
    "" where they are not on this machine, or the model finds them in a way of its own."""
    packaged, hub_id = (str(options[key]) if options.get(key) else None for key in ("packaged", "hub_id"))
    if path is None and packaged is None and hub_id is None:
        return ""
    if path is not None and not Path(path).exists():
        return content_mark(_folder_of(path))
    try:
        found = find_weights(name, packaged, hub_id, path)
    except (ConfigError, DataError, StoreError):  # loading says why
        return "" if path is None else content_mark(Path(path))
    fine_tuned = found.fine_tuned.digest if found.fine_tuned is not None else ""
    return "-".join(filter(None, (content_mark(_folder_of(found.source)), fine_tuned)))


def _folder_of(source: str) -> Path:
    """Where the files lie that `from_pretrained` reads: a hub id is looked up in the local cache."""
    if Path(source).is_dir() or not _HUB_ID.fullmatch(source):
        return Path(source)
    config = cached_file(source, "config.json")
    return Path(source) if config is None else config.parent


def weights_hash(source: str) -> str:
    """12 hex characters of the weights alone, wherever they lie: a hub id is looked up in the local cache. Of each file the
    size and both ends are hashed, in the order of their names."""
    root = _folder_of(source)
    if not root.is_dir():
        return hashlib.sha256(source.encode()).hexdigest()[:12]
    digest = hashlib.sha256()
    files = sorted(f for f in root.iterdir() if f.suffix in {".safetensors", ".bin", ".pt"})
    if any(f.suffix == ".safetensors" for f in files):  # other files beside them hold the same weights once more
        files = [f for f in files if f.suffix == ".safetensors"]
    for file in files:
        _add_file(digest, file)
    return digest.hexdigest()[:12]


def _in_cache(hub_id: str) -> bool:
    return cached_file(hub_id, "config.json") is not None


def cached_file(hub_id: str, name: str) -> Path | None:
    """A file of a hub repository in the local cache; None where it is not there."""
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(hub_id, name)
    return Path(cached) if isinstance(cached, str) else None
