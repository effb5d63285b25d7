"""A model's first prompt: files that do not fit one another often load, and fail when the model is asked."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from icltool.contracts import Example, Model, Task
from icltool.errors import ConfigError, IclError

_CHOICES = ("yes", "no")


def check_first_prompt(model: Model, name: str, path: str, task: Task | str) -> None:
    """Scores the answer to one query of `task` with a small grey image and no demonstrations; without the image where the
    model refuses it. What a model refuses altogether shows nothing here.

    Raises ConfigError, with what `model`, named `name` and loaded from `path`, raised: a tokenizer of more tokens than the
    model has, an image processor for images of another size. What is wrong with the machine (memory) is raised as it is.
    """
    import torch
    from PIL import Image

    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "grey.png"
        Image.new("RGB", (64, 48), (128, 128, 128)).save(image)
        text = "what is this?"
        query = Example(-1, str(image), -1, text, "yes", _CHOICES[:1], question=text, choices=_CHOICES, style="Calm")
        try:
            with suppress(IclError):
                model.score([model.prompt(task, (), query)], 1)
                return
            with suppress(IclError):
                model.score([model.prompt(task, (), replace(query, image=""))], 1)
        except (torch.OutOfMemoryError, MemoryError):
            raise
        except Exception as error:
            message = " ".join(str(error).split())[:240]
            raise ConfigError(
                f"model {name}, loaded from {path}, cannot read its first prompt: {type(error).__name__}: {message}",
                "its files do not fit one another (config.json, the tokenizer's and the image processor's): get them again",
            ) from error
