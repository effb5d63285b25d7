"""The trained selector, as other programs read it."""

from __future__ import annotations

import shutil
from pathlib import Path

from icltool.commands.export.options import ExportConfig
from icltool.commands.export.places import input_of
from icltool.components.interventions.files import WEIGHTS
from icltool.contracts import Progress, StageReport
from icltool.errors import ConfigError, IclError, StoreError
from icltool.plugin.manager import load_registry
from icltool.releases import __version__
from icltool.store.atomic import read_json, replace_file, write_text
from icltool.store.outputs import output_of
from icltool.store.workspace import TRAINED, Workspace

#: Whose newest checkpoint is meant, and which of its weights, where nothing is said.
LEARNER, CHECKPOINT = "lever-lm", "min_vl"


def export_selector(config: ExportConfig, format: str, progress: Progress) -> StageReport:
    """Copies a checkpoint of a selector into a folder. Raises StoreError where it is missing, damaged, or the folder is taken;
    ConfigError for what is no selector."""
    _refuse_interventions(config)
    source = input_of(
        config, lambda w: w.newest_checkpoint(config.learner or LEARNER, *w.choose_dataset(config.dataset, config.task))
    )
    folder, name = (
        (source.parent, source.stem) if source.suffix == ".safetensors" else (source, config.checkpoint or CHECKPOINT)
    )
    weights = folder / f"{name}.safetensors"
    if not weights.is_file():
        there = ", ".join(sorted(p.stem for p in folder.glob("*.safetensors"))) or "none"
        raise StoreError(
            f"{weights} does not exist; checkpoints there: {there}", "choose one with --checkpoint, or train again"
        )
    tensors, parameters = _count(weights)
    read_json(folder / "config.json")
    card = _card(folder, name)
    target = output_of(config, f"{folder.resolve().name}-{name}", (folder, weights), folder=True)
    others = sorted(p.name for p in target.glob("*.safetensors") if p.name != weights.name)
    if others:
        raise StoreError(f"{target} holds another selector: {', '.join(others)}", "give another --output")
    for file in (weights, folder / "config.json"):
        with replace_file(target / file.name) as temporary:
            shutil.copyfile(file, temporary)
    write_text(target / "README.md", card)
    progress.detail(f"read {folder}")
    row = {
        "what": "selector",
        "format": format,
        "checkpoint": name,
        "tensors": tensors,
        "numbers": parameters,
        "folder": str(target),
    }
    return StageReport(f"Exported {folder.name}", (row,), target)


def _refuse_interventions(config: ExportConfig) -> None:
    """ConfigError for a learner of interventions, or a folder made by one."""
    workspace, learner = Workspace(config.workspace), config.learner or LEARNER
    folder = config.input[0] if config.input else None
    if folder is not None:
        folder = folder if folder.is_dir() else folder.parent
        record = read_json(folder / TRAINED) if (folder / TRAINED).is_file() else {}
        learner = str(record.get("identity", {}).get("learner", ""))
    if learner not in load_registry().names("interventions"):
        return
    hint = "copy that file as it is"
    if folder is None:
        try:
            folder = workspace.newest_checkpoint(learner, *workspace.choose_dataset(config.dataset, config.task))
        except IclError:  # nothing was trained: where it would be
            folder, hint = workspace.checkpoints / f"{learner}-…", f"`icltool train {learner}` makes it"
    raise ConfigError(
        f"{learner} is not a selector; `icltool evaluate --vectors` takes its file, {folder / WEIGHTS}", hint
    )


def _count(weights: Path) -> tuple[int, int]:
    """(tensors, numbers in them). StoreError when the file is cut or no safetensors file."""
    import math

    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(weights, framework="np") as file:
            shapes = [file.get_slice(key).get_shape() for key in file.keys()]  # noqa: SIM118  (no mapping)
    except (SafetensorError, OSError) as error:
        raise StoreError(
            f"{weights} is truncated or not a safetensors file: {error}", "run `icltool train` again"
        ) from error
    return len(shapes), sum(math.prod(shape) for shape in shapes)


def _card(folder: Path, checkpoint: str) -> str:
    """The checkpoint folder's card, with a section that says what this copy holds."""
    path = folder / "README.md"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(
            f"{path}, the selector's card, cannot be read: {error}", "run `icltool train` again"
        ) from error
    return (
        f"{text.rstrip()}\n\n## This copy\n\n"
        f"Exported by icltool {__version__}: the checkpoint `{checkpoint}.safetensors` and its `config.json`.\n"
    )
