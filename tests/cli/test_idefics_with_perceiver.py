"""The default model family with its perceiver, which tiny-idefics lacks, from the command line."""

from __future__ import annotations

import json
import math
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers.models.idefics import modeling_idefics

from icltool import releases
from icltool.cli.app import run
from icltool.components.models.idefics.idefics import IdeficsModel
from icltool.components.models.idefics.options import IdeficsOptions
from icltool.contracts import GenerationOptions
from icltool.store.records import PreparedDataset, open_dataset
from icltool.store.sequences import SequenceFile
from tests.components.models.idefics.test_idefics import plain_log_prob

SEARCH = ["--anchors=2", "--candidates=4", "--beam-size=2", "--shots=2"]
#: Without image cache, without prefix cache, without either, with both.
CACHES = [
    pytest.param([], id="both caches"),
    pytest.param(["--image-cache-mb=0"], id="no image cache"),
    pytest.param(["--prefix-cache-mb=0"], id="no prefix cache"),
    pytest.param(["--image-cache-mb=0", "--prefix-cache-mb=0"], id="no cache"),
]


def model_options(folder: Path, workspace: Path) -> list[str]:
    place = ["--workspace", str(workspace), "--dataset=shapes", "--task=caption", "--quiet", "--device=cpu"]
    return [*place, "--model=idefics-9b", "--model-path", str(folder)]


def arrays_of(path: Path) -> dict[str, Any]:
    with SequenceFile.open(path) as file:
        assert file.complete
        return file.arrays()


def plain_values(folder: Path, data: PreparedDataset, sequences: dict[str, Any]) -> list[list[float]]:
    """InfoScore's value of each sequence by full forward passes over single prompts."""
    model = IdeficsModel(IdeficsOptions(name="idefics-9b", path=str(folder), device="cpu"))
    train = data.split("train")
    values = []
    for query_id, beams in zip(sequences["query_id"], sequences["icd_ids"], strict=True):
        query = train[train.row_of(int(query_id))]
        prompts = [model.prompt("caption", [train[train.row_of(int(i))] for i in icds], query) for icds in beams]
        values.append([math.exp(total / tokens) for total, tokens in (plain_log_prob(model, p) for p in prompts)])
    return values


@pytest.mark.parametrize("caches", CACHES)
def test_generate(resampled_folder: Path, workspace: Path, tmp_path: Path, caches: list[str]) -> None:
    target = tmp_path / "sequences.h5"
    call = ["generate", *model_options(resampled_folder, workspace), *SEARCH, *caches, "--output", str(target)]
    assert run(call) == 0
    sequences = arrays_of(target)
    data = open_dataset(workspace / "datasets" / "shapes" / "caption")
    values = plain_values(resampled_folder, data, sequences)
    np.testing.assert_allclose(sequences["values"], values, rtol=1e-4)


EVALUATION = ["--method=zero-shot", "--method=random", "--shots=2", "--test-size=4", "--metric=word-accuracy"]


def answers(folder: Path, workspace: Path, *more: str) -> list[dict[str, Any]]:
    assert run(["evaluate", *model_options(folder, workspace), *EVALUATION, "--overwrite", *more]) == 0
    [place] = (workspace / "evaluations").rglob("predictions")
    lines = [line for file in sorted(place.iterdir()) for line in file.read_text().splitlines()]
    return [json.loads(line) for line in lines]


def test_evaluate(resampled_folder: Path, workspace: Path) -> None:
    """Answers with and without caches are those of one prompt after the other, its images read anew."""
    results = [answers(resampled_folder, workspace, *caches.values[0]) for caches in CACHES]
    for other in results[1:]:
        assert [row["raw"] for row in other] == [row["raw"] for row in results[0]]
    model = IdeficsModel(IdeficsOptions(name="idefics-9b", path=str(resampled_folder), device="cpu"))
    data = open_dataset(workspace / "datasets" / "shapes" / "caption")
    train, queries = data.split("train"), data.split("validation")
    for row in results[0]:
        demonstrations = [train[train.row_of(i)] for i in row["icd_ids"]]
        prompt = model.prompt("caption", demonstrations, queries[queries.row_of(row["query_id"])])
        assert model.generate([prompt], GenerationOptions(20, 3), 1) == [row["raw"]]
    assert len(results[0]) == 8


def test_an_unknown_release_that_breaks_the_caches_is_one_remark(
    resampled_folder: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = [row["raw"] for row in answers(resampled_folder, workspace)]
    monkeypatch.setattr(releases, "_installed", {"transformers": "5.99.0"}.get)
    own = modeling_idefics.IdeficsModel.forward

    def spoilt(self: Any, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("inputs_embeds") is not None:
            kwargs["inputs_embeds"] = kwargs["inputs_embeds"] * 2
        return own(self, *args, **kwargs)

    monkeypatch.setattr(modeling_idefics.IdeficsModel, "forward", wraps(own)(spoilt))
    call = [option for option in model_options(resampled_folder, workspace) if option != "--quiet"]
    capsys.readouterr()
    assert run(["evaluate", *call, *EVALUATION, "--overwrite"]) == 0
    output = capsys.readouterr().out
    assert output.count("transformers 5.99.0 (tested: 5.17.0 to 5.24.0): with caches ") == 1
    [place] = (workspace / "evaluations").rglob("predictions")
    lines = [line for file in sorted(place.iterdir()) for line in file.read_text().splitlines()]
    assert [json.loads(line)["raw"] for line in lines] == expected
