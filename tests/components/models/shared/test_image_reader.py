"""Images that are prepared apart: the pixels of the published processors, and the features of the whole."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from icltool.components.models.idefics.idefics import IdeficsModel
from icltool.components.models.idefics.idefics2 import Idefics2Model
from icltool.components.models.idefics.options import IdeficsOptions
from icltool.components.models.shared.image_reader import padded
from icltool.components.models.shared.images import read_image
from icltool.contracts import Example
from icltool.engine import preparing
from icltool.engine.preparing import ImagePipeline
from icltool.testing.images import check_prepared_images
from tests.components.models import tiny
from tests.processes import Child

Folder = Callable[[Callable[[Path], str]], str]
Images = Callable[[str], list[Example]]


@pytest.fixture(scope="module")
def idefics2(folder_of: Folder) -> Idefics2Model:
    return Idefics2Model(IdeficsOptions(name="idefics2", path=folder_of(tiny.idefics2), device="cpu"))


def test_idefics_conforms(tiny_model: IdeficsModel, images: Images) -> None:
    check_prepared_images(tiny_model, images("caption"))


def test_idefics2_conforms(idefics2: Idefics2Model, images: Images) -> None:
    check_prepared_images(idefics2, images("caption"))


def test_pixels_are_those_of_the_processor_for_a_whole_batch(
    tiny_model: IdeficsModel, idefics2: Idefics2Model, images: Images
) -> None:
    paths = [e.image for e in images("caption")]
    opened = [read_image(path) for path in paths]
    read = tiny_model.image_reader()
    expected = tiny_model.image_processor(opened, return_tensors="pt")
    assert torch.equal(torch.from_numpy(np.stack([read(path) for path in paths])), expected)
    read = idefics2.image_reader()
    batch = idefics2.processor.image_processor([[image] for image in opened], return_tensors="pt")
    pixels, mask = padded([read(path) for path in paths])
    assert len({read(path).shape for path in paths}) > 1
    assert torch.equal(torch.from_numpy(pixels)[:, None], batch["pixel_values"])
    assert torch.equal(torch.from_numpy(mask)[:, None], batch["pixel_attention_mask"])


class Forked:
    """Stands in for subprocess.Popen: a worker that is a fork of this process, which has imported everything already."""

    def __init__(self, command: Sequence[str], **options: Any) -> None:
        assert "serve()" in command[-1]
        paths, to = os.pipe()
        back, answers = os.pipe()

        def work() -> None:
            os.dup2(answers, 1)
            for end in (paths, to, back, answers):
                os.close(end)
            preparing.serve()

        self._child = Child(work, stdin=paths)
        self.pid = self._child.pid
        os.close(paths)
        os.close(answers)
        self.stdin, self.stdout = os.fdopen(to, "wb"), os.fdopen(back, "rb")

    def kill(self) -> None:
        self._child.kill()

    def wait(self, seconds: float) -> int:
        return self._child.wait()


@pytest.mark.parametrize("process", [Forked, pytest.param(subprocess.Popen, marks=pytest.mark.external)])
def test_a_worker_process_reads_the_same(
    process: Any, tiny_model: IdeficsModel, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparing.subprocess, "Popen", process)
    paths = [e.image for e in images("caption")]
    reader = tiny_model.image_reader()
    pipeline = ImagePipeline(reader, workers=1, ahead=len(paths), worth=1)
    pipeline.expect(paths)
    for future in list(pipeline._begun.values()):
        future.result()
    for path in paths:
        assert np.array_equal(pipeline.take(path), reader(path))
    assert (pipeline.from_workers, pipeline.notes) == (len(paths), [])
    pipeline.close()


class Faulty:
    """A real adapter with one fault."""

    device = torch.device("cpu")

    def __init__(self, model: IdeficsModel, fault: str) -> None:
        self.model, self.fault = model, fault
        self.weights = np.zeros(2**18, np.float32)

    def image_features(self, paths: Sequence[str], batch_size: int) -> list[Any]:
        return self.model.image_features(paths, batch_size)

    def image_reader(self) -> Any:
        return FaultyReader(self.model.image_reader(), self.fault, self.weights if self.fault == "weights" else None)

    def encode_images(self, prepared: Sequence[Any]) -> list[Any]:
        if self.fault == "batch":  # one image shows in another's features
            prepared = [image + prepared[0] * 1e-2 for image in prepared]
        actual = self.model.encode_images([np.asarray(image) for image in prepared])
        return actual[:1] if self.fault == "fewer" else actual


class FaultyReader:
    def __init__(self, reader: Any, fault: str, weights: Any) -> None:
        self.reader, self.fault, self.weights = reader, fault, weights

    def __call__(self, path: str) -> Any:
        image = self.reader(path)
        return torch.from_numpy(image) if self.fault == "tensors" else image

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self.fault == "state":
            processor = self.reader._processor
            processor.image_mean = [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("weights", "does it hold weights"),
        ("tensors", "numpy array or a mapping of such, not Tensor"),
        ("state", "pickled and back, reads .* differently"),
        ("batch", "differs from `image_features`"),
        ("fewer", "one tensor for each image"),
    ],
)
def test_faults_are_found(fault: str, sentence: str, tiny_model: IdeficsModel, images: Images) -> None:
    with pytest.raises(AssertionError, match=sentence):
        check_prepared_images(Faulty(tiny_model, fault), images("caption"))


def test_an_adapter_without_a_part_is_told() -> None:
    with pytest.raises(AssertionError, match=r"lacks a part of the contract `icltool\.PreparesImages`"):
        check_prepared_images(object(), [])
