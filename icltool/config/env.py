"""Environment variables, and the .env file that stands in for them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from icltool.errors import ConfigError

#: Variables that icltool and the published projects know, with what they hold.
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


#: Others that a .env file may set. A file of a folder that somebody downloaded is not to decide what runs: PATH, JAVA_HOME,
#: LD_PRELOAD, PYTHONPATH, or where the hub is.
FURTHER = ("CUDA_VISIBLE_DEVICES", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN")


@dataclass(frozen=True)
class EnvFile:
    """A .env file that was read, and the names in it that were left alone."""

    path: Path
    ignored: tuple[str, ...]


def find_env_file(folder: Path | None = None) -> Path | None:
    """The file called .env in the folder (the current one), not of any above it: who made those is not known. ConfigError
    where the current folder has been removed."""
    try:
        path = (folder or Path.cwd()).resolve() / ".env"
    except FileNotFoundError:
        raise ConfigError("the current folder has been removed", "change into one that is there") from None
    return path if path.is_file() else None


def load_environment(folder: Path | None = None) -> EnvFile | None:
    """Puts the variables of the .env file that icltool knows into the environment (None: there is no file).

    A variable that is set already keeps its value. Raises ConfigError naming the file and line that cannot be read.
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
        raise ConfigError(f"{path} cannot be read: {error}", "it should be UTF-8 text of lines NAME=value") from error
    if bad is not None:
        raise ConfigError(f"{path}, line {bad.original.line}: not of the form NAME=value", "correct or remove the line")
    ignored = []
    for name, value in dotenv_values(path, encoding="utf-8").items():
        if name not in VARIABLES and name not in FURTHER:
            ignored.append(name)
        elif value is not None:
            os.environ.setdefault(name, value)
    return EnvFile(path, tuple(ignored))
