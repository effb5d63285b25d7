"""One row per evaluated setting for a table that grows with every evaluation: figures beside all that they depend on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from icltool.commands.evaluate.inputs import Inputs
from icltool.contracts.evaluation import LearnedFile
from icltool.results.appended_csv import append_rows, flattened
from icltool.store.evaluations import SettingResult
from icltool.store.provenance import moment, releases

#: What tells rows apart: the evaluation folder stands for model, data and metrics, `setting` for the demonstrations or weights.
KEY = ("evaluation", "method", "shots", "seed", "setting")

#: Further options that decide the answers; a column each where one was given.
_OF_MODEL = ("quantization", "prompt_style", "prompt_template")


def append_results(file: Path, inputs: Inputs, folder: Path, results: Iterable[SettingResult]) -> str:
    """Appends the settings that the table has not yet; a line that says how many. Raises what `append_rows` raises."""
    done = append_rows(file, [_row(inputs, folder, result) for result in results], KEY)
    told = [f"{done.added} rows added"] if done.added else []
    told += [f"{done.known} there already"] if done.known else []
    told += [f"new columns: {', '.join(done.new_columns)}"] if done.new_columns else []
    return f"{file}: {', '.join(told) or 'nothing to add'}"


def _row(inputs: Inputs, folder: Path, result: SettingResult) -> dict[str, object]:
    """Figures are in the scale in which they are printed."""
    config, dataset = inputs.config, inputs.dataset
    return {
        "evaluation": folder.name,
        "date": moment(),
        **releases(),
        "dataset": dataset.name,
        "task": dataset.task,
        "model": config.model,
        "model_path": config.model_path,
        "method": result.method,
        "shots": result.shots,
        "seed": result.seed,
        "setting": result.extra.get("digest", ""),
        "weights": made["file"] if (made := _learned(result)) else None,
        "queries": result.queries,
        **{name: figure.mean for name, figure in result.metrics.items()},
        **{f"{name} {end}": getattr(figure, end) for name, figure in result.metrics.items() for end in ("low", "high")},
        "seconds": result.seconds,
        **flattened(config.generation(), "generation."),
        **{f"model.{name}": value for name in _OF_MODEL if (value := getattr(config, name)) is not None},
        **flattened(config.adapter_options, "model."),
        "dtype": config.dtype,
        **flattened(_training(inputs, result), "training."),
    }


def _training(inputs: Inputs, result: SettingResult) -> Mapping[str, object]:
    """The options of the training whose weights, or what stands in for demonstrations, gave the answers."""
    from icltool.components.models.shared.tuned import read_tuned, tuned_file

    if made := _learned(result):
        return _options(made["about"])
    path = inputs.config.model_path
    file = tuned_file(Path(path)) if path is not None and Path(path).exists() else None
    return {} if file is None else _options(read_tuned(file).about)


def _learned(result: SettingResult) -> LearnedFile | None:
    return result.extra.get("finetuned") or result.extra.get("intervention")


def _options(about: Mapping[str, object]) -> Mapping[str, object]:
    found = about.get("options", {})
    return found if isinstance(found, Mapping) else {}
