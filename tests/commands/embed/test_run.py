"""Embedding a small world, with the real encoder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from icltool.commands.embed import run as embed
from icltool.commands.embed.options import EmbedConfig
from icltool.commands.prepare import run as prepare
from icltool.commands.prepare.options import PrepareConfig
from icltool.components.retrievers.nearest import nearest_rows
from icltool.contracts import PreparedSplit
from icltool.errors import ConfigError, StoreError
from icltool.execution.progress import SilentProgress, for_terminal
from icltool.plugin.manager import component
from icltool.store.arrays import embedded_by, index_set, open_embeddings, query_set
from icltool.store.embeddings import EmbeddingFile
from icltool.store.records import open_dataset, write_dataset
from icltool.store.workspace import Workspace
from icltool.testing import make_examples
from tests.commands.generate.test_run import InterruptedProgress
from tests.components.encoders import tiny_encoders
from tests.components.models.tiny import shared_folder
from tests.conftest import Shared

QUIET = for_terminal(quiet=True)


def config(workspace: Path, **options: Any) -> EmbedConfig:
    return EmbedConfig(workspace=workspace, **{"encoder": "tiny-clip", "task": "vqa", "device": "cpu", **options})


def test_rows_are_the_encoders_vectors_of_their_examples(workspace: Path) -> None:
    dataset = open_dataset(workspace / "datasets" / "shapes" / "vqa")
    records = dataset.split("train")
    file = open_embeddings(Workspace(workspace), dataset, "train", "tiny-clip")
    encoder = component("encoders", "tiny-clip", device="cpu")
    np.testing.assert_array_equal(file.ids, records.ids)
    for row in (0, 7, len(records) - 1):
        [image], [text] = encoder.encode_images([records[row].image]), encoder.encode_texts([records[row].text])
        np.testing.assert_allclose(file.read("image")[row], image, atol=1e-5)
        np.testing.assert_allclose(file.read("text")[row], text, atol=1e-5)


def test_an_interrupted_run_goes_on_to_the_same_content(workspace: Path) -> None:
    path = Workspace(workspace).embeddings_file("shapes", "vqa", "train", "tiny-clip")
    whole = EmbeddingFile.open(path).read("image")
    with pytest.raises(KeyboardInterrupt):
        embed.run(config(workspace, batch_size=16, overwrite=True), InterruptedProgress(40))
    assert 0 < len(EmbeddingFile.open(path).ids) < len(whole)
    report = embed.run(config(workspace, batch_size=16), QUIET)
    assert report.rows()[0]["embedded now"] < len(whole)
    np.testing.assert_allclose(EmbeddingFile.open(path).read("image"), whole, atol=1e-5)


def test_what_is_complete_is_left_alone_without_loading_the_encoder(workspace: Path) -> None:
    report = embed.run(config(workspace), QUIET)
    assert [row["embedded now"] for row in report.rows()] == [0, 0]
    assert any("up to date" in line for line in report.lines())


def test_half_precision_halves_the_vectors(workspace: Path) -> None:
    path = Workspace(workspace).embeddings_file("shapes", "vqa", "validation", "tiny-clip")
    single = EmbeddingFile.open(path).read("image")
    with pytest.raises(StoreError, match="made with different options"):
        embed.run(config(workspace, precision="float16"), QUIET)
    embed.run(config(workspace, precision="float16", overwrite=True), QUIET)
    half = EmbeddingFile.open(path).read("image")
    assert 0 < np.abs(half - single).max() < 1e-2


def test_the_index_finds_what_brute_force_finds(workspace: Path) -> None:
    """faiss over the stored vectors against cosines written out."""
    workspace_, dataset = Workspace(workspace), open_dataset(workspace / "datasets" / "shapes" / "vqa")
    files = {s: open_embeddings(workspace_, dataset, s, "tiny-clip") for s in ("train", "validation")}
    index = index_set(dataset.split("train"), {"image"}, files["train"])
    queries = query_set(dataset.split("validation"), {"image"}, files["validation"])
    assert index.image is not None
    assert queries.image is not None
    rows = nearest_rows(index.image, queries.image, 5, lambda q: np.empty(0, dtype=np.int64))
    unit_index = index.image / np.linalg.norm(index.image, axis=1, keepdims=True)
    unit_queries = queries.image / np.linalg.norm(queries.image, axis=1, keepdims=True)
    cosines = unit_queries @ unit_index.T
    best = -np.sort(-cosines, axis=1)[:, :5]
    np.testing.assert_allclose(np.take_along_axis(cosines, rows, axis=1), best, atol=1e-6)


def test_bad_input(workspace: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no data set is prepared"):
        embed.run(config(tmp_path / "empty"), QUIET)
    with pytest.raises(ConfigError, match="not on this machine"):
        embed.run(config(workspace, encoder="vit-b-32"), QUIET)
    with pytest.raises(ConfigError, match=r"nowhere does not exist"):
        embed.run(config(workspace, encoder_path=tmp_path / "nowhere", overwrite=True), QUIET)
    dataset = open_dataset(workspace / "datasets" / "shapes" / "vqa")
    with pytest.raises(StoreError, match="no embeddings by vit-b-32") as caught:
        embedded_by(Workspace(workspace), dataset, "vit-b-32")
    assert "icltool embed" in str(caught.value.hint)


def test_an_encoder_of_one_modality_writes_its_fields(workspace: Path, shared: Shared) -> None:
    dataset, place = open_dataset(workspace / "datasets" / "shapes" / "vqa"), Workspace(workspace)
    for family, field, options in (
        (tiny_encoders.dinov3, "image", {"pooling": "mean"}),
        (tiny_encoders.bert, "text", {"prefix": "question: "}),
    ):
        folder = Path(shared_folder(shared, family))
        chosen = config(workspace, encoder="one", encoder_path=folder, encoder_options=options, overwrite=True)
        embed.run(chosen, QUIET)
        file = open_embeddings(place, dataset, "train", "one")
        assert file.fields == (field,)
        records, encoder = dataset.split("train"), chosen.chosen_encoder().build(device="cpu")
        assert file.encoder_fingerprint == encoder.fingerprint()
        inputs = [records[3].image if field == "image" else records[3].text]
        [vector] = encoder.encode_images(inputs) if field == "image" else encoder.encode_texts(inputs)
        np.testing.assert_allclose(file.read(field)[3], vector, rtol=1e-3, atol=1e-4)
        assert any(
            "up to date" in line for line in embed.run(chosen.model_copy(update={"overwrite": False}), QUIET).lines()
        )
        plain = chosen.model_copy(update={"overwrite": False, "encoder_options": {}})
        with pytest.raises(StoreError, match="made with different options"):
            embed.run(plain, QUIET)


def test_images_only_for_a_data_set_without_images(tmp_path: Path, shared: Shared) -> None:
    (tmp_path / "table.jsonl").write_text(
        "".join(f'{{"text": "text {i}", "label": "{"ab"[i % 2]}"}}\n' for i in range(20))
    )
    table: dict[str, str | int | float | bool] = {"table": str(tmp_path / "table.jsonl"), "validation": 0.5}
    prepare.run(PrepareConfig(workspace=tmp_path / "ws", name="folder", root=tmp_path, options=table), QUIET)
    folder = Path(shared_folder(shared, tiny_encoders.dinov2))
    chosen = config(tmp_path / "ws", encoder="eye", encoder_path=folder, task=None)
    with pytest.raises(ConfigError, match=r"'eye' encodes images only, and .* has none") as caught:
        embed.run(chosen, QUIET)
    assert "minilm" in str(caught.value.hint)


def test_older_files_keep_their_identity() -> None:
    """Options of the encoder are part of it only if there are any."""
    assert "encoder_options" not in EmbedConfig().identity()
    assert EmbedConfig(encoder_options={"pooling": "cls"}).identity()["encoder_options"] == {"pooling": "cls"}


def test_a_further_text_has_embeddings_of_its_own(tmp_path: Path, shared: Shared) -> None:
    def split_of(split: str) -> PreparedSplit:
        made = [
            replace(e, fields={"hint": f"hint {e.id}"} if e.id else {})
            for e in make_examples(tmp_path / split, 5, task="vqa")
        ]
        return PreparedSplit(split, len(made), made)

    place = Workspace(tmp_path / "ws")
    folder = place.dataset_folder("hints", "vqa")
    write_dataset(folder, "hints", "vqa", "vqa", [split_of("train"), split_of("validation")], {}, SilentProgress())
    chosen = config(tmp_path / "ws", encoder="words", encoder_path=Path(shared_folder(shared, tiny_encoders.bert)))
    for field in (None, "question", "hint"):
        embed.run(chosen.model_copy(update={"text_field": field}), QUIET)
    dataset = open_dataset(folder)
    vectors = {
        name: open_embeddings(place, dataset, "train", name).read("text")
        for name in ("words", "words.question", "words.hint")
    }
    encoder = chosen.chosen_encoder().build(device="cpu")
    records = dataset.split("train")
    hints = [f"hint {e.id}" if e.id else "" for e in records]
    np.testing.assert_allclose(vectors["words.hint"], encoder.encode_texts(hints), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(vectors["words"], encoder.encode_texts([e.text for e in records]), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(vectors["words.question"], vectors["words"], rtol=1e-3, atol=1e-4)
    with pytest.raises(ConfigError, match="no text in the field 'headline'") as caught:
        embed.run(chosen.model_copy(update={"text_field": "headline"}), QUIET)
    assert caught.value.hint == "its texts: hint, question"
    with pytest.raises(ConfigError, match="no text in the field 'label'"):
        embed.run(chosen.model_copy(update={"text_field": "label"}), QUIET)
