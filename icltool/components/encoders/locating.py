"""Locating the files of an encoder, and telling from them which class reads it."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import warnings
from pathlib import Path
from typing import Any

from icltool.components.models.shared.weights import FOLDERS, cached_file, check_files
from icltool.errors import ConfigError, IclWarning

#: The registered names of the classes that read any encoder of their kind.
OPEN_CLIP, IMAGE_TEXT, IMAGES, TEXTS = "open-clip", "image-text-encoder", "image-encoder", "text-encoder"
#: Suffixes of weights files.
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
#: Files of a repository that are downloaded; the others hold the same weights for other libraries.
_DOWNLOADED = ["*.json", "*.txt", "*.model", "*.safetensors"]
_IGNORED = ["onnx/*", "openvino/*", "*/onnx/*", "*/openvino/*"]
#: Keys of config.json that only models of images have.
_OF_IMAGES = ("image_size", "num_channels", "patch_size")


def is_hub_id(path: str) -> bool:
    """Whether `path` has the form OWNER/NAME and is not a file or folder."""
    return _HUB_ID.fullmatch(path) is not None and not Path(path).exists()


def open_clip_tag(path: str) -> tuple[str, str] | None:
    """(architecture, tag) if `path` has the form ARCHITECTURE/TAG with an architecture of open_clip, else None."""
    if not is_hub_id(path):
        return None
    architecture, _, tag = path.partition("/")
    package = importlib.util.find_spec("open_clip")  # importing it takes seconds
    places = [] if package is None else list(package.submodule_search_locations or ())
    known = any((Path(place) / "model_configs" / f"{architecture}.json").is_file() for place in places)
    return (architecture, tag) if known else None


def locate(name: str, hub_id: str | None, path: str | None) -> Path:
    """The folder of an encoder's files: `path` (a folder, or OWNER/NAME, which permits a download), else `hub_id` in
    MODEL_CPK_DIR, CHECKPOINT_PATH or the hub's cache.

    Raises ConfigError if there is none; the hint says what would help.
    """
    if path is not None:
        if Path(path).is_dir():
            check_files(Path(path))
            return Path(path)
        if is_hub_id(path):
            return _cached(path) or _downloaded(name, path)
        what = "is a file, not a folder" if Path(path).exists() else "does not exist"
        raise ConfigError(f"encoder {name!r}: {path} {what}", "give a folder, or OWNER/NAME of the Hugging Face hub")
    if hub_id is None:
        raise ConfigError(f"encoder {name!r} needs a path", "give --encoder-path DIR or --encoder-path OWNER/NAME")
    roots = [Path(os.environ[variable]) for variable in FOLDERS if os.environ.get(variable)]
    folders = [root / part for root in roots for part in (hub_id, hub_id.partition("/")[2])]
    there = next((folder for folder in folders if (folder / "config.json").is_file()), None) or _cached(hub_id)
    if there is None:
        raise ConfigError(
            f"weights of encoder {name!r} are not on this machine",
            f"use --encoder-path {hub_id} to download them, or --encoder-path DIR for a local folder",
        )
    return there


def kind_of(name: str, folder: Path) -> str:
    """The registered name of the class that reads the encoder in `folder`, by its files. ConfigError if these describe
    none."""
    if (folder / "open_clip_config.json").is_file():
        return OPEN_CLIP
    if (folder / "modules.json").is_file():
        return TEXTS
    config = read_json(name, folder / "config.json")
    if any(key in config for key in ("vision_config", "image_config")):
        return IMAGE_TEXT
    if "vocab_size" in config:
        return TEXTS
    if config.get("model_type") == "timm_wrapper" or any(key in config for key in _OF_IMAGES):
        return IMAGES
    raise ConfigError(
        f"encoder {name!r}: {folder / 'config.json'} describes a model of neither images nor texts",
        "choose an image, text or image-text encoder of transformers, open_clip or sentence-transformers",
    )


def read_json(name: str, file: Path) -> dict[str, Any]:
    """The object in a JSON file of an encoder. ConfigError if there is none."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(
            f"encoder {name!r}: {file} is missing",
            "give a folder that open_clip, transformers or sentence-transformers wrote",
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"encoder {name!r}: {file} cannot be read: {reason:.200}", "download it again") from error
    if not isinstance(content, dict):
        raise ConfigError(f"encoder {name!r}: {file} does not contain a JSON object", "download it again")
    return content


def _cached(hub_id: str) -> Path | None:
    """The folder of a hub repository in the local cache, if it has weights."""
    for file in ("config.json", "open_clip_config.json", "modules.json"):
        file_path = cached_file(hub_id, file)
        if file_path is not None and any(path.suffix in WEIGHTS for path in file_path.parent.rglob("*")):
            return file_path.parent
    return None


def _downloaded(name: str, hub_id: str) -> Path:
    from huggingface_hub import snapshot_download

    warnings.warn(f"downloading {hub_id} from the hub; this may take a while", IclWarning, stacklevel=3)
    try:
        folder = Path(snapshot_download(hub_id, allow_patterns=_DOWNLOADED, ignore_patterns=_IGNORED))
        if not any(folder.rglob("*.safetensors")):
            folder = Path(snapshot_download(hub_id, allow_patterns=[*_DOWNLOADED, "*.bin"], ignore_patterns=_IGNORED))
    except Exception as error:  # each release of huggingface_hub has errors of its own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigError(
            f"encoder {name!r} cannot be loaded from {hub_id}: there is no such folder, and it cannot be downloaded: "
            f"{reason:.200}",
            "check the name and the connection; for a repository with terms, accept these and run `hf auth login`",
        ) from error
    return folder
