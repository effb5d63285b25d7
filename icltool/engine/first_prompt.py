"""A check of a model by a first prompt: files that do not match often load, and fail on the first forward pass."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from icltool.contracts import Example, Model, Task
from icltool.errors import ConfigError, IclError

_CHOICES = ("yes", "no")


def check_first_prompt(model: Model, name: str, path: str, task: Task | str) -> None:
    """Scores the answer to one query of `task` with a small grey image and no demonstrations, or without the image if the model
    refuses it. A query that the model refuses either way is no error here.

    Raises ConfigError with the error of `model`, which is named `name` and loaded from `path`: a tokenizer with more tokens
    than the model, an image processor for another size. Errors of the machine (memory) pass through.
    """
    import torch
    from PIL import Image

    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "grey.png"
        Image.new("RGB", (64, 48), (128, 128, 128)).save(image)
        text = "what is this?"
        fields = {} if isinstance(task, str) else dict.fromkeys((*task.fields, *task.optional), text)
        query = Example(
            -1, str(image), -1, text, "yes", _CHOICES[:1], question=text, choices=_CHOICES, style="Calm", fields=fields
        )
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
            if isinstance(error, (AttributeError, NotImplementedError)):
                import transformers

                hint = (
                    f"transformers {transformers.__version__} cannot run this architecture: try another release of it"
                )
            else:
                hint = "its files do not match (config.json, the tokenizer's and the image processor's): download them again"
            raise ConfigError(
                f"model {name}, loaded from {path}, cannot read its first prompt: {type(error).__name__}: {message}",
                hint,
            ) from error
