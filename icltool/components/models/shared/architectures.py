"""Which adapter reads a checkpoint, by its config.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from icltool.components.models.shared.weights import HUB_ID, cached_file, no_folder
from icltool.errors import ConfigError

#: The adapters that read any architecture of their kind, as they are registered.
CHAT, TEXT = "image-text-to-text", "text-llm"


def checkpoint_config(path: str) -> Mapping[str, object] | None:
    """The content of config.json of the checkpoint `path`, a folder or OWNER/NAME of the hub; None if the folder has none.

    The file of a hub checkpoint is downloaded unless the hub's cache has it. Raises ConfigError for a folder that does not
    exist, for a file that is not a JSON object, and if the hub cannot be reached.
    """
    if Path(path).is_dir():
        file = Path(path) / "config.json"
    elif HUB_ID.fullmatch(path) and not no_folder(path):
        file = cached_file(path, "config.json") or _downloaded(path)
    else:
        raise ConfigError(
            f"--model-path {path}: there is no such folder", "check the path, or give OWNER/NAME of the hub"
        )
    if not file.is_file():
        return None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        message = " ".join(str(error).split())
        raise ConfigError(f"{file} is truncated or malformed: {message}", "download it again") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{file} is malformed: an object was expected", "download it again")
    return content


def generic_adapter(config: Mapping[str, object]) -> str | None:
    """CHAT or TEXT, whichever reads a checkpoint with this config.json by transformers' auto classes; None if neither does.

    An architecture that transformers does not know may come with code of its own, so it counts as CHAT if it has a vision
    encoder, and as TEXT if it calls itself a causal LM.
    """
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as IMAGE_TEXT,
    )

    kind, architectures = str(config.get("model_type")), config.get("architectures")
    architecture = str(architectures[0]) if isinstance(architectures, list) and architectures else ""
    if architecture and architecture == IMAGE_TEXT.get(kind):
        return CHAT
    if kind in CAUSAL and (kind not in IMAGE_TEXT or architecture.endswith("ForCausalLM")):
        return TEXT
    if kind in IMAGE_TEXT or ("vision_config" in config and architecture.endswith("ForConditionalGeneration")):
        return CHAT
    return TEXT if architecture.endswith("ForCausalLM") and "vision_config" not in config else None


def _downloaded(hub_id: str) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(hub_id, "config.json"))
    except Exception as error:  # of the hub, the network and the disk, in many classes
        message = (" ".join(str(error).split()) or type(error).__name__)[:160]
        raise ConfigError(
            f"--model-path {hub_id}: there is no such folder, and its config.json cannot be downloaded: {message}",
            "check the name, connect this machine to the internet, or name the adapter with --model",
        ) from error
