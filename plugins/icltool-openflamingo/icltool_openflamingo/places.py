"""The location of the three parts of a model: its checkpoint, its language model and its CLIP."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from icltool import ConfigError, Weights

CHECKPOINT = "checkpoint.pt"
CLIP_CONFIG = "open_clip_config.json"


@dataclass(frozen=True)
class Parts:
    """`checkpoint` is the file, `clip` a folder with open_clip_config.json. `identities` are the folder or hub id of each part,
    as `icltool.fingerprint` takes them."""

    checkpoint: Path
    language_model: Weights
    clip: Path
    identities: tuple[str, str, str]


class PartFinder:
    """Looks for each part in the model's folder, in MODEL_CPK_DIR, CHECKPOINT_PATH and the local hub cache, in this order.

    `path` is the folder with checkpoint.pt (and optionally `language_model/` and `clip/`), or a hub id, which permits
    downloads.
    """

    def __init__(self, name: str, path: str | None) -> None:
        self.name = name
        self.folder = Path(path) if path is not None and Path(path).is_dir() else None
        self.named = path if path is not None and self.folder is None else None
        if self.named is not None and not _is_hub_id(self.named):
            raise ConfigError(f"model path {path!r} is neither a folder nor a hub id of the form owner/name")

    def find(self, checkpoint: str | None, language_model: str, clip: str) -> Parts:
        """The parts, given by hub ids; `language_model` and `clip` may be folders. Raises ConfigError for a missing part."""
        state, state_id = self._checkpoint(checkpoint)
        tower, tower_id = self._part("CLIP", clip, "clip", CLIP_CONFIG)
        text, text_id = self._part("language model", language_model, "language_model", "config.json")
        weights = Weights(language_model, local_only=False) if text is None else Weights(str(text), local_only=True)
        folder = _download(clip, [CLIP_CONFIG, "open_clip_model.safetensors"]) if tower is None else tower
        return Parts(state / CHECKPOINT, weights, folder, (state_id, text_id, tower_id))

    def _checkpoint(self, hub_id: str | None) -> tuple[Path, str]:
        """(folder, identity) of checkpoint.pt."""
        if self.folder is not None:
            if not (self.folder / CHECKPOINT).is_file():
                layout = f"add {CHECKPOINT}, and also language_model/ and clip/ unless they are in another place"
                raise ConfigError(f"{self.folder} contains no {CHECKPOINT}", layout)
            return self.folder, str(self.folder)
        if self.named is not None:
            return _download(self.named, [CHECKPOINT]), self.named
        if hub_id is None:
            raise ConfigError(f"model {self.name!r} needs a path", f"give --model-path DIR, a folder with {CHECKPOINT}")
        location = _in_checkpoint_folder(hub_id, CHECKPOINT) or _in_hub_cache(hub_id, CHECKPOINT)
        if location is None:
            raise self._missing("checkpoint", hub_id)
        return location

    def _part(self, what: str, folder_or_id: str, subfolder: str, file: str) -> tuple[Path | None, str]:
        """(folder, identity) of a part; the folder is None if it may be downloaded."""
        if Path(folder_or_id).is_dir():
            if not (Path(folder_or_id) / file).is_file():
                raise ConfigError(
                    f"the {what} of {self.name}: {folder_or_id} contains no {file}", "name another folder"
                )
            return Path(folder_or_id), folder_or_id
        if self.folder is not None and (self.folder / subfolder / file).is_file():
            return self.folder / subfolder, str(self.folder / subfolder)
        if not _is_hub_id(folder_or_id):
            raise ConfigError(
                f"the {what} of {self.name}: {folder_or_id!r} is neither a folder nor a hub id owner/name"
            )
        location = _in_checkpoint_folder(folder_or_id, file)
        if location is not None:
            return location
        if self.named is not None:
            return None, folder_or_id  # a download completes what the hub cache has
        location = _in_hub_cache(folder_or_id, file)
        if location is None:
            raise self._missing(what, folder_or_id, subfolder)
        return location

    def _missing(self, what: str, hub_id: str, subfolder: str | None = None) -> ConfigError:
        roots = _roots()
        where = "nor in " + " or ".join(f"{name} ({root})" for name, root in roots.items())
        where = where if roots else "and MODEL_CPK_DIR is not set"
        if self.folder is not None and subfolder is not None:
            where = f"{where}, nor in {self.folder / subfolder}"
        owner_name = "OWNER/NAME of its checkpoint to download all parts"
        return ConfigError(
            f"the {what} of {self.name} ({hub_id}) is not on this machine: not in the hub cache, {where}",
            f"use --model-path DIR, a folder with {CHECKPOINT}, language_model/ and clip/; or --model-path {owner_name}",
        )


def _in_checkpoint_folder(hub_id: str, file: str) -> tuple[Path, str] | None:
    """(folder, identity) of a hub repository's copy in MODEL_CPK_DIR or CHECKPOINT_PATH, under its whole id or the name
    alone."""
    for root in _roots().values():
        for candidate in (hub_id, hub_id.partition("/")[2]):
            if (Path(root) / candidate / file).is_file():
                return Path(root) / candidate, str(Path(root) / candidate)
    return None


def _roots() -> dict[str, str]:
    """The folders of models that environment variables name; the second is that of the published code."""
    return {name: os.environ[name] for name in ("MODEL_CPK_DIR", "CHECKPOINT_PATH") if os.environ.get(name)}


def _in_hub_cache(hub_id: str, file: str) -> tuple[Path, str] | None:
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(hub_id, file)
    return (Path(cached).parent, hub_id) if isinstance(cached, str) else None


def _download(hub_id: str, files: list[str]) -> Path:
    """The local folder of `files` of a hub repository."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(hub_id, allow_patterns=files))
    except Exception as error:  # network, access rights, names: the hub's errors share no base class
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ConfigError(f"{hub_id} cannot be downloaded: {lines[0]}", "check the name and the connection") from error


def _is_hub_id(text: str) -> bool:
    return re.fullmatch(r"[\w.-]+/[\w.-]+", text) is not None
