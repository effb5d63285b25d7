"""Decoding with the towers of CLIP that a checkpoint holds."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from icltool.components.learners.lever_lm import features
from icltool.components.learners.lever_lm.learner import LeverLM
from icltool.components.learners.lever_lm.options import LeverLMOptions
from icltool.components.learners.lever_lm.selector import LeverLMSelector
from icltool.contracts import FloatArray, IndexSet, QuerySet
from icltool.errors import ConfigError, DataError, StoreError
from icltool.plugin.manager import component
from tests.components.learners.images import SMALL, arrays, tiny_clip, training_set
from tests.components.learners.synthetic import RecordingProgress

RECIPES: dict[str, dict[str, Any]] = {
    "vqa": {"freeze": "none", "variant": "query_img_text_icd_img_text"},
    "half": {"freeze": "text"},
    "query only": {"freeze": "none", "variant": "query_img_icd_text"},
    "pointer": {"freeze": "none", "network": "pointer"},
}
encoders = partial(component, "encoders")


@pytest.fixture(scope="module")
def folders(small_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The checkpoint folder of a recipe, trained when first asked for."""
    by_name: dict[str, Path] = {}

    def folder(recipe: str) -> Path:
        if recipe not in by_name:
            by_name[recipe] = tmp_path_factory.mktemp("selector")
            learner = LeverLM(LeverLMOptions(**SMALL, **RECIPES[recipe], epochs=2, lr=1e-3))
            data = training_set(arrays(small_world, learner.needs)[0], tiny_clip())
            learner.train(data, by_name[recipe], 0, RecordingProgress())
        return by_name[recipe]

    return folder


def copied(folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(folder, tmp_path / "copy", ignore=shutil.ignore_patterns("features"))


def by_hand(folder: Path, modality: str, values: tuple[str, ...]) -> FloatArray:
    """Features one by one, by an encoder that was given the checkpoint's weights."""
    encoder, start = tiny_clip(), f"clip.{modality}."
    weights = load_file(folder / "min_vl.safetensors")
    own = {n.removeprefix(start): t for n, t in weights.items() if n.startswith(start)}
    encoder.tower(modality).load_state_dict(own)
    encode = encoder.encode_images if modality == "image" else encoder.encode_texts
    return np.concatenate([encode([value]) for value in values])


@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_it_chooses_as_a_selector_that_is_given_its_towers_features(
    recipe: str, folders: Callable[[str], Path], small_world: Path, tmp_path: Path
) -> None:
    folder = copied(folders(recipe), tmp_path)
    selector = LeverLMSelector.load(folder, device="cpu", build_encoder=encoders)
    trained = selector.options.trained
    index, queries = arrays(small_world, selector.needs)
    whole, query_arrays = arrays(small_world)
    filled = [
        dataclasses.replace(a, **{m: by_hand(folder, m, a.images if m == "image" else a.texts) for m in trained})
        for a in (whole, query_arrays)
    ]
    plain = LeverLMSelector.load(folder, device="cpu", build_encoder=encoders)
    plain._clip, plain.needs = None, selector.options.reads.needs
    assert isinstance(filled[1], QuerySet)
    expected = plain.decode(filled[0], filled[1], 3)
    assert np.array_equal(selector.decode(index, queries, 3), expected)
    frozen = (
        plain.decode(whole, query_arrays, 3) if recipe == "pointer" else None
    )  # the others know these embeddings for others
    assert frozen is None or not np.array_equal(frozen, expected)


def test_answers_do_not_depend_on_the_other_queries(
    folders: Callable[[str], Path], small_world: Path, tmp_path: Path
) -> None:
    selector = LeverLMSelector.load(copied(folders("vqa"), tmp_path), device="cpu", build_encoder=encoders)
    index, queries = arrays(small_world, selector.needs)
    whole = selector.decode(index, queries, 4)
    for position in range(len(queries)):
        part = slice(position, position + 1)
        alone = QuerySet(
            queries.ids[part], queries.image_ids[part], queries.groups[part],
            texts=queries.texts[part], images=queries.images[part],
        )  # fmt: skip
        assert np.array_equal(selector.decode(index, alone, 4)[0], whole[position])
    assert np.array_equal(selector.decode(index, queries, 2), whole[:, :2])


def test_the_retriever_asks_for_images_and_texts_and_builds_the_encoder(
    folders: Callable[[str], Path], small_world: Path, tmp_path: Path
) -> None:
    folder = copied(folders("vqa"), tmp_path)
    retriever = component("retrievers", "lever-lm", folder=folder, device="cpu")
    assert retriever.needs == {"images", "texts"}
    index, queries = arrays(small_world, retriever.needs)
    assert index.image is None
    answer = retriever.retrieve(index, queries, 2, seed=0)
    assert answer.shape == (6, 2)
    half = component("retrievers", "lever-lm", folder=folders("half"))
    assert half.needs == {"images", "text"}
    with pytest.raises(ConfigError, match=r"components is 'no\.where:thing'"):
        component("retrievers", "lever-lm", folder=folder, components="no.where:thing").retrieve(index, queries, 2, 0)


def moved_images(index: IndexSet, folder: Path) -> IndexSet:
    """The same index set over copies of its images."""
    folder.mkdir()
    copies = tuple(shutil.copy(path, folder / f"{place}.jpg") for place, path in enumerate(index.images))
    return dataclasses.replace(index, images=tuple(map(str, copies)), _lookup={})


def test_an_index_set_is_encoded_once_and_interrupted_encoding_goes_on(
    folders: Callable[[str], Path], small_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pointer looks at no probe images, so that what is encoded is what has to be."""
    monkeypatch.setattr(features, "BLOCK", 16)
    folder = copied(folders("pointer"), tmp_path)
    needs = frozenset({"images", "texts"})
    index, queries = arrays(small_world, needs)
    index = moved_images(index, tmp_path / "images")
    gone = Path(index.images[-1])
    content = gone.read_bytes()
    gone.unlink()

    def decode() -> np.ndarray[Any, Any]:
        return LeverLMSelector.load(folder, device="cpu", build_encoder=encoders).decode(index, queries, 3)

    with pytest.raises(DataError, match=r"39\.jpg"):
        decode()
    blocks = sorted(path.name for path in (folder / "features").rglob("image-*/*"))
    assert blocks == ["00000.h5", "00001.h5"]
    gone.write_bytes(content)
    for path in index.images[:32]:
        Path(path).unlink()
    answer = decode()
    shutil.rmtree(tmp_path / "images")
    assert np.array_equal(decode(), answer)
    block = next((folder / "features").rglob("image-*/00001.h5"))
    block.write_bytes(block.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"\.jpg does not exist"):
        decode()
    assert not list(folder.rglob("*.tmp"))


def test_other_weights_and_other_images_have_features_of_their_own(
    folders: Callable[[str], Path], small_world: Path, tmp_path: Path
) -> None:
    folder = copied(folders("pointer"), tmp_path)
    index, queries = arrays(small_world, ("images", "texts"))
    for checkpoint in ("last", "min_vl"):
        LeverLMSelector.load(folder, checkpoint, "cpu", encoders).decode(index, queries, 2)
    same = (folder / "last.safetensors").read_bytes() == (folder / "min_vl.safetensors").read_bytes()
    count = 2 if same else 4
    assert len(list((folder / "features").iterdir())) == count
    turned = dataclasses.replace(index, images=index.images[::-1], _lookup={})
    LeverLMSelector.load(folder, "last", "cpu", encoders).decode(turned, queries, 2)
    assert len(list((folder / "features").iterdir())) == count + 1


def test_a_folder_that_cannot_be_written_keeps_nothing(
    folders: Callable[[str], Path], small_world: Path, tmp_path: Path
) -> None:
    folder = copied(folders("vqa"), tmp_path)
    (folder / "features").write_text("in the way")
    selector = LeverLMSelector.load(folder, device="cpu", build_encoder=encoders)
    index, queries = arrays(small_world, selector.needs)
    assert selector.decode(index, queries, 2).shape == (6, 2)


def test_other_images_than_those_of_training_are_refused(
    folders: Callable[[str], Path], small_world: Path, tmp_path: Path
) -> None:
    selector = LeverLMSelector.load(copied(folders("vqa"), tmp_path), device="cpu", build_encoder=encoders)
    index, queries = arrays(small_world, selector.needs)
    turned = dataclasses.replace(index, images=index.images[::-1], _lookup={})
    with pytest.raises(DataError, match="the features of its image tower differ"):
        selector.decode(turned, queries, 2)
    with pytest.raises(ValueError, match="texts are missing"):
        selector.decode(dataclasses.replace(index, texts=(), _lookup={}), queries, 2)


def test_training_again_removes_features_of_before(
    folders: Callable[[str], Path], small_world: Path, tmp_path: Path
) -> None:
    folder = copied(folders("vqa"), tmp_path)
    (folder / "features").mkdir()
    learner = LeverLM(LeverLMOptions(**SMALL, epochs=1))
    learner.train(training_set(arrays(small_world)[0]), folder, 0, RecordingProgress())
    assert not (folder / "features").exists()
    assert not [name for name in load_file(folder / "last.safetensors") if name.startswith("clip.")]


def damage_tower_gone(folder: Path) -> None:
    tensors = load_file(folder / "min_vl.safetensors")
    save_file({n: t for n, t in tensors.items() if not n.startswith("clip.text")}, folder / "min_vl.safetensors")


def damage_tensor_gone(folder: Path) -> None:
    tensors = load_file(folder / "min_vl.safetensors")
    del tensors["clip.image.proj"]
    save_file(tensors, folder / "min_vl.safetensors")


def damage_architecture(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["clip"]["architecture"]["preprocessing"]["mean"] = [0, 0, 0]
    (folder / "config.json").write_text(json.dumps(config))


def damage_no_encoder(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["clip"] = {}
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (damage_tower_gone, "other towers of CLIP"),
        (damage_tensor_gone, "min_vl.safetensors does not fit config.json"),
        (damage_architecture, "another architecture or preprocessing than encoder 'tiny-clip'"),
        (damage_no_encoder, "other towers of CLIP"),
    ],
)
def test_checkpoints_that_do_not_fit_are_named_in_one_line(
    folders: Callable[[str], Path], damage: Callable[[Path], None], named: str, tmp_path: Path
) -> None:
    folder = copied(folders("vqa"), tmp_path)
    damage(folder)
    with pytest.raises(StoreError) as caught:
        LeverLMSelector.load(folder, build_encoder=encoders)
    assert named in caught.value.message
    assert str(folder) in caught.value.message
    assert "\n" not in str(caught.value)


def test_without_an_encoder_the_checkpoint_says_what_it_misses(folders: Callable[[str], Path]) -> None:
    with pytest.raises(ConfigError, match="trained towers of encoder 'tiny-clip'"):
        LeverLMSelector.load(folders("vqa"))
    with pytest.raises(ConfigError, match="which is not trainable here"):
        LeverLMSelector.load(folders("vqa"), build_encoder=lambda name, **options: object())


def test_loading_needs_no_pretrained_weights(folders: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, Any]] = []

    def build(name: str, **options: Any) -> Any:
        calls.append(options)
        return encoders(name, **options)

    LeverLMSelector.load(folders("vqa"), build_encoder=build)
    assert calls == [{"weights": False, "device": "cpu"}]
    with torch.random.fork_rng():
        untrained = tiny_clip(weights=False)
    assert untrained.architecture() == tiny_clip().architecture()
