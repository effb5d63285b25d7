"""A table that grows with every evaluation, a row for each setting with all that its figures depend on: `--csv`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from icltool.commands.evaluate.inputs import Inputs
from icltool.results import appended_csv
from icltool.store.evaluations import SettingResult


def append_results(file: Path, inputs: Inputs, folder: Path, results: Sequence[SettingResult]) -> str:
    """Appends the settings that the table has not yet; a line that says how many. Paths stand there as they were given."""
    from icltool.components.models.shared.fine_tuned import training_options

    config, dataset = inputs.config, inputs.dataset
    more = {"model_path": config.model_path, "adapter_options": config.adapter_options}
    configuration = {**inputs.identity(), **more, "dataset": dataset.name, "task": dataset.task}
    return appended_csv.append_results(file, folder.name, configuration, results, training_options(config.model_path))
