"""The layout of a workspace, and the lookup of artefacts from earlier stages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path

from icltool.contracts.json import Json
from icltool.errors import StoreError
from icltool.store.atomic import read_json
from icltool.store.sequences import SequenceFile

_MANIFEST = "dataset.json"
_RESULTS = "results.json"
TRAINED = "training.json"
_WEIGHTS = (".safetensors", ".ckpt")


#: Part of the names of sequences files whose queries are of the validation split.
VALIDATION_MARK = "-validation-"


class Workspace:
    """The folder that the stages share. Computing a path creates nothing on disk."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self.datasets = self.root / "datasets"
        self.embeddings = self.root / "embeddings"
        self.sequences = self.root / "sequences"
        self.checkpoints = self.root / "checkpoints"
        self.evaluations = self.root / "evaluations"
        self.cache = self.root / "cache"

    def __repr__(self) -> str:
        return f"Workspace({str(self.root)!r})"

    def dataset_folder(self, name: str, task: str) -> Path:
        return self.datasets / name / task

    def embeddings_file(self, dataset: str, task: str, split: str, encoder: str) -> Path:
        return self.embeddings / f"{_joined(dataset, task, split, encoder)}.h5"

    def sequences_file(self, dataset: str, task: str, model: str, sampler: str, scorer: str, digest: str) -> Path:
        """`model` is "" for a scorer that needs none."""
        return self.sequences / f"{_joined(dataset, task, model, sampler, scorer, digest)}.h5"

    def checkpoint_folder(self, learner: str, dataset: str, task: str, digest: str, variant: str = "") -> Path:
        return self.checkpoints / _joined(learner, dataset, task, variant, digest)

    def evaluation_folder(self, dataset: str, task: str, model: str, digest: str) -> Path:
        return self.evaluations / _joined(dataset, task, model, digest)

    def image_features_file(self, model: str, digest: str) -> Path:
        return self.cache / f"image-features-{_joined(model, digest)}.h5"

    def prepared(self) -> list[tuple[str, str]]:
        """(name, task) of every prepared data set, sorted."""
        manifests = self.datasets.glob(f"*/*/{_MANIFEST}")
        return sorted(
            (m.parent.parent.name, m.parent.name) for m in manifests if not _hidden(m.relative_to(self.datasets))
        )

    def choose_dataset(self, name: str | None = None, task: str | None = None) -> tuple[str, str]:
        """(name, task) of the requested prepared data set.

        Without `name`, the only prepared one. Without `task`, the reader's default task if it is prepared, else the only
        prepared one. Raises StoreError with the command that prepares it, or with the choices if there are several.
        """
        prepared = self.prepared()
        if not prepared:
            raise StoreError(f"no data set is prepared in {self.root}", f"run `icltool prepare {name or 'NAME'}`")
        fitting = [(n, t) for n, t in prepared if name in (None, n) and task in (None, t)]
        if not fitting:
            name_and_task = " for task ".join(repr(part) for part in (name, task) if part is not None)
            missing = (
                f"data set {name_and_task} is not" if name is not None else f"no data set for task {name_and_task} is"
            )
            option = f" --task {task}" if task is not None else ""
            raise StoreError(
                f"{missing} prepared in {self.root}; prepared: {_listed(prepared)}",
                _meant(name, task, prepared, f"run `icltool prepare {name or 'NAME'}{option}`"),
            )
        names = sorted({n for n, _ in fitting})
        if len(names) > 1:
            raise StoreError(
                f"several data sets are prepared in {self.root}: {_listed(fitting)}",
                f"for example --dataset {names[0]}",
            )
        return names[0], self._choose_task(names[0], [t for _, t in fitting])

    def _choose_task(self, name: str, tasks: list[str]) -> str:
        if len(tasks) == 1:
            return tasks[0]
        for task in tasks:
            default = self._default_task(name, task)
            if default in tasks:
                return default
        raise StoreError(
            f"data set {name!r} is prepared for several tasks in {self.root}: {', '.join(tasks)}",
            f"for example --task {tasks[0]}",
        )

    def _default_task(self, name: str, task: str) -> str:
        path = self.dataset_folder(name, task) / _MANIFEST
        manifest: Json = read_json(path)
        if not isinstance(manifest, dict):
            raise StoreError(f"{path} is malformed: an object was expected", f"run `icltool prepare {name}` again")
        return str(manifest.get("default_task", ""))

    def newest_sequences(self, dataset: str, task: str) -> Path:
        """The newest sequences file of this data set and task. Raises StoreError if there is none.

        Files of validation queries are skipped, since nothing may be trained on them. Unfinished files count only if none is
        finished.
        """
        files = [p for p in self.sequences_of(dataset, task) if VALIDATION_MARK not in p.name]
        if not files:
            raise StoreError(
                f"no sequences of {dataset} ({task}) in {self.sequences}",
                f"run `icltool generate --dataset {dataset} --task {task}`",
            )
        return next(filter(_is_finished, files), files[0])

    def sequences_of(self, dataset: str, task: str) -> list[Path]:
        """The sequences files of this data set and task, newest first."""
        files = [p for p in self._of(dataset, task, self.sequences, "") if p.suffix == ".h5" and p.is_file()]
        return _newest_first((p, p) for p in files)

    def newest_checkpoint(self, learner: str, dataset: str, task: str) -> Path:
        """The checkpoint folder with the newest weights. Raises StoreError if there is none.

        Folders of interrupted trainings count only if no training is finished.
        """
        folders = self.checkpoints_of(learner, dataset, task)
        if not folders:
            raise StoreError(
                f"no {learner} checkpoint for {dataset} ({task}) in {self.checkpoints}",
                f"run `icltool train {learner} --dataset {dataset} --task {task}`",
            )
        return folders[0]

    def checkpoints_of(self, learner: str, dataset: str, task: str) -> list[Path]:
        """Checkpoint folders that hold weights, the latest first. Folders of interrupted trainings count only if no
        training is finished."""
        folders = [p for p in self._of(dataset, task, self.checkpoints, f"{learner}-") if p.is_dir()]
        folders = [p for p in folders if (p / TRAINED).is_file()] or folders
        weights = ((file, folder) for folder in folders for file in folder.rglob("*") if _is_weights(file))
        return list(dict.fromkeys(_newest_first(weights)))

    def trained(self, learner: str) -> list[tuple[str, str]]:
        """(data set, task) of all checkpoint folders of `learner` that hold weights, sorted; the data sets need not be
        prepared."""
        known = set(self.prepared())
        for file in self.checkpoints.glob(f"{learner}-*/{TRAINED}"):
            try:
                identity = read_json(file)["identity"]
                known.add((str(identity["dataset"]), str(identity["task"])))
            except (StoreError, KeyError, TypeError):  # it has no record; its folder's name may still match
                continue
        return sorted(pair for pair in known if self.checkpoints_of(learner, *pair))

    def newest_evaluation(self) -> Path:
        """The evaluation folder with the newest results. Raises StoreError if there is none."""
        return self.evaluated()[0]

    def evaluated(self) -> list[Path]:
        """All evaluation folders with results, newest first. Raises StoreError if there is none."""
        files = [p for p in self.evaluations.glob(f"*/{_RESULTS}") if not _hidden(p.relative_to(self.evaluations))]
        if not files:
            raise StoreError(f"no evaluation in {self.evaluations}", "run `icltool evaluate`")
        return _newest_first((p, p.parent) for p in files)

    def _of(self, dataset: str, task: str, folder: Path, prefix: str) -> list[Path]:
        """Entries named PREFIX DATASET-TASK-..., without those of a data set whose longer name begins the same way."""
        start = f"{prefix}{dataset}-{task}-"
        longer = [f"{prefix}{n}-{t}-" for n, t in self.prepared()]
        others = tuple(s for s in longer if s.startswith(start) and s != start)
        return [
            p
            for p in (folder.iterdir() if folder.is_dir() else ())
            if p.name.startswith(start) and not (others and p.name.startswith(others))
        ]


def earlier_or(path: Path, earlier: Path) -> Path:
    """`path`, or `earlier`, the place that an earlier release gave the same artefact, if only that exists."""
    return earlier if earlier.exists() and not path.exists() else path


def prepare_command(reader: str, name: str, task: str, task_file: str | None = None) -> str:
    """The command that prepares a data set."""
    task_option = f"--task {task}" if task_file is None else f"--task-file {task_file}"
    return f"icltool prepare {reader}{f' --name {name}' if name != reader else ''} {task_option}"


def _joined(*parts: str) -> str:
    """A file name of the non-empty parts; a path in place of a name is flattened."""
    return "-".join(part.strip("/").replace("/", "--") for part in parts if part)


def _is_finished(path: Path) -> bool:
    try:
        file = SequenceFile.open(path)
    except StoreError:
        return False
    complete = file.complete
    file.close()
    return complete


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _is_weights(path: Path) -> bool:
    return path.suffix in _WEIGHTS and not path.name.startswith(".") and path.is_file()


def _meant(name: str | None, task: str | None, prepared: Sequence[tuple[str, str]], command: str) -> str:
    """The hint: the likely name if the data set or the task seems mistyped, then `command`, which prepares it."""
    names, tasks = sorted({n for n, _ in prepared}), sorted({t for _, t in prepared})
    if name is not None and name not in names:
        begun = [other for other in names if other.startswith(name)]
        if close := begun or difflib.get_close_matches(name, names, n=1):
            return f"did you mean {close[0]!r}? otherwise {command}"
    if task is not None and task not in tasks and (close := difflib.get_close_matches(task, tasks, n=1)):
        return f"did you mean {close[0]!r}? otherwise {command}"
    return command


def _listed(prepared: Iterable[tuple[str, str]]) -> str:
    return ", ".join(f"{name} ({task})" for name, task in prepared)


def _newest_first(pairs: Iterable[tuple[Path, Path]]) -> list[Path]:
    """The second of each pair, ordered by the modification time of the first, newest first; ties by name."""
    dated = sorted(((file.stat().st_mtime_ns, str(owner), owner) for file, owner in pairs), reverse=True)
    return [owner for _, _, owner in dated]
