"""Several encoders side by side: each method reads the embeddings by the encoder behind its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from icltool.commands.embed import run as embed
from icltool.commands.embed.options import EmbedConfig
from icltool.commands.evaluate import run as evaluate
from icltool.commands.evaluate.inputs import Inputs
from icltool.commands.evaluate.methods import methods
from icltool.commands.evaluate.options import EvaluateConfig
from icltool.commands.generate import run as generate
from icltool.commands.generate.options import GenerateConfig
from icltool.errors import ConfigError, StoreError
from icltool.execution.progress import for_terminal
from icltool.store.arrays import open_embeddings
from icltool.store.evaluations import read_predictions
from icltool.store.records import open_dataset
from icltool.store.workspace import Workspace
from tests.components.encoders import tiny_encoders
from tests.components.models.tiny import shared_folder
from tests.conftest import Shared

QUIET = for_terminal(quiet=True)


@pytest.fixture
def three(workspace: Path, shared: Shared) -> Path:
    """The small world, embedded also by an encoder of images only and by one of texts only."""
    for name, family in (("eye", tiny_encoders.dinov2), ("words", tiny_encoders.bert)):
        folder = Path(shared_folder(shared, family))
        report = embed.run(
            EmbedConfig(workspace=workspace, task="vqa", encoder=name, encoder_path=folder, device="cpu"), QUIET
        )
        assert f"{name} encodes {'images' if name == 'eye' else 'texts'} only" in "".join(report.lines())
    return workspace


def config(workspace: Path, *names: str, **options: Any) -> EvaluateConfig:
    given = {"model": "tiny-idefics", "task": "vqa", "device": "cpu", "shots": (2,), "test_size": 6, **options}
    return EvaluateConfig(workspace=workspace, methods=names, **given)


def nearest(workspace: Path, encoder: str, field: str, row: int) -> list[int]:
    """All examples of the index set by cosine to the validation query in this row, the nearest first."""
    dataset = open_dataset(workspace / "datasets" / "shapes" / "vqa")
    files = [open_embeddings(Workspace(workspace), dataset, split, encoder) for split in ("train", "validation")]
    index, queries = (file.read(field).astype(np.float64) for file in files)
    cosines = (index / np.linalg.norm(index, axis=1, keepdims=True)) @ (queries[row] / np.linalg.norm(queries[row]))
    order: list[int] = files[0].ids[np.argsort(-cosines, kind="stable")].tolist()
    return order


def test_each_method_reads_its_encoder(three: Path) -> None:
    names = ("i2i@eye", "i2i@tiny-clip", "t2t@words", "i2i@tiny-clip+i2i@eye:i2i@eye.pool=9")
    report = evaluate.run(config(three, *names, encoder=None), QUIET)
    assert report.path is not None
    assert [result.method for result in report.results] == list(names)
    queries = open_dataset(three / "datasets" / "shapes" / "vqa").split("validation").ids.tolist()
    chosen = {
        name: {r["query_id"]: r["icd_ids"] for r in read_predictions(file)}
        for name in names
        for file in (report.path / "predictions").glob(f"{name}-2-shot*.jsonl")
    }
    for name, encoder, field in (("i2i@eye", "eye", "image"), ("i2i@tiny-clip", "tiny-clip", "image")):
        for query, shown in chosen[name].items():
            order = nearest(three, encoder, field, queries.index(query))
            assert order.index(shown[-1]) < order.index(shown[0]) < 8  # what leaks is left out
    assert chosen["i2i@eye"] != chosen["i2i@tiny-clip"]
    for query, shown in chosen[names[-1]].items():  # of the nearest by one, the nearest by the other
        first, second = (nearest(three, encoder, "image", queries.index(query)) for encoder in ("tiny-clip", "eye"))
        assert max(first.index(example) for example in shown) < 20
        assert second.index(shown[-1]) < second.index(shown[0])


def test_the_only_encoder_that_has_what_a_method_compares(three: Path) -> None:
    (three / "embeddings").joinpath("shapes-vqa-train-tiny-clip.h5").unlink()
    found = methods(Inputs(config(three, "i2i", "t2t", "bm25", "mmr")))
    encoders = [None if m.chain is None else m.chain.parts[0].encoder for m in found]  # type: ignore[attr-defined]
    assert encoders == ["eye", "words", None, "eye"]


def test_a_named_encoder_and_the_calls_are_one_setting(three: Path) -> None:
    [named] = methods(Inputs(config(three, "near=i2i@eye")))
    [plain] = methods(Inputs(config(three, "near=i2i", encoder="eye")))
    [other] = methods(Inputs(config(three, "near=i2i", encoder="tiny-clip")))
    assert named.identity == plain.identity != other.identity


@pytest.mark.parametrize(
    ("name", "options", "fault", "hint"),
    [
        ("t2t@eye", {}, "has no text embeddings: encoder eye encodes images only", "--method t2t@minilm"),
        ("t2t", {"encoder": "eye"}, "has no text embeddings: encoder eye encodes images only", "--encoder minilm"),
        ("i2t@eye", {}, "has no text embeddings", "t2t@minilm"),
        ("i2i@words", {}, "has no image embeddings: encoder words encodes texts only", "--method i2i@dinov2"),
        ("i2i@dinov2", {}, "has no embeddings by dinov2", "--encoder dinov2`"),
        ("i2t", {}, "has embeddings by", "i2i@"),
        ("random@eye", {}, "random reads no embeddings", "use --method random"),
        ("i2i+random@eye", {"encoder": "eye"}, "random reads no embeddings", "use --method random"),
        ("live@eye", {}, "live reads no embeddings", "use --method live"),
    ],
)
def test_what_an_encoder_lacks(three: Path, name: str, options: dict[str, Any], fault: str, hint: str) -> None:
    if name == "i2t":  # both can do it
        for split in ("train", "validation"):
            files = three / "embeddings"
            (files / f"shapes-vqa-{split}-copy.h5").write_bytes(
                (files / f"shapes-vqa-{split}-tiny-clip.h5").read_bytes()
            )
    with pytest.raises((ConfigError, StoreError), match=fault) as caught:
        evaluate.run(config(three, name, **options), QUIET)
    assert hint in str(caught.value.hint)
    assert "\n" not in str(caught.value)


def test_candidates_by_an_encoder(three: Path) -> None:
    options: dict[str, Any] = {"model": "tiny-idefics", "task": "vqa", "device": "cpu", "anchors": 2, "candidates": 4}
    options |= {"shots": 1, "beam_size": 1, "workspace": three, "sampler": "retrieved"}
    generate.run(GenerateConfig(**options, sampler_options={"method": "i2i@eye"}), QUIET)
    with pytest.raises(StoreError, match="has no text embeddings: encoder eye encodes images only"):
        generate.run(GenerateConfig(**options, sampler_options={"method": "t2t@eye"}), QUIET)
