"""`icltool export`: sequences, selector and results leave the workspace whole, and read back equal."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pyarrow import parquet
from pydantic import ValidationError
from safetensors.numpy import load_file, save_file

from icltool.commands.export import run as export
from icltool.commands.export.options import ExportConfig
from icltool.components.learners.lever_lm.options import LeverLMOptions
from icltool.components.models.chat.chat_format import request
from icltool.components.tasks import task_named
from icltool.contracts import Example, QueryResult, Region, with_regions
from icltool.errors import ConfigError, DataError, StoreError
from icltool.execution.progress import SilentProgress
from icltool.plugin.manager import load_registry
from icltool.store.atomic import write_json
from icltool.store.evaluations import MetricResult, SettingResult, write_results
from icltool.store.plans import read_plan
from icltool.store.provenance import Provenance
from icltool.store.sequences import SequenceWriter
from icltool.store.workspace import Workspace

SHOTS = 3
PROVENANCE = Provenance({"scorer": "infoscore", "shots": SHOTS}, "f00d", seed=5)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A workspace in which shapes is prepared for captions, as far as choosing a data set looks."""
    folder = Workspace(tmp_path / "ws")
    write_json(folder.dataset_folder("shapes", "caption") / "dataset.json", {"default_task": "caption"})
    return folder


def _query(query_id: int, beams: int = 2) -> QueryResult:
    rng = np.random.default_rng(abs(query_id))
    return QueryResult(
        query_id=query_id,
        candidates=rng.permutation(100)[:6].astype(np.int64),
        icd_ids=rng.permutation(100)[: beams * SHOTS].reshape(beams, SHOTS).astype(np.int64),
        scores=-np.sort(-rng.normal(size=beams)),
        step_scores=rng.normal(size=(beams, SHOTS)),
        values=rng.uniform(size=beams),
        log_probs=np.full(beams, math.nan),
        base_value=0.25,
        base_log_prob=math.nan,
    )


def _sequences(workspace: Workspace, total: int = 4) -> tuple[Path, list[QueryResult]]:
    path = workspace.sequences_file("shapes", "caption", "tiny-idefics", "random", "infoscore", "abcd1234")
    results = [_query(9), _query(2, beams=1), _query(-7), _query(30)]
    with SequenceWriter(path, PROVENANCE, SHOTS, beam_size=2, candidates=6, total=total) as writer:
        for result in results:
            writer.append(result)
    return path, sorted(results, key=lambda r: r.query_id)


def _run(workspace: Workspace, what: str, **options: object):
    return export.run(ExportConfig(workspace=workspace.root, what=what, **options), SilentProgress())


def test_sequences_in_the_published_form(workspace: Workspace) -> None:
    path, results = _sequences(workspace)
    report = _run(workspace, "sequences")
    assert report.path == workspace.root / "exports" / f"{path.stem}.json"
    content = json.loads(report.path.read_text())
    assert list(content) == ["-7", "2", "9", "30"]
    for result in results:
        entry = content[str(result.query_id)]
        assert set(entry) == {"id_list", "score_list"}
        assert entry["id_list"] == [[*beam, result.query_id] for beam in result.icd_ids.tolist()]
        assert entry["score_list"] == result.scores.tolist() == sorted(entry["score_list"], reverse=True)
    assert report.rows() == [
        {"what": "sequences", "format": "json", "queries": 4, "shots": 3, "file": str(report.path)}
    ]
    assert report.lines() == []


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_sequences_as_a_table_hold_everything(workspace: Workspace, format: str) -> None:
    _, results = _sequences(workspace)
    path = _run(workspace, "sequences", format=format).path
    if format == "csv":
        with path.open(newline="") as stream:
            rows = [
                {
                    k: [int(c) for c in v.split()] if k == "candidates" else (float(v) if v else None)
                    for k, v in row.items()
                }
                for row in csv.DictReader(stream)
            ]
    else:
        table = parquet.read_table(path)
        assert json.loads(table.schema.metadata[b"icltool"])["dataset_fingerprint"] == "f00d"
        assert str(table.schema.field("icd_1").type) == "int64"
        rows = table.to_pylist()
    assert len(rows) == 7
    expected = [(result, beam) for result in results for beam in range(len(result.scores))]
    for row, (result, beam) in zip(rows, expected, strict=True):
        assert (row["query_id"], row["beam"]) == (result.query_id, beam)
        assert [row[f"icd_{k}"] for k in (1, 2, 3)] == result.icd_ids[beam].tolist()
        assert [row[f"gain_{k}"] for k in (1, 2, 3)] == result.step_scores[beam].tolist()
        assert (row["score"], row["value"]) == (result.scores[beam], result.values[beam])
        assert (row["base_value"], row["log_prob"], row["base_log_prob"]) == (0.25, None, None)
        assert row["candidates"] == result.candidates.tolist()


def test_an_unfinished_run_is_exported_with_a_remark(workspace: Workspace) -> None:
    path, _ = _sequences(workspace, total=10)
    report = _run(workspace, "sequences", input=path)
    assert "unfinished: 4 queries" in report.lines()[0]
    assert len(json.loads(report.path.read_text())) == 4


def _results() -> list[SettingResult]:
    return [
        SettingResult("random", 2, 0, 40, {"cider": MetricResult(30.125, 28.0, 32.0)}, 3.0),
        SettingResult("lever-lm", 2, 0, 40, {"cider": MetricResult(60.5, 58.0, 63.0)}, 4.0),
    ]


def _evaluation(workspace: Workspace) -> Path:
    folder = workspace.evaluation_folder("shapes", "caption", "tiny-idefics", "beef0000")
    write_results(folder, _results(), {"seed": 0})
    return folder


@pytest.mark.parametrize(
    ("format", "suffix", "part"),
    [
        (None, "csv", "lever-lm,2,0,40,cider,60.5,58.0,63.0,4.0"),
        ("markdown", "md", r"| lever-lm | **60.5 \[58.0, 63.0\]** |"),
        ("latex", "tex", r"lever-lm & \textbf{60.5 [58.0, 63.0]} \\"),
    ],
)
def test_results_as_text(workspace: Workspace, format: str | None, suffix: str, part: str) -> None:
    folder = _evaluation(workspace)
    report = _run(workspace, "results", format=format)
    assert report.path == workspace.root / "exports" / f"{folder.name}.{suffix}"
    assert any(line.startswith(part) for line in report.path.read_text().splitlines())


@pytest.mark.parametrize("format", ["csv", "json", "markdown", "latex"])
def test_several_evaluations_are_one_file(workspace: Workspace, format: str) -> None:
    folders = [_evaluation(workspace), workspace.evaluation_folder("shapes", "vqa", "other", "0f00000d")]
    write_results(folders[1], _results(), {"configuration": {"dataset": "shapes", "task": "vqa", "model": "other"}})
    text = _run(workspace, "results", format=format, input=tuple(folders)).path.read_text()
    assert all(folder.name in text for folder in folders)
    assert text.count("lever-lm") == 2
    if format == "csv":
        assert [row["model"] for row in csv.DictReader(io.StringIO(text))] == ["", "", "other", "other"]
    with pytest.raises(ConfigError, match="plan are exported from one --input, got 2"):
        _run(workspace, "plan", input=tuple(folders))


def test_results_as_json_from_a_file(workspace: Workspace, tmp_path: Path) -> None:
    folder = _evaluation(workspace)
    output = tmp_path / "deep" / "er" / "r.json"
    assert _run(workspace, "results", format="json", input=folder / "results.json", output=output).path == output
    content = json.loads(output.read_text())
    assert content["provenance"] == {"seed": 0}
    assert [row["mean"] for row in content["results"]] == [30.125, 60.5]


def _checkpoint(workspace: Workspace, digest: str = "cafe0000") -> Path:
    """A checkpoint folder as training leaves it: the files are real, their numbers are not learned."""
    folder = workspace.checkpoint_folder("lever-lm", "shapes", "caption", digest)
    folder.mkdir(parents=True)
    for position, name in enumerate(("last", "min_vl")):
        save_file({"a": np.full((2, 3), position, np.float32), "b": np.arange(4)}, folder / f"{name}.safetensors")
    write_json(folder / "config.json", {"schema": "icltool-lever-lm", "examples": 7})
    (folder / "README.md").write_text("# A selector\n\nTrained on shapes — é.\n", encoding="utf-8")
    return folder


def test_selector_with_its_card(workspace: Workspace) -> None:
    folder = _checkpoint(workspace)
    report = _run(workspace, "selector")
    target = workspace.root / "exports" / f"{folder.name}-min_vl"
    assert report.path == target
    assert sorted(p.name for p in target.iterdir()) == ["README.md", "config.json", "min_vl.safetensors"]
    assert load_file(target / "min_vl.safetensors")["a"].tolist() == [[1.0] * 3] * 2
    assert (target / "config.json").read_bytes() == (folder / "config.json").read_bytes()
    card = (target / "README.md").read_text(encoding="utf-8")
    assert card.startswith("# A selector\n\nTrained on shapes — é.")
    assert "min_vl.safetensors" in card
    assert (report.rows()[0]["tensors"], report.rows()[0]["numbers"]) == (2, 10)


def test_selector_from_one_checkpoint_file(workspace: Workspace, tmp_path: Path) -> None:
    folder = _checkpoint(workspace)
    report = _run(workspace, "selector", input=folder / "last.safetensors", output=tmp_path / "out")
    assert load_file(report.path / "last.safetensors")["a"].tolist() == [[0.0] * 3] * 2
    with pytest.raises(StoreError, match="holds another selector"):
        _run(workspace, "selector", output=tmp_path / "out", overwrite=True)


def test_a_missing_checkpoint_lists_those_there(workspace: Workspace) -> None:
    _checkpoint(workspace)
    with pytest.raises(StoreError, match=r"min_tl\.safetensors does not exist; checkpoints there: last, min_vl"):
        _run(workspace, "selector", checkpoint="min_tl")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("min_vl.safetensors", b"\x10\x00", "truncated or not a safetensors file"),
        ("config.json", b"{", "truncated or malformed"),
        ("README.md", b"\xff\xfe", "cannot be read"),
    ],
)
def test_a_damaged_checkpoint_names_the_file(workspace: Workspace, name: str, content: bytes, message: str) -> None:
    folder = _checkpoint(workspace)
    (folder / name).write_bytes(content)
    with pytest.raises(StoreError, match=message) as caught:
        _run(workspace, "selector")
    assert str(folder / name) in caught.value.message
    assert not (workspace.root / "exports").exists(), "nothing is written before everything is read"


def test_an_exported_selector_chooses_as_before(workspace: Workspace, tmp_path: Path) -> None:
    """Trained for real, exported, and loaded from where it went."""
    from icltool.components.learners.lever_lm.learner import LeverLM
    from icltool.components.retrievers.lever_lm import LeverLMRetriever, SelectorOptions
    from tests.components.learners.synthetic import make_index, make_queries, make_training_set

    index = make_index()
    folder = workspace.checkpoint_folder("lever-lm", "shapes", "caption", "0123abcd")
    learner = LeverLM(LeverLMOptions(network="lstm", n_embd=16, epochs=1))
    learner.train(make_training_set(index), folder, seed=0, progress=SilentProgress())
    queries = make_queries(index, np.arange(12))
    for name in ("min_vl", "last"):
        exported = _run(workspace, "selector", checkpoint=name, output=tmp_path / name).path
        chosen = LeverLMRetriever(SelectorOptions(folder=exported, checkpoint=name)).retrieve(index, queries, 3, 0)
        expected = LeverLMRetriever(SelectorOptions(folder=folder, checkpoint=name)).retrieve(index, queries, 3, 0)
        np.testing.assert_array_equal(chosen, expected)


def test_what_is_there_stays_unless_overwritten(workspace: Workspace, tmp_path: Path) -> None:
    _evaluation(workspace)
    output = tmp_path / "mine.csv"
    output.write_text("precious")
    with pytest.raises(StoreError, match=r"mine\.csv already exists") as caught:
        _run(workspace, "results", output=output)
    assert "--overwrite" in str(caught.value.hint)
    assert output.read_text() == "precious"
    _run(workspace, "results", output=output, overwrite=True)
    assert output.read_text().startswith("method,shots")


def test_the_input_is_never_the_output(workspace: Workspace) -> None:
    path, _ = _sequences(workspace)
    before = path.read_bytes()
    with pytest.raises(StoreError, match="is also the input"):
        _run(workspace, "sequences", input=path, output=path, overwrite=True)
    assert path.read_bytes() == before


@pytest.mark.parametrize("what", ["sequences", "selector", "results"])
def test_wrong_places(workspace: Workspace, tmp_path: Path, what: str) -> None:
    with pytest.raises(StoreError, match="absent does not exist"):
        _run(workspace, what, input=tmp_path / "absent")
    source = {"sequences": lambda w: _sequences(w)[0], "selector": _checkpoint, "results": _evaluation}[what](workspace)
    wrong = tmp_path / "wrong"
    wrong.write_text("") if what == "selector" else wrong.mkdir()
    with pytest.raises(StoreError, match="wrong is a"):
        _run(workspace, what, input=source, output=wrong, overwrite=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=str(tmp_path / "file" / "below")) as caught:
        _run(workspace, what, input=source, output=tmp_path / "file" / "below")
    assert caught.value.hint


@pytest.mark.parametrize(
    ("what", "command"),
    [
        ("sequences", "icltool generate"),
        ("selector", "icltool train"),
        ("results", "icltool evaluate"),
        ("plan", "icltool evaluate"),
        ("chat", "icltool evaluate"),
    ],
)
def test_an_empty_workspace_says_which_command_makes_it(workspace: Workspace, what: str, command: str) -> None:
    with pytest.raises(StoreError) as caught:
        _run(workspace, what)
    assert command in str(caught.value.hint)


def test_another_kind_of_file_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    text = tmp_path / "notes.h5"
    text.write_text("no HDF5")
    with pytest.raises(StoreError, match=r"notes\.h5"):
        _run(workspace, "sequences", input=text)
    with pytest.raises(StoreError, match=r"results\.json"):
        _run(workspace, "results", input=tmp_path)


@pytest.mark.parametrize(
    ("what", "format"),
    [
        ("sequences", "latex"),
        ("selector", "csv"),
        ("results", "parquet"),
        ("plan", "csv"),
        ("chat", "json"),
        ("results", "openai"),
    ],
)
def test_formats_that_do_not_fit(workspace: Workspace, what: str, format: str) -> None:
    with pytest.raises(ConfigError, match=f"{what} cannot be exported as {format}") as caught:
        _run(workspace, what, format=format)
    assert "choose from" in str(caught.value.hint)


def test_options_are_checked(workspace: Workspace) -> None:
    with pytest.raises(ValidationError):
        ExportConfig(what="images")
    with pytest.raises(ValidationError):
        ExportConfig(what="results", colour="red")
    assert "output" not in ExportConfig(what="results").identity()


def test_a_plan_of_the_best_sequences(workspace: Workspace) -> None:
    path, results = _sequences(workspace)
    report = _run(workspace, "plan", input=path)
    assert report.path == workspace.root / "exports" / f"{path.stem}-plan.json"
    assert read_plan(report.path).icd_ids == {r.query_id: tuple(r.icd_ids[0].tolist()) for r in results}


@pytest.mark.parametrize("what", ["plan", "chat"])
def test_an_intervention_is_in_no_plan_or_chat(workspace: Workspace, what: str) -> None:
    folder = workspace.evaluation_folder("shapes", "caption", "tiny-idefics", "beef0000")
    live = SettingResult("live", 0, 0, 40, {"cider": MetricResult(30.0, 28.0, 32.0)}, 3.0, {"intervention": {}})
    words = f"live is an intervention: what it puts into the model is not in a {what}"
    cases = (([live, *_results()], {"method": "live"}), ([live], {}), (_results(), {"method": "live"}))
    for results, options in cases:
        write_results(folder, results, {"seed": 0})
        with pytest.raises(ConfigError, match=words):
            _run(workspace, what, **options)
    write_results(folder, [live, *_results()], {"seed": 0})
    with pytest.raises(ConfigError, match=r"several settings fit; there are random 2-shot seed 0, lever-lm 2-shot"):
        _run(workspace, what)
    assert not (workspace.root / "exports").exists()


def test_an_intervention_is_not_a_selector(workspace: Workspace) -> None:
    words = (
        r"{0} is not a selector; `icltool evaluate --vectors` takes its file, .*/checkpoints/{0}-…/last\.safetensors"
    )
    for learner in load_registry().names("interventions"):
        with pytest.raises(ConfigError, match=words.format(learner)):
            _run(workspace, "selector", learner=learner)
    folder = workspace.checkpoint_folder("live", "shapes", "caption", "cafe0001")
    folder.mkdir(parents=True)
    save_file({"vectors": np.zeros((2, 3), np.float32)}, folder / "last.safetensors")
    write_json(folder / "training.json", {"identity": {"learner": "live"}})
    for options in ({"learner": "live"}, {"input": folder}, {"input": folder / "last.safetensors"}):
        with pytest.raises(ConfigError) as caught:
            _run(workspace, "selector", **options)
        assert str(folder / "last.safetensors") in caught.value.message


@pytest.mark.parametrize(("images", "message"), [("path", "does not exist"), ("data", "cannot be read")])
def test_a_missing_image_is_named(tmp_path: Path, images: str, message: str) -> None:
    form = export._ChatForm(task_named("caption"), "turns", None, openai=True, data=images == "data")
    with pytest.raises(DataError, match=rf"gone\.jpg {message}"):
        form.messages([], _example(image=str(tmp_path / "gone.jpg")))
    (tmp_path / "notes.jpg").write_text("no image")
    with pytest.raises(DataError, match=r"notes\.jpg is not a JPEG"):
        export._ChatForm(task_named("caption"), "turns", None, openai=True, data=True).messages(
            [], _example(image=str(tmp_path / "notes.jpg"))
        )


def test_a_chat_without_images() -> None:
    text = "a {fine} film Answer with the label only."
    user = {"role": "user", "content": [{"type": "text", "text": text}]}
    answer = {"role": "assistant", "content": [{"type": "text", "text": "good"}]}
    form = export._ChatForm(task_named("classification"), "turns", None, openai=False, data=False)
    assert form.messages([_example()], _example()) == [user, answer, user]
    plain = export._ChatForm(task_named("classification"), "turns", None, openai=True, data=False)
    assert plain.messages([_example()], _example()) == [user, {**answer, "content": "good"}, user]


def test_a_chat_in_one_turn() -> None:
    form = export._ChatForm(task_named("classification"), "flat", None, openai=False, data=False)
    text = "Input:a {fine} film Label:good\nInput:a {fine} film Label:"
    assert form.messages([_example()], _example()) == [{"role": "user", "content": [{"type": "text", "text": text}]}]


def test_chats_about_styles_and_inferences() -> None:
    example = replace(_example(), question="20 mph {sign}", style="Sweet")
    for task, text in (
        ("style", request("style", "turns").query.replace("{style}", "Sweet")),
        ("inference", request("inference", "turns").query.replace("{question}", "20 mph {sign}")),
        ("inference-choice", request("inference-choice", "turns").query.replace("{question}", "20 mph {sign}")),
    ):
        [user] = export._ChatForm(task_named(task), "turns", None, openai=False, data=False).messages([], example)
        assert user["content"] == [{"type": "text", "text": text}]


def test_regions_are_shown_as_data_and_no_path_stands_for_them(tmp_path: Path) -> None:
    Image.new("RGB", (20, 10), "white").save(tmp_path / "x.jpg")
    reference = with_regions(str(tmp_path / "x.jpg"), [Region(5, 0, 8, 10)], "crop")
    [message] = export._ChatForm(task_named("inference"), "turns", None, openai=False, data=True).messages(
        [], _example(image=reference)
    )
    kind, _, data = message["content"][0]["image"].partition(",")
    assert kind == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert image.size == (8, 10)
    for openai in (False, True):
        with pytest.raises(
            ConfigError, match=r"regions of image \S*x\.jpg are shown, which a path cannot express"
        ) as caught:
            export._ChatForm(task_named("inference"), "turns", None, openai=openai, data=False).messages(
                [], _example(image=reference)
            )
        assert caught.value.hint == "export with --images data"


def _example(image: str = "") -> Example:
    return Example(1, image, 1, "a {fine} film", "good", ("good",), choices=("good", "bad"))


@pytest.mark.parametrize(
    ("what", "options", "message"),
    [
        ("sequences", {"method": "i2i", "setting_seed": 1}, "--method, --seed cannot be used to export sequences"),
        ("results", {"images": "data"}, "--images cannot be used to export results"),
        ("plan", {"images": "data"}, "--images cannot be used to export plan"),
        ("plan", {"append": "t.csv"}, "--append cannot be used to export plan"),
        (
            "results",
            {"append": "t.csv", "format": "json"},
            "--append adds to a table, so it cannot be combined with --format",
        ),
    ],
)
def test_options_of_other_exports(workspace: Workspace, what: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        _run(workspace, what, **options)
