"""A fine-tuned model: as a folder that other programs read, or as a backup."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icltool.commands.export.archive import write_archive
from icltool.commands.export.options import ExportConfig
from icltool.commands.export.places import input_of
from icltool.commands.export.scrubbing import (
    paths_in,
    place_of_model,
    rewrite_header,
    text_without_paths,
    without_paths,
)
from icltool.contracts import Progress, StageReport, SupportsFineTuning
from icltool.contracts.json import Json
from icltool.errors import ConfigError, IclError, StoreError
from icltool.plugin.manager import component
from icltool.releases import __version__
from icltool.store.atomic import read_json, sync, sync_folder, write_json, write_text, writing
from icltool.store.outputs import output_of
from icltool.store.workspace import TRAINED, Workspace

if TYPE_CHECKING:
    from icltool.components.models.shared.fine_tuned import FineTuned

LEARNER = "captioner"
CARD, MANIFEST, ENDING = "README.md", "icltool.json", ".tar.gz"
SCHEMA, VERSION = "icltool.exported-model", 2
#: Files of transformers that may say where they were read from.
_OF_TRANSFORMERS = ("config.json", "generation_config.json", "tokenizer_config.json", "preprocessor_config.json")
_MEGABYTE = 10**6


def export_model(config: ExportConfig, format: str, progress: Progress) -> StageReport:
    """The whole model with its fine-tuned weights, or those alone (`--weights fine-tuned`), as a folder or a tar.gz.

    Raises StoreError if the checkpoint is missing or damaged or the output cannot be written, ConfigError if the weights
    that the training started from are missing.
    """
    from icltool.components.models.shared.fine_tuned import read_fine_tuned

    file = _weights(config)
    fine_tuned = read_fine_tuned(file)
    name = f"{file.parent.resolve().name}-{file.stem}"
    packed = format == "tar.gz"
    target = output_of(config, name + (ENDING if packed else ""), (file.parent, file), folder=not packed)
    if not packed:
        _check_replaced(target)
    whole = (config.weights or "whole") == "whole"
    if not whole and config.dtype is not None:
        raise ConfigError("--dtype has no effect with --weights fine-tuned", "leave it out")
    with _beside(target) as content:
        if whole:
            _whole(fine_tuned, content, config.dtype or "float32", progress)
        configuration = _configuration(fine_tuned, content, config.configuration or "whole", whole)
        write_json(content / MANIFEST, _manifest(content, fine_tuned, whole, configuration))
        files = _with_permissions(content)
        size = sum(path.stat().st_size for path in files)
        if packed:
            write_archive(target, content, target.name.removesuffix(ENDING).removesuffix(".tgz"), progress)
        else:
            _take_place(content, target)
    row = {
        "what": "model",
        "format": format,
        "model": fine_tuned.model,
        "checkpoint": file.stem,
        "weights": "whole" if whole else "fine-tuned",
        "configuration": config.configuration or "whole",
        "files": len(files),
        "MB": round(size / _MEGABYTE, 1),
        "file" if packed else "folder": str(target),
    }
    use = "unpack it and give its folder as --model" if packed else f"--model {target} takes it"
    return StageReport(f"Exported {name}", (row,), target, (use,))


def _weights(config: ExportConfig) -> Path:
    """The requested file of fine-tuned weights."""
    source = input_of(config, lambda w: _newest(w, config))
    if source.is_file():
        if config.checkpoint is not None and source.stem != config.checkpoint:
            raise ConfigError(f"--input {source} is already a file", "leave --checkpoint out")
        return source
    file = source / f"{config.checkpoint or 'best'}.safetensors"
    if file.is_file():
        return file
    there = ", ".join(sorted(p.stem for p in source.glob("*.safetensors"))) or "none"
    if (source / MANIFEST).is_file():
        raise StoreError(
            f"{source} is an exported model", "copy it as it is, or export the checkpoint that it came from"
        )
    raise StoreError(
        f"{file} does not exist; checkpoints there: {there}", "choose one with --checkpoint, or train again"
    )


def _newest(workspace: Workspace, config: ExportConfig) -> Path:
    """The newest checkpoint folder of the only data set and task that a model was trained on; where there are several, of the
    one that is meant as everywhere else. StoreError that lists them where none is."""
    learner = config.learner or LEARNER
    trained = workspace.trained(learner)
    fitting = [(n, t) for n, t in trained if config.dataset in (None, n) and config.task in (None, t)]
    if len(fitting) == 1:
        return workspace.newest_checkpoint(learner, *fitting[0])
    try:
        chosen = workspace.choose_dataset(config.dataset, config.task)
    except StoreError as error:
        if not trained:
            raise
        listed = ", ".join(f"{name} ({task})" for name, task in fitting or trained)
        problem = f"a {learner} was trained on {listed}"
        if fitting:
            name, task = fitting[0]
            raise StoreError(f"which one? {problem}", f"for example --dataset {name} --task {task}") from error
        raise StoreError(error.message, f"{error.hint}; {problem}") from error
    return workspace.newest_checkpoint(learner, *chosen)


def _whole(fine_tuned: FineTuned, content: Path, dtype: str, progress: Progress) -> None:
    """Loads the model on the CPU and lets its adapter write it."""
    progress.detail(f"loading {fine_tuned.model} with {fine_tuned.file}")
    try:
        model: Any = component("models", fine_tuned.model, path=str(fine_tuned.file), device="cpu", dtype=dtype)
    except IclError as error:
        hint = f"{error.hint}; or export what was trained alone: --weights fine-tuned"
        raise ConfigError(f"the whole {fine_tuned.model} cannot be exported: {error.message}", hint) from error
    if not isinstance(model, SupportsFineTuning):
        raise ConfigError(
            f"{fine_tuned.model} cannot be exported as a whole", "export what was trained: --weights fine-tuned"
        )
    model.export(content)


def _configuration(fine_tuned: FineTuned, content: Path, form: str, whole: bool) -> str:
    """Writes the training's record and the card as `form` wants them, and the fine-tuned weights unless the whole model is
    there. What the model itself needs to be read stays in every form."""
    folder = fine_tuned.file.parent
    record = read_json(folder / TRAINED) if (folder / TRAINED).is_file() else {}
    places = (
        paths_in(record)
        | paths_in(dict(fine_tuned.about))
        | ({fine_tuned.base} if _is_place(fine_tuned.base) else set())
    )
    card = _card(folder) if form != "none" else ""
    if form == "no-paths":
        for place in sorted(places, key=len, reverse=True):
            card = card.replace(place, "…")
        record, card = without_paths(record), text_without_paths(card)
    if record and form != "none":
        write_json(content / TRAINED, record)
    if form != "whole":
        for name in _OF_TRANSFORMERS:
            if (content / name).is_file():
                write_json(content / name, place_of_model(read_json(content / name)))
    if not whole:
        with writing(content):
            if form == "whole":
                shutil.copyfile(fine_tuned.file, content / fine_tuned.file.name)
            else:
                rewrite_header(fine_tuned.file, content / fine_tuned.file.name, lambda header: _header(header, form))
    write_text(content / CARD, _with_copy(card, fine_tuned, form, whole))
    return form


def _header(header: Mapping[str, Json], form: str) -> dict[str, Json]:
    """A header of fine-tuned weights without paths, in the form "none" without what the learner recorded, too."""
    about = {} if form == "none" else without_paths(header["about"])
    base = "" if _is_place(str(header["base"])) else header["base"]
    return {**header, "base": base, "about": about, "adapter": without_paths(header["adapter"])}


def _is_place(base: str) -> bool:
    """Whether the weights below were in a folder, not named by their hub id."""
    return bool(base) and (Path(base).is_absolute() or Path(base).exists() or base.count("/") != 1)


def _manifest(content: Path, fine_tuned: FineTuned, whole: bool, form: str) -> dict[str, Json]:
    """`icltool.json`, by which `--model FOLDER` knows the model: what the adapter wrote there, and what this copy is."""
    written = read_json(content / MANIFEST) if (content / MANIFEST).is_file() else {}
    if form != "whole":
        written = {**without_paths(written), **({"about": {}} if form == "none" and "about" in written else {})}
    copy = {
        "schema": SCHEMA,
        "schema_version": VERSION,
        "weights": "whole" if whole else "fine-tuned",
        "fine_tuned": fine_tuned.digest,
        "base_hash": fine_tuned.base_hash,
        "configuration": form,
        "icltool": __version__,
    }
    return {**written, "model": fine_tuned.model, "copy": copy}


def _card(folder: Path) -> str:
    path = folder / CARD
    try:
        return path.read_text(encoding="utf-8") if path.is_file() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"{path}, the model's card, cannot be read: {error}", "run `icltool train` again") from error


def _with_copy(card: str, fine_tuned: FineTuned, form: str, whole: bool) -> str:
    """The card with a section that says what this copy holds."""
    holds = (
        "the whole model, with the fine-tuned weights in it"
        if whole
        else f"the fine-tuned weights alone, to be laid over those of {fine_tuned.model} that the training began with"
    )
    left = {
        "whole": "with the configuration of the training",
        "no-paths": "with the configuration of the training, without paths",
        "none": "without the configuration of the training",
    }[form]
    start = card.rstrip() or f"# {fine_tuned.model}, fine-tuned"
    return (
        f"{start}\n\n## This copy\n\nExported by icltool {__version__}: `{fine_tuned.file.name}`, {holds}, {left}.\n\n"
        f"    icltool caption --model FOLDER --input images.json\n"
    )


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """An empty folder beside `target`, removed at the end if it is still there."""
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
        folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _with_permissions(content: Path) -> list[Path]:
    """All files below `content`, readable for those whom the process's mask lets read new files, as its folders: temporary
    folders are for their owner alone, and so are the files that safetensors writes."""
    mode = (content / MANIFEST).stat().st_mode & 0o666  # made by an ordinary write
    files = []
    with writing(content):
        for path in [content, *content.rglob("*")]:
            if path.is_dir():
                path.chmod(mode | (mode & 0o444) >> 2)
            else:
                path.chmod(mode)
                files.append(path)
    return files


def _check_replaced(target: Path) -> None:
    """Nothing but an exported model is ever replaced: a folder of other files may be anything."""
    if target.is_dir() and any(target.iterdir()):
        try:
            ours = json.loads((target / MANIFEST).read_text(encoding="utf-8"))["copy"]["schema"] == SCHEMA
        except (OSError, ValueError, KeyError, TypeError):
            ours = False
        if not ours:
            raise StoreError(f"{target} contains files that are not part of an exported model", "give another --output")


def _take_place(content: Path, target: Path) -> None:
    """Renames `content` to `target`; what was there is removed once the new one is in its place."""
    with writing(target):
        for file in content.rglob("*"):
            if file.is_file():
                sync(file)
        with _beside(target) as old:
            if target.exists():
                target.rename(old / "before")
            content.rename(target)
        sync_folder(target.parent)
