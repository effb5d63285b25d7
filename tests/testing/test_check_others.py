"""The suites of encoders, dataset readers, executors and learners catch wrong components."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from icltool.contracts import (
    Example,
    Float64Array,
    FloatArray,
    PreparedSplit,
    Progress,
    ReadReport,
    TrainingOutcome,
    TrainingSet,
    keyed_generator,
)
from icltool.errors import ConfigError, DataError
from icltool.testing import check_dataset, check_encoder, check_executor, check_learner, make_examples


class Encoder:
    """Mean colours of the four quarters; counts of letters."""

    name, dim = "quarters", 27

    def fingerprint(self) -> str:
        return "quarters-1"

    def encode_images(self, paths: Sequence[str]) -> FloatArray:
        return np.array([self.image(path) for path in paths], dtype=np.float32).reshape(len(paths), self.dim)

    def image(self, path: str) -> list[float]:
        from PIL import Image

        try:
            image = Image.open(path).convert("RGB").resize((3, 3))
        except OSError as error:
            raise DataError(f"{path} cannot be read") from error
        return [float(v) for v in np.asarray(image).ravel()]

    def encode_texts(self, texts: Sequence[str]) -> FloatArray:
        letters = "abcdefghijklmnopqrstuvwxyz"
        counts = [[1.0, *(text.count(letter) for letter in letters)] for text in texts]
        return np.array(counts, dtype=np.float32).reshape(len(texts), self.dim)


class DoublePrecision(Encoder):
    def encode_texts(self, texts: Sequence[str]) -> FloatArray:
        return super().encode_texts(texts).astype(np.float64)  # type: ignore[return-value]


class CentresTheBatch(Encoder):
    def encode_images(self, paths: Sequence[str]) -> FloatArray:
        vectors = super().encode_images(paths)
        return vectors - vectors.mean(axis=0) if len(vectors) else vectors


class SortsTexts(Encoder):
    def encode_texts(self, texts: Sequence[str]) -> FloatArray:
        return super().encode_texts(sorted(texts))


class SeesNothing(Encoder):
    def image(self, path: str) -> list[float]:
        super().image(path)
        return [1.0] * self.dim


class LetsErrorsThrough(Encoder):
    def image(self, path: str) -> list[float]:
        from PIL import Image

        return [float(v) for v in np.asarray(Image.open(path).convert("RGB").resize((3, 3))).ravel()]


class ForgetsTheFileName(Encoder):
    def image(self, path: str) -> list[float]:
        try:
            return super().image(path)
        except DataError as error:
            raise DataError("an image cannot be read") from error


class ImagesOnly(Encoder):
    modalities = frozenset({"image"})

    def encode_texts(self, texts: Sequence[str]) -> FloatArray:
        raise ConfigError("images only")


class AnswersAll(Encoder):
    modalities = frozenset({"image"})


class NamesAnother(Encoder):
    modalities = frozenset({"audio"})


def test_check_encoder_accepts_a_right_one(tmp_path: Path) -> None:
    check_encoder(Encoder, tmp_path)
    check_encoder(ImagesOnly, tmp_path / "images")


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (DoublePrecision, "float32"),
        (CentresTheBatch, "alone has another vector"),
        (SortsTexts, "depend on their order"),
        (SeesNothing, "have the same vector"),
        (LetsErrorsThrough, "FileNotFoundError"),
        (ForgetsTheFileName, "must name the file"),
        (AnswersAll, "encoding texts is a ConfigError"),
        (NamesAnother, "`modalities` must be of 'image' and 'text'"),
    ],
)
def test_check_encoder_catches(wrong: type[Encoder], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=sentence):
        check_encoder(wrong, tmp_path)


class Reader:
    """Makes its own few examples."""

    name = "made"
    tasks = ("caption",)

    def check(self, root: Path | None, task: str, verify: bool) -> ReadReport:
        return ReadReport(())

    def read(self, root: Path | None, task: str, workspace: Path, progress: Progress) -> Iterator[PreparedSplit]:
        folder = workspace / "datasets" / self.name / "source"
        for name, count in (("train", 6), ("validation", 3)):
            examples = self.change(name, make_examples(folder / name, count, size=8))
            yield PreparedSplit(self.split_name(name), count, iter(examples))

    def change(self, split: str, examples: list[Example]) -> list[Example]:
        return examples

    def split_name(self, name: str) -> str:
        return name


class LosesOne(Reader):
    def change(self, split: str, examples: list[Example]) -> list[Example]:
        return examples[1:]


class RepeatsAnId(Reader):
    def change(self, split: str, examples: list[Example]) -> list[Example]:
        return [replace(e, id=examples[0].id) for e in examples]


class RelativePaths(Reader):
    def change(self, split: str, examples: list[Example]) -> list[Example]:
        return [replace(e, image=Path(e.image).name) for e in examples]


class NamesMissingImages(Reader):
    def change(self, split: str, examples: list[Example]) -> list[Example]:
        return [replace(e, image=e.image + ".gone") for e in examples]


class ValidationFirst(Reader):
    def split_name(self, name: str) -> str:
        return {"train": "validation", "validation": "train"}[name]


class ChangesBetweenReads(Reader):
    reads = 0

    def change(self, split: str, examples: list[Example]) -> list[Example]:
        type(self).reads += 1
        return [replace(e, label=f"{e.label} {self.reads}") for e in examples]


class WritesElsewhere(Reader):
    def change(self, split: str, examples: list[Example]) -> list[Example]:
        path = Path(examples[0].image).parents[4] / "cache.txt"
        path.write_text("x")
        return examples


def test_check_dataset_accepts_a_right_one(tmp_path: Path) -> None:
    check_dataset(Reader, None, "caption", tmp_path)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (LosesOne, "announces 6 examples and has 5"),
        (RepeatsAnId, "repeats an example id"),
        (RelativePaths, "must be absolute"),
        (NamesMissingImages, "does not exist"),
        (ValidationFirst, "first split must be 'train'"),
        (ChangesBetweenReads, "reading twice"),
        (WritesElsewhere, "own files belong into"),
    ],
)
def test_check_dataset_catches(wrong: type[Reader], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=sentence):
        check_dataset(wrong, None, "caption", tmp_path)


class Executor:
    def run(self, make_worker: Callable[[], Callable[[Any], Any]], units: Iterable[Any]) -> Iterator[Any]:
        worker = make_worker()
        for unit in units:
            yield worker(unit)

    def describe(self) -> dict[str, Any]:
        return {"workers": 1}


class LosesTheLast(Executor):
    def run(self, make_worker: Callable[[], Callable[[Any], Any]], units: Iterable[Any]) -> Iterator[Any]:
        return super().run(make_worker, list(units)[:-1])


class WorkerPerUnit(Executor):
    def run(self, make_worker: Callable[[], Callable[[Any], Any]], units: Iterable[Any]) -> Iterator[Any]:
        return (make_worker()(unit) for unit in units)


class SwallowsErrors(Executor):
    def run(self, make_worker: Callable[[], Callable[[Any], Any]], units: Iterable[Any]) -> Iterator[Any]:
        worker = make_worker()
        for unit in units:
            try:
                yield worker(unit)
            except Exception:
                continue


class LosesNotes(Executor):
    notes: Sequence[str] = ()


class HasNoStatus(Executor):
    def status(self) -> Any:
        return None


def test_check_executor_accepts_a_right_one() -> None:
    check_executor(Executor)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (LosesTheLast, "gave results for"),
        (WorkerPerUnit, "for every unit"),
        (SwallowsErrors, "raised nothing"),
        (LosesNotes, "is not in `notes`"),
        (HasNoStatus, "must be a text"),
    ],
)
def test_check_executor_catches(wrong: type[Executor], sentence: str) -> None:
    with pytest.raises(AssertionError, match=sentence):
        check_executor(wrong)


class Learner:
    """Writes the mean score."""

    needs = frozenset({"image"})

    def train(self, data: TrainingSet, folder: Path, seed: int, progress: Progress) -> TrainingOutcome:
        from safetensors.numpy import save_file

        path = folder / "last.safetensors"
        save_file({"mean": self.weights(data, seed)}, path)
        return TrainingOutcome({"last": path}, [{"loss": 1.0}])

    def weights(self, data: TrainingSet, seed: int) -> Float64Array:
        return data.scores.mean(keepdims=True) + keyed_generator(seed, "learner").random(1)


class TrainsUnseeded(Learner):
    def weights(self, data: TrainingSet, seed: int) -> Float64Array:
        return np.random.default_rng().random(1)


class HasNoLast(Learner):
    def train(self, data: TrainingSet, folder: Path, seed: int, progress: Progress) -> TrainingOutcome:
        outcome = super().train(data, folder, seed, progress)
        return TrainingOutcome({"best": outcome.checkpoints["last"]}, outcome.history)


class NamesNoFile(Learner):
    def train(self, data: TrainingSet, folder: Path, seed: int, progress: Progress) -> TrainingOutcome:
        return TrainingOutcome({"last": folder / "nothing"}, [{"loss": 1.0}])


def test_check_learner_accepts_a_right_one(tmp_path: Path) -> None:
    check_learner(Learner, tmp_path)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [(TrainsUnseeded, "differ in 'mean'"), (HasNoLast, "'last' is missing"), (NamesNoFile, "where nothing is")],
)
def test_check_learner_catches(wrong: type[Learner], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=sentence):
        check_learner(wrong, tmp_path)
