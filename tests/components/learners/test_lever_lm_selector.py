from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from icltool.components.learners.lever_lm.learner import LeverLM
from icltool.components.learners.lever_lm.options import LeverLMOptions
from icltool.components.learners.lever_lm.selector import LeverLMSelector
from icltool.contracts import IndexSet, QuerySet
from icltool.errors import ConfigError, DataError, StoreError
from tests.components.learners.synthetic import RecordingProgress, Trained, make_index, make_queries, make_training_set


def part_of(index: IndexSet, rows: np.ndarray) -> IndexSet:
    assert index.image is not None
    assert index.text is not None
    return IndexSet(
        index.ids[rows], index.image_ids[rows], index.groups[rows], image=index.image[rows], text=index.text[rows]
    )


def grouped(trained: Trained) -> tuple[IndexSet, QuerySet]:
    """The index with pairs of neighbours in one group and triples on one image, and all rows as queries."""
    places = np.arange(len(trained.index))
    index = dataclasses.replace(trained.index, groups=places // 2, image_ids=places // 3, _lookup={})
    return index, make_queries(index, places)


@pytest.mark.parametrize("shots", [1, 2, 8])
def test_decoding_neither_repeats_nor_leaks(trained: Trained, shots: int) -> None:
    index, queries = grouped(trained)
    chosen = LeverLMSelector.load(trained.folder).decode(index, queries, shots)
    assert chosen.dtype == np.int64
    assert chosen.shape == (len(queries), shots)
    assert chosen.min() >= 0
    assert chosen.max() < len(index)
    for position, rows in enumerate(chosen):
        assert len(set(rows)) == shots
        assert not set(rows) & set(index.leaking_rows(queries, position))


def test_the_leak_guard_changes_what_is_chosen(trained: Trained) -> None:
    """Without it the selector would choose some of the rows that it must not."""
    index, queries = grouped(trained)
    free = dataclasses.replace(
        queries, ids=queries.ids + 10**6, image_ids=queries.image_ids + 10**6, groups=queries.groups * 0 - 1
    )
    chosen = LeverLMSelector.load(trained.folder).decode(index, free, 8)
    leaking = [set(rows) & set(index.leaking_rows(queries, q)) for q, rows in enumerate(chosen)]
    assert any(leaking)


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_answers_do_not_depend_on_the_batch_or_on_other_queries(trained: Trained, batch_size: int) -> None:
    selector = LeverLMSelector.load(trained.folder)
    index, queries = grouped(trained)
    expected = selector.decode(index, queries, 6)
    assert np.array_equal(selector.decode(index, queries, 6, batch_size=batch_size), expected)
    some = np.array([40, 3, 77])
    alone = dataclasses.replace(
        make_queries(index, some), image_ids=queries.image_ids[some], groups=queries.groups[some]
    )
    assert np.array_equal(selector.decode(index, alone, 6, batch_size=batch_size), expected[some])


def test_fewer_shots_are_the_beginning_of_more(trained: Trained) -> None:
    selector = LeverLMSelector.load(trained.folder)
    queries = make_queries(trained.index, np.arange(10))
    assert np.array_equal(selector.decode(trained.index, queries, 3), selector.decode(trained.index, queries, 8)[:, :3])
    assert selector.decode(trained.index, queries, 0).shape == (10, 0)


def test_greedy_decoding_equals_full_forward_passes(trained: Trained) -> None:
    """Without cache: score every prefix anew and take the best allowed row."""
    selector = LeverLMSelector.load(trained.folder, device="cpu")
    index, queries = grouped(trained)
    model, n = selector._model, len(index)
    for position in (0, 31, 64):
        closed = set(index.leaking_rows(queries, position).tolist())
        picked: list[int] = []
        for _ in range(4):
            tokens = torch.tensor([[n + 1, n + 2, *picked, n]])
            query = {"image": torch.from_numpy(queries.image[position : position + 1]).double()}
            icds = {m: torch.from_numpy(getattr(index, m)[picked])[None].double() for m in ("image", "text")}
            scores = model(tokens, query, icds)[0, -1, :n].tolist()
            picked.append(max((r for r in range(n) if r not in closed and r not in picked), key=scores.__getitem__))
        one = QuerySet(
            queries.ids[[position]], queries.image_ids[[position]], queries.groups[[position]],
            queries.image[[position]], queries.text[[position]], same_split=True,
        )  # fmt: skip
        assert selector.decode(index, one, 4)[0].tolist() == picked


def test_a_second_load_decides_alike(trained: Trained, tmp_path: Path) -> None:
    queries = make_queries(trained.index, np.arange(30))
    before = LeverLMSelector.load(trained.folder).decode(trained.index, queries, 4)
    copy = shutil.copytree(trained.folder, tmp_path / "copy")
    assert np.array_equal(LeverLMSelector.load(copy).decode(trained.index, queries, 4), before)


def test_an_index_set_in_another_order_gives_the_same_examples(trained: Trained) -> None:
    selector = LeverLMSelector.load(trained.folder)
    queries = make_queries(trained.index, np.arange(20))
    order = np.random.default_rng(1).permutation(len(trained.index))
    turned = part_of(trained.index, order)
    before, after = selector.decode(trained.index, queries, 4), selector.decode(turned, queries, 4)
    assert np.array_equal(trained.index.ids[before], turned.ids[after])


def test_part_of_the_index_set_will_do(trained: Trained) -> None:
    rows = np.sort(np.random.default_rng(1).permutation(len(trained.index))[:30])
    part = part_of(trained.index, rows)
    chosen = LeverLMSelector.load(trained.folder).decode(part, make_queries(trained.index, np.arange(20)), 4)
    assert chosen.max() < 30


def test_other_index_sets_and_encoders_are_refused_in_one_line(trained: Trained) -> None:
    selector = LeverLMSelector.load(trained.folder)
    queries = make_queries(trained.index, np.arange(3))
    strangers = dataclasses.replace(trained.index, ids=trained.index.ids + 1, _lookup={})
    with pytest.raises(DataError, match=r"another index set.*90 of these 90") as caught:
        selector.decode(strangers, queries, 2)
    assert "\n" not in str(caught.value)
    assert trained.index.image is not None
    other_encoder = dataclasses.replace(trained.index, image=trained.index.image[:, ::-1].copy(), _lookup={})
    with pytest.raises(DataError, match=r"other image embeddings.*none-at-all"):
        selector.decode(other_encoder, queries, 2)
    narrower = dataclasses.replace(trained.index, image=trained.index.image[:, :5].copy(), _lookup={})
    with pytest.raises(DataError, match="width 16"):
        selector.decode(narrower, queries, 2)
    rounded = dataclasses.replace(
        trained.index, image=trained.index.image.astype(np.float16).astype(np.float32), _lookup={}
    )
    assert selector.decode(rounded, queries, 2).shape == (3, 2)


def test_too_many_shots_are_refused(trained: Trained) -> None:
    selector = LeverLMSelector.load(trained.folder)
    queries = make_queries(trained.index, np.arange(3))
    with pytest.raises(DataError, match=f"query {queries.ids[0]} has only 89 examples to choose 90 shots from"):
        selector.decode(trained.index, queries, 90)
    with pytest.raises(ConfigError, match="positions"):
        selector.decode(trained.index, queries, 256)


def test_a_selector_that_generates_outwards_answers_in_prompt_order(tmp_path: Path) -> None:
    """Trained on one sequence only, it must give that sequence back as it stood in the prompt."""
    index = make_index(12)
    data = make_training_set(index, beams=1)
    fixed = dataclasses.replace(data, icd_rows=np.tile(np.array([[3, 7, 5]]), (12, 1)))
    options = {"n_embd": 16, "n_head": 2, "n_layer": 1, "batch_size": 4, "lr": 1e-2, "epochs": 30}
    options["validations_per_epoch"] = 1
    strangers = make_queries(index, np.array([0, 1, 2]))
    for reverse in (False, True):
        folder = tmp_path / str(reverse)
        LeverLM(LeverLMOptions(**options, reverse_seq=reverse)).train(fixed, folder, 0, RecordingProgress())
        selector = LeverLMSelector.load(folder)
        assert selector.decode(index, strangers, 3).tolist() == [[3, 7, 5]] * 3
        first = selector.decode(index, strangers, 1)
        assert first.tolist() == [[5 if reverse else 3]] * 3


def damage_cut(folder: Path) -> None:
    path = folder / "min_vl.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def damage_missing(folder: Path) -> None:
    (folder / "min_vl.safetensors").unlink()


def damage_tensor_gone(folder: Path) -> None:
    tensors = load_file(folder / "min_vl.safetensors")
    del tensors["network.transformer.ln_f.weight"]
    save_file(tensors, folder / "min_vl.safetensors")


def damage_tensor_more(folder: Path) -> None:
    tensors = load_file(folder / "min_vl.safetensors")
    save_file({**tensors, "network.extra": torch.zeros(3)}, folder / "min_vl.safetensors")


def damage_options(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["options"]["n_embd"] = 64
    (folder / "config.json").write_text(json.dumps(config))


def damage_index(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["index_fingerprint"] = "0" * 16
    (folder / "config.json").write_text(json.dumps(config))


def damage_json(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(path.read_text()[:50])


def damage_version(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "schema_version": 99}))


def damage_schema(folder: Path) -> None:
    (folder / "config.json").write_text("[]")


def damage_no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def damage_fields(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "more": 1}))


def damage_types(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "dim": [config["dim"]]}))


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (damage_types, "config.json is malformed: dim is ["),
        (damage_cut, "min_vl.safetensors"),
        (damage_missing, "checkpoints in its folder: last, min_tl"),
        (damage_tensor_gone, "min_vl.safetensors"),
        (damage_tensor_more, "min_vl.safetensors"),
        (damage_options, "min_vl.safetensors"),
        (damage_index, "another index set"),
        (damage_json, "config.json"),
        (damage_version, "schema version 99"),
        (damage_schema, "config.json"),
        (damage_no_config, "config.json"),
        (damage_fields, "config.json"),
    ],
)
def test_damaged_folders_are_named_in_one_line(trained: Trained, damage: object, named: str, tmp_path: Path) -> None:
    folder = shutil.copytree(trained.folder, tmp_path / "selector")
    damage(folder)  # type: ignore[operator]
    with pytest.raises(StoreError) as caught:
        LeverLMSelector.load(folder)
    assert named in caught.value.message
    assert str(folder) in caught.value.message
    assert "\n" not in str(caught.value)
