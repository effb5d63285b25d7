"""Environment variables, and the .env file that may set them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from icltool.errors import ConfigError

#: Variables that icltool and the published projects read, with their meaning.
VARIABLES: dict[str, str] = {
    "ICLTOOL_WORKSPACE": "workspace: data sets, embeddings, sequences, checkpoints, evaluations",
    "COCO_PATH": "COCO: the folder that holds mscoco/ (images and annotations)",
    "VQAV2_PATH": "VQAv2: questions and annotations",
    "OKVQA_PATH": "OK-VQA: questions and annotations",
    "SHERLOCK_PATH": "Sherlock: sherlock_dataset/, vcr1images/ and vg/",
    "PERSONALITY_CAPTIONS_PATH": "PersonalityCaptions: its JSON files, personalities.txt and yfcc_images/",
    "CHECKPOINT_PATH": "further folder of model weights, as MODEL_CPK_DIR",
    "MODEL_CPK_DIR": "weights of LVLMs, a folder per model, such as idefics-9b",
    "ICLTOOL_SPICE_MODELS": "SPICE: the folder of CoreNLP's jars, stanford-corenlp-3.6.0.jar and its models",
    "ICLTOOL_MAX_IMAGE_PIXELS": "pixels of the largest image that is read",
    "RESULT_DIR": "results of the published projects; icltool writes to its workspace",
}


#: Further variables that a .env file may set. The .env file of a downloaded folder must not decide what runs, so PATH,
#: JAVA_HOME, LD_PRELOAD, PYTHONPATH and the address of the hub are not among them.
FURTHER = ("CUDA_VISIBLE_DEVICES", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN")


@dataclass(frozen=True)
class EnvFile:
    """A .env file that was read, and the names in it that were ignored."""

    path: Path
    ignored: tuple[str, ...]


def find_env_file(folder: Path | None = None) -> Path | None:
    """The file .env in the folder (by default the current one); folders above it are not searched, since others may have
    written those files. Raises ConfigError if the current folder has been removed."""
    try:
        path = (folder or Path.cwd()).resolve() / ".env"
    except FileNotFoundError:
        raise ConfigError("the current folder has been removed", "change to an existing folder") from None
    return path if path.is_file() else None


def load_environment(folder: Path | None = None) -> EnvFile | None:
    """Sets the variables of the .env file that icltool knows; returns None if there is no file.

    A variable that is already set keeps its value. Raises ConfigError, with the file and line that cannot be read.
    """
    path = find_env_file(folder)
    if path is None:
        return None
    from dotenv import dotenv_values
    from dotenv.parser import parse_stream

    try:
        with path.open(encoding="utf-8") as stream:
            bad = next((b for b in parse_stream(stream) if b.error), None)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} cannot be read: {error}", "the file must be UTF-8 text, one NAME=value per line"
        ) from error
    if bad is not None:
        raise ConfigError(f"{path}, line {bad.original.line}: not of the form NAME=value", "correct or remove the line")
    ignored = []
    for name, value in dotenv_values(path, encoding="utf-8").items():
        if name not in VARIABLES and name not in FURTHER:
            ignored.append(name)
        elif value is not None:
            os.environ.setdefault(name, value)
    return EnvFile(path, tuple(ignored))
