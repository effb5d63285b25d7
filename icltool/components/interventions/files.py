"""Files of interventions: a safetensors file whose header says which model it belongs to, and how it was made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from icltool.contracts import Model, ModelIdentity, SupportsDecoderHooks
from icltool.errors import ConfigError, StoreError
from icltool.store.atomic import replace_file

if TYPE_CHECKING:
    from torch import Tensor

SCHEMA, VERSION = "icltool-intervention", 1
#: The file that a learner leaves in its folder.
WEIGHTS = "last.safetensors"


@dataclass(frozen=True)
class Stored:
    """The content of a file. `tensors` by name; `digest` is a hash of the header and all numbers."""

    path: Path
    method: str
    base: ModelIdentity
    about: dict[str, Any]
    tensors: dict[str, Tensor]
    digest: str

    @property
    def numbers(self) -> int:
        """How many numbers it holds."""
        return sum(tensor.numel() for tensor in self.tensors.values())

    def tensor(self, name: str, *shape: int) -> Tensor:
        """The tensor of this name, if it has this shape (-1: any size). StoreError otherwise."""
        found = self.tensors.get(name)
        if (
            found is None
            or found.ndim != len(shape)
            or any(w not in (-1, n) for n, w in zip(found.shape, shape, strict=True))
        ):
            told = "is missing" if found is None else f"has the shape {list(found.shape)}, not {list(shape)}"
            raise StoreError(f"{self.path} is damaged: its tensor {name!r} {told}", again(self.method))
        return found


def save_intervention(
    path: Path, method: str, base: ModelIdentity, about: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Writes the file whole or not at all; tensors are moved to the CPU. Raises StoreError when it cannot be written."""
    from safetensors.torch import save as to_bytes

    header = {
        "format": "pt",
        "schema": SCHEMA,
        "version": str(VERSION),
        "method": method,
        "base": json.dumps(asdict(base), sort_keys=True),
        "about": json.dumps(dict(about), sort_keys=True),
    }
    content = to_bytes({name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}, header)
    with replace_file(path) as temporary:
        temporary.write_bytes(content)


def read_intervention(path: Path) -> Stored:
    """The content of a file. StoreError where it is missing, unreadable, or none of ours."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise _no_vectors(path, "it is no regular file")
    try:
        path.open("rb").close()  # says more of what is no file than safetensors does
        with safe_open(path, framework="pt") as opened:
            header = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (no mapping)
    except FileNotFoundError as error:
        raise StoreError(f"{path} does not exist", "`icltool train` makes such files: live, mimic, lora …") from error
    except IsADirectoryError as error:
        raise StoreError(f"{path} is a folder", f"name the file in it: {path / WEIGHTS}, say") from error
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror or error}", "check its permissions") from error
    except SafetensorError as error:
        raise _no_vectors(path, f"no safetensors file, or cut short ({error})") from error
    stored = _stored(path, header, tensors, _digest(header, tensors))
    if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
        raise StoreError(f"{path} holds numbers that are not finite", again(stored.method))
    return stored


def check_base(stored: Stored, model: Model) -> SupportsDecoderHooks:
    """The model, if the file was made for it. ConfigError otherwise, in one line.

    Layers and width come first: where they differ, it cannot be the model, whatever its files are called.
    """
    if not isinstance(model, SupportsDecoderHooks):
        raise ConfigError(
            f"model {model.name} has no hooks into its decoder: {stored.method} cannot be used with it",
            "see `icltool plugins show models NAME`",
        )
    made, found = stored.base, model.base_model()
    for what, of, have in (("layers", made.sites, found.sites), ("hidden size", made.width, found.width)):
        if of != have:
            raise ConfigError(
                f"{stored.path} was made for {made.name} ({what}: {of}), not for {found.name} ({what}: {have})",
                _way_out(stored, found),
            )
    if made.weights != found.weights:
        raise ConfigError(
            f"{stored.path} was made for other weights than those of {found.name}: those of {made.name}, hash "
            f"{made.weights}, not {found.weights}",
            _way_out(stored, found),
        )
    return model


def template_remark(stored: Stored, model: SupportsDecoderHooks) -> str:
    """A line where the prompt format is another one than at training; "" where it is the same."""
    if stored.base.template == model.base_model().template:
        return ""
    return "made with another prompt format than this model's is now: see --prompt-template"


def _way_out(stored: Stored, found: ModelIdentity) -> str:
    same = stored.base.name == found.name
    other = "evaluate with --model-path of its weights" if same else f"evaluate with --model {stored.base.name}"
    return f"{other}, or `icltool train {stored.method}` for these{' (--overwrite)' if same else ''}"


def again(method: str) -> str:
    return f"make it again: `icltool train {method}`"


def _stored(path: Path, header: Mapping[str, str], tensors: dict[str, Tensor], digest: str) -> Stored:
    if header.get("schema") != SCHEMA:
        raise _no_vectors(path, "it holds other weights")
    if header.get("version") != str(VERSION):
        raise StoreError(
            f"{path} has schema version {header.get('version')}, this icltool reads {VERSION}",
            again(header.get("method", "live")),
        )
    try:
        raw = json.loads(header["base"])
        base = ModelIdentity(**{f.name: type(raw[f.name])(raw[f.name]) for f in fields(ModelIdentity)})
        return Stored(path, header["method"], base, dict(json.loads(header["about"])), tensors, digest)
    except (KeyError, TypeError, ValueError) as error:
        raise _no_vectors(path, f"its header is damaged ({error})") from error


def _digest(header: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """Of the content, not of the bytes: safetensors writes its header in another order each time."""
    import torch

    shapes = {name: [str(tensor.dtype), *tensor.shape] for name, tensor in tensors.items()}
    made = hashlib.blake2b(json.dumps([dict(header), shapes], sort_keys=True).encode(), digest_size=16)
    for name in sorted(tensors):
        made.update(tensors[name].contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return made.hexdigest()


def _no_vectors(path: Path, why: str) -> StoreError:
    return StoreError(
        f"{path} is no file of vectors: {why}",
        "give a file that `icltool train` left: last.safetensors of live, mimic, lora …",
    )
