"""The training stage on a real workspace: data set, embeddings and sequences written by the stores."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from icltool.commands.generate import run as generate
from icltool.commands.generate.options import GenerateConfig
from icltool.commands.train import run as train
from icltool.commands.train.options import TrainConfig
from icltool.config import encoder as encoders
from icltool.contracts import Example, PreparedSplit, QueryResult, StageReport
from icltool.errors import ConfigError, DataError, PluginError, StoreError
from icltool.execution.processes import is_leader
from icltool.plugin.manager import component
from icltool.store.arrays import index_set, query_set
from icltool.store.embeddings import EmbeddingFile, EmbeddingWriter
from icltool.store.locking import locked
from icltool.store.provenance import Provenance
from icltool.store.records import PreparedDataset, open_dataset, write_dataset
from icltool.store.sequences import SequenceWriter
from icltool.store.workspace import Workspace
from tests.components.learners.synthetic import RecordingProgress, best_rows, make_index

EXAMPLES = 24
INDEX = make_index(EXAMPLES)
SMALL: dict[str, Any] = {"n_embd": 16, "n_head": 2, "n_layer": 1, "batch_size": 16, "epochs": 2}


def example(number: int) -> Example:
    return Example(
        id=int(INDEX.ids[number]),
        image=f"/nowhere/{number}.png",  # training must not open any
        image_id=int(INDEX.image_ids[number]),
        text=f"text {number}",
        label=f"label {number}",
        references=(f"label {number}",),
    )


def write_embeddings(
    workspace: Workspace, dataset: PreparedDataset, encoder: str = "tiny", split: str = "train"
) -> None:
    path = workspace.embeddings_file(dataset.name, dataset.task, split, encoder)
    provenance = Provenance({"encoder": encoder}, dataset.fingerprint)
    with EmbeddingWriter(path, provenance, encoder, "f00d", 16, ("image", "text"), EXAMPLES) as writer:
        assert INDEX.image is not None
        assert INDEX.text is not None
        writer.append(INDEX.ids, {"image": INDEX.image, "text": INDEX.text})


def write_sequences(
    workspace: Workspace,
    fingerprint: str,
    name: str = "one",
    queries: int = EXAMPLES,
    total: int = EXAMPLES,
    seed: int = 0,
) -> Path:
    path = workspace.sequences_file("toy", "caption", "", "random", "cosine", name)
    rng = np.random.default_rng(seed)
    with SequenceWriter(path, Provenance({"scorer": "cosine"}, fingerprint), 2, 3, 8, total) as writer:
        for query in reversed(range(queries)):
            pool = best_rows(INDEX, query, 8)
            beams = 3 if query % 2 else 2
            icds = np.array([rng.permutation(pool)[:2] for _ in range(beams)])
            scores = np.sort(rng.uniform(0.1, 1, beams))[::-1].copy()
            steps = np.stack([scores / 2, scores], 1)
            nothing = np.full(beams, np.nan)
            writer.append(
                QueryResult(
                    int(INDEX.ids[query]),
                    INDEX.ids[pool],
                    INDEX.ids[icds],
                    scores,
                    steps,
                    scores,
                    nothing,
                    0.0,
                    float("nan"),
                )
            )
    return path


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A prepared and embedded data set with finished sequences."""
    folder = Workspace(tmp_path / "ws")
    splits = [PreparedSplit("train", EXAMPLES, iter([example(n) for n in range(EXAMPLES)]))]
    dataset = write_dataset(
        folder.dataset_folder("toy", "caption"), "toy", "caption", "caption", splits, {}, RecordingProgress()
    )
    write_embeddings(folder, dataset)
    write_sequences(folder, dataset.fingerprint)
    return folder


def run(workspace: Workspace, progress: RecordingProgress | None = None, **options: Any) -> StageReport:
    values = {"options": SMALL, "trainer": {"accelerator": "cpu"}, **options}
    return train.run(TrainConfig(workspace=workspace.root, **values), progress or RecordingProgress())


def test_what_it_trains_chooses_demonstrations(workspace: Workspace) -> None:
    report = run(workspace)
    assert report.path is not None
    assert report.path.parent == workspace.checkpoints
    assert report.path.name.startswith("lever-lm-toy-caption-")
    assert workspace.newest_checkpoint("lever-lm", "toy", "caption") == report.path
    assert {row["checkpoint"] for row in report.rows()} == {"last", "min_vl", "min_tl"}
    dataset = open_dataset(workspace.dataset_folder("toy", "caption"))
    embeddings = EmbeddingFile.open(workspace.embeddings_file("toy", "caption", "train", "tiny"))
    records = dataset.split("train")
    retriever = component("retrievers", "lever-lm", folder=report.path)
    index = index_set(records, retriever.needs, embeddings)
    queries = query_set(records, retriever.needs, embeddings, np.arange(5), same_split=True)
    assert retriever.retrieve(index, queries, 3, seed=0).shape == (5, 3)


def test_every_beam_becomes_one_row(workspace: Workspace) -> None:
    run(workspace, options={**SMALL, "epochs": 1})
    card = (next(workspace.checkpoints.glob("lever-lm-*")) / "README.md").read_text()
    assert f"rows given: `{EXAMPLES // 2 * (2 + 3)}`" in card
    assert "encoder_fingerprint: `f00d`" in card


def test_the_same_training_is_not_done_twice(workspace: Workspace) -> None:
    first = run(workspace)
    assert first.path is not None
    written = (first.path / "last.safetensors").stat().st_mtime_ns
    progress = RecordingProgress()
    again = run(workspace, progress)
    assert again.path == first.path
    assert again.rows() == first.rows()
    assert any("up to date" in line for line in again.lines())
    assert not progress.tasks
    assert (first.path / "last.safetensors").stat().st_mtime_ns == written
    assert run(workspace, overwrite=True).rows() == first.rows()
    assert (first.path / "last.safetensors").stat().st_mtime_ns > written
    record = first.path / train.RECORD_FILE
    for damage in ({"provenance": "x"}, {"history": [1]}, {"checkpoints": {"last": 1}}):
        record.write_text(json.dumps({**json.loads(record.read_text()), **damage}))
        assert run(workspace).rows() == first.rows(), "trained again"


@pytest.mark.parametrize("change", [{"seed": 1}, {"options": {**SMALL, "lr": 1e-3}}, {"trainer": {"max_epochs": 1}}])
def test_another_training_gets_another_folder(workspace: Workspace, change: dict[str, Any]) -> None:
    assert run(workspace).path != run(workspace, **change).path


def test_spelling_out_a_default_changes_nothing(workspace: Workspace) -> None:
    assert (
        run(workspace).path == run(workspace, options={**SMALL, "lr": 1e-4, "variant": "query_img_icd_img_text"}).path
    )


def test_new_sequences_are_another_training(workspace: Workspace) -> None:
    first = run(workspace)
    dataset = open_dataset(workspace.dataset_folder("toy", "caption"))
    newer = write_sequences(workspace, dataset.fingerprint, "two", seed=1)
    assert run(workspace).path != first.path
    assert run(workspace, sequences=newer).lines()
    older = workspace.sequences_file("toy", "caption", "", "random", "cosine", "one")
    assert run(workspace, sequences=older).path == first.path


def test_a_checkpoint_that_went_missing_is_trained_again(workspace: Workspace) -> None:
    first = run(workspace)
    assert first.path is not None
    (first.path / "min_vl.safetensors").unlink()
    assert not any("up to date" in line for line in run(workspace).lines())
    assert (first.path / "min_vl.safetensors").is_file()


class Impatient(RecordingProgress):
    def advance(self, amount: int = 1) -> None:
        super().advance(amount)
        if self.done == 5:
            signal.raise_signal(signal.SIGINT)


def test_ctrl_c_leaves_checkpoints_and_the_next_run_starts_anew(workspace: Workspace) -> None:
    progress = Impatient()
    with pytest.raises(KeyboardInterrupt):
        run(workspace, progress, options={**SMALL, "epochs": 9})
    folder = next(workspace.checkpoints.glob("lever-lm-*"))
    assert (folder / "min_vl.safetensors").is_file()
    assert not (folder / train.RECORD_FILE).exists()
    assert str(folder) in progress.said[-1]
    report = run(workspace, options={**SMALL, "epochs": 9})
    assert report.path == folder
    assert len(json.loads((folder / train.RECORD_FILE).read_text())["history"]) == 18


def test_what_is_missing_is_named_with_its_command(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no data set is prepared"):
        run(Workspace(tmp_path / "empty"))
    with pytest.raises(StoreError, match="no embeddings by vit-b-32") as caught:
        run(workspace, encoder="vit-b-32")
    assert "icltool embed" in str(caught.value.hint)
    workspace.embeddings_file("toy", "caption", "train", "tiny").unlink()
    with pytest.raises(StoreError, match="no embeddings"):
        run(workspace)
    workspace.sequences_file("toy", "caption", "", "random", "cosine", "one").unlink()
    with pytest.raises(StoreError, match="no sequences") as caught:
        run(workspace)
    assert "icltool generate" in str(caught.value.hint)


def test_sequences_that_do_not_fit_are_refused(workspace: Workspace) -> None:
    fingerprint = open_dataset(workspace.dataset_folder("toy", "caption")).fingerprint
    unfinished = write_sequences(workspace, fingerprint, "unfinished", queries=5)
    with pytest.raises(StoreError, match="5 of 24 queries"):
        run(workspace, sequences=unfinished)
    foreign = write_sequences(workspace, "another", "foreign")
    with pytest.raises(StoreError, match=r"foreign\.h5 was generated from another data set, or another version"):
        run(workspace, sequences=foreign)
    cut = workspace.sequences / "cut.h5"
    cut.write_bytes(foreign.read_bytes()[:100])
    with pytest.raises(StoreError, match=r"cut\.h5"):
        run(workspace, sequences=cut)


def test_two_runs_on_one_folder_are_kept_apart(workspace: Workspace) -> None:
    folder = run(workspace).path
    assert folder is not None
    with locked(folder), pytest.raises(StoreError, match="is being written by"):
        run(workspace)


def test_a_training_that_is_refused_leaves_no_checkpoint_folder(workspace: Workspace) -> None:
    with pytest.raises(ConfigError, match="nosuch"):
        run(workspace, trainer={"nosuch": 1})
    assert not [p for p in workspace.checkpoints.iterdir() if p.is_dir()]


def test_a_folder_that_cannot_be_written_is_named(workspace: Workspace) -> None:
    workspace.checkpoints.write_text("in the way")
    with pytest.raises(StoreError, match="checkpoints"):
        run(workspace)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"learner": "lever"}, PluginError, "unknown learner 'lever'"),
        ({"options": {"epoch": 1}}, ConfigError, "no option 'epoch'"),
        ({"options": {**SMALL, "threshold": 5}}, DataError, "threshold 5"),
        ({"trainer": {"acelerator": "cpu"}}, ConfigError, "acelerator"),
    ],
)
def test_wrong_options_are_one_line(
    workspace: Workspace, options: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said) as caught:
        run(workspace, **options)
    assert "\n" not in str(caught.value)


def test_processes_of_a_distributed_training_leave_the_files_to_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_leader()
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert not is_leader()
    monkeypatch.setenv("RANK", "0")
    assert is_leader()
    monkeypatch.setenv("RANK", "first")
    with pytest.raises(ConfigError, match="RANK is 'first'"):
        is_leader()


def test_sequences_of_validation_queries_are_never_trained_on(workspace: Workspace) -> None:
    dataset = open_dataset(workspace.dataset_folder("toy", "caption"))
    path = workspace.sequences_file("toy", "caption", "", "random", "cosine", "validation-one")
    with SequenceWriter(path, Provenance({"queries": "validation"}, dataset.fingerprint), 2, 3, 8, 0):
        pass
    with pytest.raises(StoreError, match="validation split"):
        run(workspace, sequences=path)
    assert workspace.newest_sequences("toy", "caption") != path


@pytest.fixture
def vqa(small_world: Path, tmp_path: Path) -> Workspace:
    """The world's questions with sequences that need no LVLM."""
    folder = Workspace(tmp_path / "vqa")
    shutil.copytree(small_world / "embeddings", folder.embeddings)
    shutil.copytree(small_world / "datasets" / "shapes" / "vqa", folder.dataset_folder("shapes", "vqa"))
    options: dict[str, Any] = {"anchors": 24, "candidates": 12, "beam_size": 2}
    config = GenerateConfig(workspace=folder.root, scorer="cosine", encoder="tiny-clip", **options)
    generate.run(config, RecordingProgress())
    return folder


VQA_RECIPE: dict[str, Any] = {
    "freeze": "",
    "adapter": "false",
    "norm": "true",
    "n_embd": 64,
    "epochs": 1,
    "batch_size": 16,
}


def test_clip_is_trained_along_and_chooses_demonstrations(vqa: Workspace) -> None:
    report = run(vqa, options=VQA_RECIPE)
    assert report.path is not None
    retriever = component("retrievers", "lever-lm", folder=report.path)
    assert retriever.needs == {"images", "texts"}
    assert retriever.encoder == "tiny-clip"
    dataset = open_dataset(vqa.dataset_folder("shapes", "vqa"))
    index = index_set(dataset.split("train"), retriever.needs, None)
    queries = query_set(dataset.split("validation"), retriever.needs, None)
    answer = retriever.retrieve(index, queries, 2, seed=0)
    assert answer.shape == (len(queries), 2)
    assert any("up to date" in line for line in run(vqa, options=VQA_RECIPE).lines())
    assert run(vqa, options={**VQA_RECIPE, "freeze": "text"}).path != report.path
    assert vqa.newest_checkpoint("lever-lm", "shapes", "vqa") != report.path


def test_choosing_does_not_make_a_checkpoint_the_newest(vqa: Workspace) -> None:
    first = run(vqa, options=VQA_RECIPE).path
    second = run(vqa, options={**VQA_RECIPE, "freeze": "text"}).path
    dataset = open_dataset(vqa.dataset_folder("shapes", "vqa"))
    needs = frozenset({"images", "texts"})
    index, queries = (
        index_set(dataset.split("train"), needs, None),
        query_set(dataset.split("validation"), needs, None),
    )
    component("retrievers", "lever-lm", folder=first).retrieve(index, queries, 1, seed=0)
    assert vqa.newest_checkpoint("lever-lm", "shapes", "vqa") == second


def test_an_encoder_that_cannot_be_trained_or_has_changed_is_named(
    vqa: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = encoders.component

    def changed(kind: str, name: str, **options: Any) -> Any:
        encoder = real(kind, name, **options)
        return SimpleNamespace(name=name) if kind == "encoders" else encoder

    with monkeypatch.context() as patch:
        patch.setattr(encoders, "component", changed)
        with pytest.raises(ConfigError, match="encoder 'tiny-clip' cannot be trained"):
            run(vqa, options=VQA_RECIPE)
    monkeypatch.setattr("icltool.components.encoders.open_clip.OpenClipEncoder.fingerprint", lambda self: "another")
    with pytest.raises(StoreError, match="made by another version of encoder tiny-clip"):
        run(vqa, options=VQA_RECIPE)
