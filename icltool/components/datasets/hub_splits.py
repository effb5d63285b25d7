"""Splits of data sets in the formats of Hugging Face `datasets`: on the hub, in a folder, or saved to disk."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from icltool.components.datasets.official import few, one_line
from icltool.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset, Features

_HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?\Z")
#: What huggingface_hub and its transports raise without a network.
_UNREACHABLE = ("LocalEntryNotFoundError", "OfflineModeIsEnabled", "ConnectionError", "ConnectError", "ConnectTimeout")
_BATCH = 64  # rows in memory at a time; they may hold images


@dataclass(frozen=True)
class HubSplit:
    """One split; `title` names it in messages ("flickr30k train").

    `class_names` are those of the columns with numbered classes; `files` are the files read. `source` is a Dataset, or
    the parquet files, which are read directly (without an Arrow copy).
    """

    name: str
    title: str
    count: int
    columns: tuple[str, ...]
    class_names: Mapping[str, tuple[str, ...]]
    files: tuple[Path, ...]
    source: Dataset | tuple[Path, ...]

    def rows(self, columns: Sequence[str]) -> Iterator[dict[str, object]]:
        """Its rows in order, with these columns only. Images are not decoded: {"bytes", "path"}.

        Raises DataError, which names a file that cannot be read.
        """
        if isinstance(self.source, tuple):
            yield from _parquet_rows(self.source, columns)
            return
        import datasets

        chosen = self.source.select_columns(list(columns))
        encoded = datasets.Image(decode=False)
        for column, feature in chosen.features.items():
            if isinstance(feature, datasets.Image):
                chosen = chosen.cast_column(column, encoded)
            elif isinstance(getattr(feature, "feature", None), datasets.Image):
                chosen = chosen.cast_column(column, datasets.Sequence(encoded))
        for batch in chosen.with_format(None).iter(_BATCH):
            yield from (dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True))


def open_splits(
    path: str, configuration: str | None, revision: str | None, names: Sequence[str]
) -> dict[str, HubSplit]:
    """Those of the splits `names` that exist, by name, from a folder or from the hub (OWNER/NAME).

    A folder holds parquet, Arrow, JSON or other files that `datasets` loads, or what `save_to_disk` wrote. Only a
    `path` that is not a folder is looked up on the hub. Raises DataError with the existing splits if the first name is
    missing, and with the reason if nothing can be opened.
    """
    import datasets

    folder = Path(path).expanduser().absolute()
    if not folder.is_dir() and not _HUB_NAME.match(path):
        raise DataError(f"data set {path} is neither a folder nor a name on the hub", "name a folder, or OWNER/NAME")
    saved = folder.is_dir() and any((folder / name).exists() for name in ("dataset_dict.json", "state.json"))
    with _opening(path), _bars(datasets, visible=not folder.is_dir() and sys.stderr.isatty()):
        if saved:
            loaded = datasets.load_from_disk(str(folder))
            splits = dict(loaded) if isinstance(loaded, dict) else {names[0]: loaded}
            _expect_split(path, list(splits), names[0])
            return {name: _held_split(folder, name, splits[name]) for name in names if name in splits}
        source = str(folder) if folder.is_dir() else path
        builder = datasets.load_dataset_builder(source, configuration, revision=revision)
        files = {str(name): list(of_split) for name, of_split in (builder.config.data_files or {}).items()}
        _expect_split(path, list(files), names[0])
        present = [name for name in names if name in files]
        if folder.is_dir() and all(Path(file).suffix == ".parquet" for name in present for file in files[name]):
            return {name: parquet_split(folder, name, tuple(map(Path, files[name]))) for name in present}
        loads = {n: datasets.load_dataset(source, configuration, split=n, revision=revision) for n in present}
        return {n: _held_split(folder, n, split, files[n] if folder.is_dir() else ()) for n, split in loads.items()}


def open_configurations(path: str, revision: str | None, names: Sequence[str]) -> list[dict[str, HubSplit]]:
    """As `open_splits`, for each configuration of the data set."""
    import datasets

    with _opening(path):
        configurations = datasets.get_dataset_config_names(path, revision=revision)
    return [open_splits(path, configuration, revision, names) for configuration in configurations]


def _held_split(folder: Path, name: str, dataset: Dataset, files: Sequence[str] = ()) -> HubSplit:
    paths = files or [entry["filename"] for entry in dataset.cache_files]
    return HubSplit(
        name,
        f"{folder.name} {name}",
        len(dataset),
        tuple(dataset.column_names),
        _class_names(dataset.features),
        tuple(path for path in map(Path, paths) if path.is_file()),  # a file may lie within an archive
        dataset,
    )


def parquet_split(folder: Path, name: str, files: tuple[Path, ...]) -> HubSplit:
    """The split in these parquet files of a folder. Raises DataError for a file that cannot be read."""
    import datasets
    import pyarrow.parquet as pq

    count, schema = 0, None
    for file in files:
        with _reading(file), pq.ParquetFile(file) as opened:
            count += opened.metadata.num_rows
            schema = schema or opened.schema_arrow
    features = datasets.Features.from_arrow_schema(schema)
    return HubSplit(name, f"{folder.name} {name}", count, tuple(features), _class_names(features), files, files)


def _parquet_rows(files: Sequence[Path], columns: Sequence[str]) -> Iterator[dict[str, object]]:
    import pyarrow.parquet as pq

    for file in files:
        with _reading(file):
            whole = pq.ParquetFile(file)
        with whole as opened:
            batches = opened.iter_batches(_BATCH, columns=list(columns))
            while True:
                with _reading(file):
                    batch = next(batches, None)
                if batch is None:
                    break
                yield from batch.to_pylist()


@contextlib.contextmanager
def _reading(file: Path) -> Iterator[None]:
    """Turns an error in a parquet file into a DataError that names it."""
    import pyarrow as pa

    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"{file} cannot be read: {one_line(str(error))[:300]}", "the file is damaged; download it again"
        ) from error


def _class_names(features: Features) -> dict[str, tuple[str, ...]]:
    return {column: tuple(feature.names) for column, feature in features.items() if hasattr(feature, "int2str")}


def _expect_split(path: str, present: Sequence[str], first: str) -> None:
    if first not in present:
        raise DataError(
            f"data set {path} has no split {first!r}; it has {few(list(present), 10)}",
            "choose the index set with --option train=SPLIT and the queries with --option validation=SPLIT",
        )


@contextlib.contextmanager
def _opening(path: str) -> Iterator[None]:
    """Turns any error of `datasets` while it opens a data set into a DataError."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # of datasets, huggingface_hub, pyarrow, the network …
        reason = one_line(str(error)) or type(error).__name__
        hint = (
            "name a folder, or OWNER/NAME of a data set on the hub; --option name=CONFIGURATION chooses among several"
        )
        if type(error).__name__ in _UNREACHABLE:
            reason, hint = (
                "the hub cannot be reached, and the local cache has no copy",
                "check the network connection, or name a folder",
            )
        if "scripts are no longer supported" in reason:
            hint = "the hub may have a copy in parquet: --option revision=refs/convert/parquet"
        raise DataError(f"data set {path} cannot be opened: {reason[:300]}", hint) from error


@contextlib.contextmanager
def _bars(datasets: ModuleType, visible: bool) -> Iterator[None]:
    """Shows the progress bars of `datasets` (a download may take hours), or hides them (local files are fast)."""
    before = datasets.are_progress_bars_disabled()
    if not visible:
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not visible and not before:
            datasets.enable_progress_bars()
