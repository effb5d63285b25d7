"""Logs of a training: a CSV file that a resumed training continues, and the requested loggers."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter

from icltool.errors import ConfigError
from icltool.store.atomic import replace_file


def build_loggers(names: Sequence[str], folder: Path) -> list[Logger]:
    """A CSV file in logs/, and the requested loggers. Raises ConfigError if one is not installed."""
    loggers: list[Logger] = [GrowingLog(folder)]
    for name in names:
        try:
            if name == "tensorboard":
                from lightning.pytorch.loggers import TensorBoardLogger

                loggers.append(TensorBoardLogger(folder, name="logs", version=""))
            else:
                from lightning.pytorch.loggers import WandbLogger

                loggers.append(WandbLogger(save_dir=folder / "logs", project="icltool", name=folder.name))
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"logger {name!r} is not installed", f"install it: pip install 'icltool[{name}]'"
            ) from error
    return loggers


class GrowingLog(CSVLogger):
    """logs/metrics.csv below a folder. Lightning would begin a new file; a resumed training appends to the existing one
    instead, which ends up like that of an uninterrupted training. `truncate_log` drops the part after the saved state."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, name="logs", version="")
        self._file = folder / "logs" / "metrics.csv"

    @property
    def experiment(self) -> ExperimentWriter:
        """See CSVLogger."""
        is_new, backup = self._experiment is None, _aside(self._file)
        before = _log_rows(self._file) if is_new else ([], [])
        if before[1]:  # Lightning removes the old file, which a kill must not lose
            self._file.replace(backup)
        writer: ExperimentWriter = super().experiment
        if before[1] and self._experiment is not None:
            _write_log(self._file, *before)
            backup.unlink(missing_ok=True)
            self._experiment.metrics_keys = list(before[0])
        return writer

    def finalize(self, status: str) -> None:
        """See CSVLogger. Rows that were logged again after resuming are written once."""
        super().finalize(status)
        if self._experiment is not None:
            header, rows = _log_rows(self._file)
            once = [dict(row) for row in dict.fromkeys(tuple(row.items()) for row in rows)]
            if len(once) < len(rows):
                _write_log(self._file, header, once)


def truncate_log(folder: Path, step: int | None) -> None:
    """Drops what was logged after optimisation step `step`, from which a training resumes; None drops nothing."""
    file = folder / "logs" / "metrics.csv"
    if _aside(file).is_file() and not file.exists():
        _aside(file).replace(file)
    _aside(file).unlink(missing_ok=True)
    header, rows = _log_rows(file)
    remaining = [row for row in rows if step is None or int(row.get("step") or 0) <= step]
    if len(remaining) < len(rows):
        _write_log(file, header, remaining)


def save_logs(loggers: Sequence[Logger]) -> None:
    """Flushes the logs to disk, before a state is saved from which training may resume."""
    for logger in loggers:
        logger.save()


def _aside(file: Path) -> Path:
    """The place of a log while Lightning begins a new one."""
    return file.with_name(f".{file.stem}-before{file.suffix}")


def _log_rows(file: Path) -> tuple[list[str], list[dict[str, str]]]:
    """(columns, rows) of a log; empty if it is missing or unreadable."""
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            rows = [
                row for row in reader if None not in row and None not in row.values() and row.get("step", "").isdigit()
            ]
            return list(reader.fieldnames or ()), rows
    except (OSError, UnicodeDecodeError, csv.Error):
        return [], []


def _write_log(file: Path, header: Sequence[str], rows: Sequence[Mapping[str, str]]) -> None:
    with replace_file(file) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(header))
        writer.writeheader()
        writer.writerows(rows)


def finish_runs(loggers: Sequence[Logger]) -> None:
    """Ends W&B runs, which would otherwise include the next training of this process; other loggers close themselves."""
    for logger in loggers:
        finish = getattr(getattr(logger, "experiment", None), "finish", None)
        if finish is not None:
            finish()
