"""Every benchmark at its smallest size: it runs, both sides find the same, and the figures are there. Speeds are for the
benchmarks themselves (`pytest -m benchmark`)."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
import torch

from tests.benchmarks import (
    capacity,
    captioner_world,
    class_ranking,
    full_world,
    gqa_memory,
    live_world,
    nearest_indexes,
    prepare_memory,
    test_answers_speed,
    test_captioner_speed,
    test_cider_speed,
    test_clip_training,
    test_decoding_speed,
    test_full_size,
    test_image_cache_speed,
    test_live_speed,
    test_selection,
    test_store_speed,
)
from tests.benchmarks.engine import __main__ as engine, families, measure
from tests.benchmarks.engine.models import adapter
from tests.components.models import tiny

if TYPE_CHECKING:
    from tests.components.executors.ray_nodes import TwoNodes
    from tests.conftest import Scenery

pytest_plugins = ("tests.components.executors.ray_nodes",)
NUMBER = r"[\d,.]+"


class Printed:
    """In the place of `capsys`: keeps what a benchmark prints for its reader."""

    def __init__(self) -> None:
        self.text = ""

    @contextmanager
    def disabled(self) -> Iterator[None]:
        with redirect_stdout(StringIO()) as out:
            yield
        self.text += out.getvalue()

    def has(self, pattern: str) -> None:
        assert re.search(pattern, self.text), self.text


@pytest.fixture
def printed() -> Any:
    return Printed()


#: Sets constants of a benchmark for the test.
Sized = Callable[..., None]


@pytest.fixture
def sized(monkeypatch: pytest.MonkeyPatch) -> Sized:
    def change(module: ModuleType, **constants: Any) -> None:
        for name, value in constants.items():
            monkeypatch.setattr(module, name, value)

    return change


def called(main: Callable[[], Any], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    """A script's `main`, as the command line calls it."""
    monkeypatch.setattr(sys, "argv", ["benchmark", *arguments])
    assert not main()


@pytest.mark.parametrize("chosen", [test_answers_speed._fixed, test_answers_speed._popular])
def test_answers(chosen: Any, tmp_path: Path, printed: Any, sized: Sized) -> None:
    sized(test_answers_speed, SIZE="tiny", IMAGES=20, QUERIES=12, SHOTS=2, BATCH=4)
    test_answers_speed.test_speed_beside_prompts_one_by_one(tmp_path, printed, chosen)
    printed.has(rf"{NUMBER} queries/s by themselves, {NUMBER} sharing, {NUMBER} x")


def test_fine_tuning(scenery: Scenery, tmp_path: Path, printed: Any, sized: Sized) -> None:
    sized(test_captioner_speed, IMAGES=8, HELD=4, EPOCHS=1, ROUNDS=1)
    test_captioner_speed.test_speed_of_fine_tuning(scenery, tmp_path, printed)
    assert printed.text.count("images/s") == len(test_captioner_speed.WAYS)
    assert printed.text.count("times as fast") == 2


def test_cider(printed: Any, sized: Sized) -> None:
    sized(test_cider_speed, EXAMPLES=20, ROUNDS=1)
    test_cider_speed.test_speed_beside_pycocoevalcap(printed)
    assert printed.text.count("outputs/s") == 3


def test_the_scorer_of_generate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, printed: Any, sized: Sized) -> None:
    sized(test_cider_speed, INDEX=12, OUTPUTS=8, CALL=4, PUBLISHED_CALLS=1)
    test_cider_speed.test_scorer_beside_a_java_start_and_an_annotation_parse_per_call(monkeypatch, tmp_path, printed)
    printed.has(rf"{NUMBER} outputs/s .* the published way {NUMBER}, {NUMBER} x")


def test_clip(small_world: Path, tmp_path: Path, printed: Any, sized: Sized) -> None:
    sized(test_clip_training, EXAMPLES=16, EPOCHS=1)
    test_clip_training.test_the_worlds_clip(small_world, tmp_path / "tiny", printed)
    assert printed.text.count("epochs per minute") == len(test_clip_training.WAYS)


@pytest.mark.parametrize("network", ["gpt2", "lstm", "pointer"])
def test_decoding(network: str, printed: Any, sized: Sized) -> None:
    settings = {(1, 2): (8, 4), (3, 2): (4, 2)}
    sized(test_decoding_speed, QUERIES=8, EXAMPLES=40, DIM=16, BATCH=4, BEAMS=3, SETTINGS=settings)
    test_decoding_speed.test_speed_beside_reading_the_whole_sequence(network, printed)
    assert len(re.findall(rf"{NUMBER} sequences/s .* {NUMBER} x", printed.text)) == len(settings)


@pytest.mark.parametrize("part", test_full_size.PARTS)
def test_samplers_and_retrieval(part: str, capsys: pytest.CaptureFixture[str]) -> None:
    test_full_size.run_part(test_full_size.Size(vqa=600, coco=400, queries=12, dim=16, chunk=5), part)
    assert re.search(rf"{NUMBER} s of processor time; the process so far: {NUMBER} GiB", capsys.readouterr().out)


def test_image_caches(tmp_path: Path, printed: Any, sized: Sized) -> None:
    sized(test_image_cache_speed, IMAGES=4, ENCODED=4, PREPARED=12, BATCH=4)
    for name in ("images", "model", "features"):
        (tmp_path / name).mkdir()
    model = test_image_cache_speed.made_model(tmp_path / "model")
    paths = test_image_cache_speed.made_images(tmp_path / "images")
    test_image_cache_speed.test_encoding_beside_memory_and_disk(model, paths, tmp_path / "features", printed)
    assert printed.text.count(" ms, ") == 3
    test_image_cache_speed.test_workers_beside_one_process(model, paths, printed)
    assert printed.text.count("images/s, of them") == 2


def test_live(tmp_path: Path, printed: Any, sized: Sized) -> None:
    sized(test_live_speed, EXAMPLES=8, SHOTS=2, BATCH=4, ROUNDS=1)
    model = adapter("tiny", tmp_path / "model", torch.device("cpu"), "float32")
    data = test_live_speed.made_set(model, tmp_path / "images")
    test_live_speed.test_an_epoch_with_the_teacher_s_answers_kept(data, tmp_path, printed)
    printed.has(rf"{NUMBER} s with fresh demonstrations, {NUMBER} s with kept answers .*: {NUMBER} x")
    test_live_speed.test_memory_with_gradient_checkpointing(model, data, printed)
    printed.has(rf"checkpointing {NUMBER} MiB: {NUMBER} of it")
    test_live_speed.test_answers_with_vectors_cost_what_plain_zero_shot_costs(model, data, printed)
    printed.has(rf"{NUMBER} x the FLOPs, .* more operations, {NUMBER} x the processor time")


@pytest.mark.benchmark
@pytest.mark.xdist_group("ray")
def test_ray(nodes: TwoNodes, tmp_path: Path, printed: Any, sized: Sized) -> None:
    from tests.benchmarks import test_ray_scaling

    cluster = {"address": nodes.address, "gpus_per_worker": 0}
    sized(test_ray_scaling, ANCHORS=4, CANDIDATES=4, SHOTS=2, BEAMS=2, IDLE_UNITS=5, CLUSTER=cluster)
    test_ray_scaling.test_two_workers_against_one(tmp_path, printed)
    printed.has(rf"{NUMBER} with one worker on Ray, {NUMBER} with two; efficiency of two \d+%")
    test_ray_scaling.test_what_a_unit_costs(printed)
    printed.has(rf"its result back: {NUMBER} ms")


_DEMO = """
[common]
dataset = "shapes"
task = "caption"
model = "tiny-idefics"
encoder = "tiny-clip"
[prepare]
name = "shapes"
task = "caption"
[prepare.options]
index_images = 24
validation_images = 6
[generate]
anchors = 8
candidates = 4
beam_size = 2
[train]
learner = "lever-lm"
[train.options]
variant = "query_img_icd_idx"
n_embd = 32
n_head = 2
epochs = 1
[evaluate]
methods = ["zero-shot", "random", "i2i", "lever-lm", "pointer"]
shots = [2]
metrics = ["word-accuracy"]
"""


def test_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """With a profile `demo` of the current folder; what the learned selectors gain, only the real one shows."""
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "demo.toml").write_text(_DEMO)
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "home"
    assert test_selection.run(["demo", "--workspace", str(home)]) == 0
    folder, results = test_selection.evaluation(home)
    assert {method for method, _ in results} == {"zero-shot", "random", "i2i", "lever-lm", "pointer"}
    values, groups = test_selection.scores(folder, "pointer", 2, "word-accuracy")
    assert len(values) == len(groups) == 6
    assert results["pointer", 2].metrics["word-accuracy"].mean == pytest.approx(sum(values) / 6)
    capfd.readouterr()
    assert test_selection.run(["demo", "--workspace", str(home), "--json"]) == 0
    content = json.loads(capfd.readouterr().out)
    assert Path(content["figure"]).read_bytes().startswith(b"\x89PNG")
    assert test_selection.run(["demo", "--workspace", str(home)]) == 0
    assert capfd.readouterr().out.count("up to date") >= 5


def test_the_store(tmp_path: Path, printed: Any, sized: Sized) -> None:
    sized(test_store_speed, FINISHED={0: (6, 3), 5: (6, 3)}, SYNCED=2)
    test_store_speed.test_speed_beside_a_json_file_written_again(2, tmp_path, printed)
    assert len(re.findall(rf"{NUMBER} anchors/s.*whole JSON {NUMBER}", printed.text)) == 2


def test_indexes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    called(nearest_indexes.main, monkeypatch, "4000", "32", "20")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "4,000 rows x 32, 20 queries, 64 neighbours"
    assert len(lines) == 2 + sum(map(len, nearest_indexes.CHOICES.values()))
    recalls = [float(re.findall(r"@64 ([\d.]+)", line)[0]) for line in lines[2:]]
    assert min(recalls[0], recalls[5], recalls[10]) > 0.8, "the defaults find most"


def test_capacity(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--candidates", "6", "--beams", "2", "--anchors", "1000", "--dim", "256"]
    capacity.main([*small, "--prompts-per-second", "40", "--memory-gib", "2", "--nodes", "3", "--gpus", "2"])
    out = capsys.readouterr().out
    assert "One worker: 40 prompts/s, 2.0 GiB. An anchor takes 17 prompts" in out
    assert "\n| 6 | 240 | 14.12 |" in out


def test_the_engine(monkeypatch: pytest.MonkeyPatch, sized: Sized, capsys: pytest.CaptureFixture[str]) -> None:
    sized(measure, RATE_SECONDS=0.05)
    small = ["--anchors", "1", "--candidates", "4", "--index", "8", "--beams", "2", "--batch-size", "8"]
    called(engine.main, monkeypatch, "--size", "tiny", *small)
    *_, last = capsys.readouterr().out.splitlines()
    left, right = json.loads(last)
    assert left["sides"]["naive"]["prompts"] == right["sides"]["naive"]["prompts"] == 1 + 4 + 2 * 3


@pytest.mark.skipif(not tiny.takes_features(), reason="this release of transformers takes no ready image features")
def test_families(monkeypatch: pytest.MonkeyPatch, sized: Sized, capsys: pytest.CaptureFixture[str]) -> None:
    sized(families, SIZES={})
    called(families.main, monkeypatch, "qwen3-vl", "--candidates", "4", "--shots", "1")
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["computed"] < figures["scored"]
    assert figures["encoded"] < figures["images_read"]
    assert figures["difference"] < 1e-5


def test_ranking_of_classes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    called(class_ranking.main, monkeypatch, "--classes", "12", "--queries", "1", "--shots", "1")
    out = capsys.readouterr().out
    computed, scored = map(int, re.findall(r"(\d+) of (\d+) tokens computed", out)[0])
    assert computed < scored
    assert "the same answers" in out


def test_the_memory_of_prepare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sized: Sized, capsys: Any) -> None:
    sized(prepare_memory, SIZES={"train": (6, 20), "val": (4, 10)})
    called(prepare_memory.main, monkeypatch, str(tmp_path))
    assert re.search(rf"peak resident memory {NUMBER} GB, \d+ s", capsys.readouterr().out)


def test_the_memory_of_prepare_gqa(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    gqa_memory.main([str(tmp_path)])
    out = capfd.readouterr().out
    assert re.search(rf"943 questions, {NUMBER} MB", out)
    assert re.search(r"train +943 +72 ", out)
    assert re.search(rf"peak resident memory {NUMBER} GB, \d+ s", out)


WORLD = ("--option=index_images=24", "--option=validation_images=4")


@pytest.mark.benchmark
def test_the_whole_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sized: Sized) -> None:
    sizes = {
        "prepare": WORLD,
        "generate": ("--anchors=6", "--candidates=4", "--beam-size=2", "--quiet"),
        "train": ("--option=epochs=1", "--quiet"),
        "evaluate": ("--shots=2", "--quiet"),
    }
    others = {"half as many": full_world.OTHERS["half as many"]}
    sized(full_world, SIZES=sizes, OTHERS=others, TASKS={"caption": full_world.TASKS["caption"]})
    called(full_world.main, monkeypatch, str(tmp_path))
    for place, methods in (("home", 8), ("other-1", 3)):
        _, results = test_selection.evaluation(tmp_path / place)
        assert len({method for method, _ in results}) == methods


@pytest.mark.training
def test_live_on_the_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sized: Sized) -> None:
    sizes = {"prepare": WORLD, "train": ("--quiet",), "evaluate": ("--shots=1", "--quiet")}
    few = {"shots": "1", "max_train_size": "4", "batch_size": "4", "epochs": "1"}
    learners = {
        name: tuple(f"{key}={few.get(key, value)}" for key, _, value in (option.partition("=") for option in options))
        for name, options in live_world.LEARNERS.items()
    }
    sized(live_world, SIZES=sizes, LEARNERS=learners, METRICS={"caption": "word-accuracy"})
    called(live_world.main, monkeypatch, str(tmp_path))
    _, results = test_selection.evaluation(tmp_path)
    assert {method for method, _ in results} == {"zero-shot", "random", "i2i", *learners}


def test_captioners_on_the_world(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sized: Sized, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = {"prepare": WORLD, "train": ("--option=epochs=1", "--quiet")}
    sized(captioner_world, SIZES=sizes, PROFILES=captioner_world.PROFILES[:1], TASKS=("caption",))
    called(captioner_world.main, monkeypatch, str(tmp_path))
    assert re.search(rf"captioner-shapes-blip2, caption +finetuned +\d+ +{NUMBER} +{NUMBER}", capsys.readouterr().out)
