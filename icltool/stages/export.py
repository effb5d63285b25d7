"""Writes what other programs and papers read.

Reads: sequences/*.h5, checkpoints/*/, evaluations/*/results.json
Writes: exports/, or where --output says
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from icltool.config.export import ExportConfig
from icltool.contracts import Progress, StageReport
from icltool.errors import ConfigError, StoreError
from icltool.store.atomic import read_json, replace_file, write_text
from icltool.store.atomic import write_json as write_json_file
from icltool.store.workspace import Workspace

FORMATS: dict[str, tuple[str, ...]] = {
    "sequences": ("json", "csv", "parquet"),
    "selector": ("safetensors",),
    "results": ("csv", "markdown", "latex", "json"),
}
_SUFFIXES = {"markdown": "md", "latex": "tex"}


def run(config: ExportConfig, progress: Progress) -> StageReport:
    """Exports the newest artefact, or the one that is given.

    Raises ConfigError for a format that does not fit, StoreError when the input is missing or damaged, or the output is
    there already or cannot be written.
    """
    format = config.format or FORMATS[config.what][0]
    if format not in FORMATS[config.what]:
        raise ConfigError(
            f"{config.what} cannot be exported as {format}", f"choose from {', '.join(FORMATS[config.what])}"
        )
    exporter = {"sequences": _sequences, "selector": _selector, "results": _results}[config.what]
    return exporter(config, format, progress)


def _sequences(config: ExportConfig, format: str, progress: Progress) -> StageReport:
    from icltool.report import sequences as forms
    from icltool.store.sequences import SequenceFile

    source = _input(config, lambda w: w.newest_sequences(*w.choose_dataset(config.dataset, config.task)))
    file = SequenceFile.open(source)
    try:
        target = _output(config, f"{source.stem}.{format}", (source,))
        with progress.task(f"exporting {source.name}", len(file), "query") as ticker:
            results = (_ticked(result, ticker.advance) for result in file.results())
            if format == "json":
                forms.write_json(results, target)
            elif format == "csv":
                forms.write_csv(results, target, file.shots)
            else:
                forms.write_parquet(results, target, file.shots, asdict(file.provenance))
        remarks = () if file.complete else (f"{source} is unfinished: {len(file)} queries so far",)
        row = {"what": "sequences", "format": format, "queries": len(file), "shots": file.shots, "file": str(target)}
    finally:
        file.close()
    return StageReport(f"Exported {source.name}", (row,), target, remarks)


def _ticked(value: Any, advance: Callable[[], None]) -> Any:
    advance()
    return value


def _results(config: ExportConfig, format: str, progress: Progress) -> StageReport:
    from icltool.report.delimited import results_csv, results_rows
    from icltool.report.latex import results_latex
    from icltool.report.markdown import results_markdown
    from icltool.store.evaluations import read_results

    source = _input(config, lambda w: w.newest_evaluation())
    results, provenance = read_results(source)
    name = (source.parent if source.suffix == ".json" else source).resolve().name
    target = _output(config, f"{name}.{_SUFFIXES.get(format, format)}", (source,))
    if format == "json":
        write_json_file(target, {"provenance": provenance, "results": results_rows(results)})
    else:
        text = {"csv": results_csv, "markdown": results_markdown, "latex": results_latex}[format](results)
        write_text(target, text)
    progress.detail(f"read {source}")
    row = {"what": "results", "format": format, "settings": len(results), "file": str(target)}
    return StageReport(f"Exported {name}", (row,), target)


def _selector(config: ExportConfig, format: str, progress: Progress) -> StageReport:
    source = _input(
        config, lambda w: w.newest_checkpoint(config.learner, *w.choose_dataset(config.dataset, config.task))
    )
    folder, name = (source.parent, source.stem) if source.suffix == ".safetensors" else (source, config.checkpoint)
    weights = folder / f"{name}.safetensors"
    if not weights.is_file():
        there = ", ".join(sorted(p.stem for p in folder.glob("*.safetensors"))) or "none"
        raise StoreError(
            f"{weights} does not exist; checkpoints there: {there}", "choose one with --checkpoint, or train again"
        )
    tensors, parameters = _count(weights)
    read_json(folder / "config.json")
    card = _card(folder, name)
    target = _output(config, f"{folder.resolve().name}-{name}", (folder, weights))
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


def _count(weights: Path) -> tuple[int, int]:
    """(tensors, numbers in them). StoreError when the file is cut or no safetensors file."""
    import math

    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(weights, framework="np") as file:
            shapes = [file.get_slice(key).get_shape() for key in file.keys()]  # noqa: SIM118  (no mapping)
    except (SafetensorError, OSError) as error:
        raise StoreError(f"{weights} is cut or no safetensors file: {error}", "run `icltool train` again") from error
    return len(shapes), sum(math.prod(shape) for shape in shapes)


def _card(folder: Path, checkpoint: str) -> str:
    """The checkpoint folder's card, with a section that says what this copy holds."""
    from icltool import __version__

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


def _input(config: ExportConfig, newest: Callable[[Workspace], Path]) -> Path:
    if config.input is None:
        return newest(Workspace(config.workspace))
    if not config.input.exists():
        raise StoreError(
            f"{config.input} does not exist", "check --input; without it the newest in the workspace is taken"
        )
    return config.input


def _output(config: ExportConfig, name: str, sources: tuple[Path, ...]) -> Path:
    """Where to write. StoreError when something is there and `--overwrite` is not, or when it is what is being read."""
    target = config.output or config.workspace / "exports" / name
    if any(target.resolve() == source.resolve() for source in sources):
        raise StoreError(f"{target} is what is to be exported", "give another --output")
    if config.what != "selector" and target.is_dir():
        raise StoreError(f"{target} is a folder", "give a file as --output")
    if config.what == "selector" and target.exists() and not target.is_dir():
        raise StoreError(f"{target} is a file", "give a folder as --output")
    taken = any(target.iterdir()) if target.is_dir() else target.exists()
    if taken and not config.overwrite:
        raise StoreError(f"{target} exists already", "add --overwrite, or give another --output")
    return target
