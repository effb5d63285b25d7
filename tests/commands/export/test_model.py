"""`icltool export model`: what it writes is a model, and tells no more than it was asked to."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from icltool.cli.app import run
from icltool.commands.export.model import _newest
from icltool.commands.export.options import ExportConfig
from icltool.components.models.shared.fine_tuned import read_fine_tuned
from icltool.contracts import Example, GenerationOptions
from icltool.errors import StoreError
from icltool.plugin.manager import component
from icltool.store.atomic import write_json
from icltool.store.workspace import Workspace
from tests.cli.test_bad_input import refusal
from tests.components.models.tiny_captioners import blip2_opt
from tests.conftest import Scenery

NAME = "blip2-opt-2.7b"
SECRET = "jane"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with the checkpoint of a training, its base beside it, in a home folder. Read only."""
    home = tmp_path_factory.mktemp("home") / SECRET
    base = blip2_opt(home / "models" / "blip2")
    folder = Workspace(home / "ws").checkpoint_folder("captioner", "shapes", "caption", "cafe0001", NAME)
    folder.mkdir(parents=True)
    model: Any = component("models", NAME, path=base, device="cpu")
    names = [name for name, _ in model.network.named_parameters() if "language_projection" in name]
    assert names
    about = {"dataset": "shapes", "root": f"/data/{SECRET}/coco", "options": {"lr": 1e-5}}
    for step, choice in enumerate(("best", "last"), 1):
        with torch.no_grad():
            for name, parameter in model.network.named_parameters():
                if name in names:
                    parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(step)))
        model.save_fine_tuned(folder / f"{choice}.safetensors", names, about)
    record = {
        "schema": "icltool.training",
        "identity": {"learner": "captioner", "model": NAME, "model_path": base, "options": {"lr": 1e-5}},
        "provenance": {"fine_tuned": True, "note": f"read from /data/{SECRET}/coco today", "see": "https://x.org/a/b"},
        "checkpoints": {"best": "best.safetensors", "last": "last.safetensors"},
        "history": [{"epoch": 0, "loss": 1.0}],
    }
    (folder / "training.json").write_text(json.dumps(record))
    (folder / "README.md").write_text(f"# A captioner\n\nTrained from `{base}`, lr 1e-05.\n")
    (folder / "logs").mkdir()
    (folder / "logs" / "events").write_text("not exported")
    (folder / "resume.ckpt").write_text("not exported")
    return home / "ws"


@pytest.fixture
def checkpoint(trained: Path) -> Path:
    [folder] = (trained / "checkpoints").iterdir()
    return folder


def exported(capsys: pytest.CaptureFixture[str], *arguments: Any) -> dict[str, Any]:
    capsys.readouterr()
    code = run(["export", "model", *map(str, arguments), "--json"])
    out, err = capsys.readouterr()
    assert code == 0, err
    return dict(json.loads(out)["rows"][0])


@pytest.fixture(scope="module")
def images(scenery: Scenery) -> list[Example]:
    return [scenery.example(0, 0), scenery.example(3, 5)]


def answers(path: Path, images: list[Example]) -> list[str]:
    """What the model in `path` says of images: it depends on the weights that were trained."""
    model: Any = component("models", NAME, path=str(path), device="cpu")
    prompts = [model.prompt("caption", (), example) for example in images]
    return list(model.generate(prompts, GenerationOptions(8, 1), 2))


def unpacked(archive: Path, folder: Path) -> Path:
    with tarfile.open(archive) as opened:
        opened.extractall(folder, filter="data")
    [root] = folder.iterdir()
    return root


def everything(folder: Path) -> bytes:
    return b"".join(p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file())


@pytest.mark.parametrize("choice", ["best", "last"])
def test_a_folder_is_the_model_itself(
    choice: str, checkpoint: Path, tmp_path: Path, images: list[Example], capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "model"
    row = exported(capsys, "--input", checkpoint, "--checkpoint", choice, "--output", target)
    assert (row["format"], row["weights"], row["model"], row["folder"]) == ("folder", "whole", NAME, str(target))
    written = answers(checkpoint / f"{choice}.safetensors", images)
    assert written != answers(checkpoint.parents[2] / "models" / "blip2", images)
    assert answers(target, images) == written
    from transformers import Blip2ForConditionalGeneration

    plain = Blip2ForConditionalGeneration.from_pretrained(target).state_dict()
    for name, tensor in load_file(checkpoint / f"{choice}.safetensors").items():
        torch.testing.assert_close(plain[name], tensor)
    manifest = json.loads((target / "icltool.json").read_text())
    assert manifest["model"] == NAME
    assert (manifest["copy"]["schema_version"], manifest["copy"]["weights"]) == (2, "whole")
    assert manifest["copy"]["fine_tuned"] == read_fine_tuned(checkpoint / f"{choice}.safetensors").digest
    (tmp_path / "ordinary").touch()
    modes = {path.stat().st_mode for path in target.iterdir()}
    assert modes == {(tmp_path / "ordinary").stat().st_mode}, "as readable as any new file"
    assert not (target / "logs").exists()
    assert not (target / "resume.ckpt").exists()


@pytest.mark.parametrize("weights", ["whole", "fine-tuned"])
@pytest.mark.parametrize("form", ["whole", "no-paths", "none"])
def test_backups_say_what_they_were_asked_to(
    weights: str,
    form: str,
    checkpoint: Path,
    tmp_path: Path,
    images: list[Example],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    archive = tmp_path / "backup.tar.gz"
    options = ["--format=tar.gz", f"--weights={weights}", f"--configuration={form}"]
    row = exported(capsys, "--input", checkpoint, *options, "--output", archive)
    assert (row["weights"], row["configuration"]) == (weights, form)
    root = unpacked(archive, tmp_path / "out")
    assert root.name == "backup"
    content = everything(root)
    assert (SECRET.encode() in content) == (form == "whole")
    assert (b"1e-05" in content) == (form != "none")
    assert (root / "training.json").exists() == (form != "none")
    assert (root / "model.safetensors").exists() == (weights == "whole")
    assert "## This copy" in (root / "README.md").read_text()
    if form == "no-paths":
        record = json.loads((root / "training.json").read_text())
        assert record["identity"] == {"learner": "captioner", "model": NAME, "options": {"lr": 1e-5}}
        assert record["provenance"] == {"fine_tuned": True, "note": "read from … today", "see": "https://x.org/a/b"}
    base = checkpoint.parents[2] / "models" / "blip2"
    monkeypatch.setenv("MODEL_CPK_DIR", str(tmp_path / "hub"))
    if weights == "fine-tuned":
        assert read_fine_tuned(root / "best.safetensors").base == (str(base) if form == "whole" else "")
        shutil.copytree(base, tmp_path / "hub" / "Salesforce" / NAME)
    assert answers(root, images) == answers(checkpoint, images)


def test_an_archive_is_the_same_bytes_each_time(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [tmp_path / folder / "b.tar.gz" for folder in "ab"]
    for file in files:
        exported(capsys, "--input", checkpoint, "--format=tar.gz", "--output", file)
    assert files[0].read_bytes() == files[1].read_bytes()
    with tarfile.open(files[0]) as opened:
        members = opened.getmembers()
    assert [m.name for m in members] == sorted(m.name for m in members)
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members} == {(0, 0, 0, "", "", 0o644)}
    assert sorted(p.name for p in files[0].parent.iterdir()) == ["b.tar.gz"]


def test_the_newest_checkpoint_is_meant_and_answers(
    trained: Path, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained / "checkpoints", workspace / "checkpoints")
    row = exported(capsys, "--workspace", workspace, "--dataset=shapes", "--task=caption")
    target = Path(row["folder"])
    assert target == workspace / "exports" / f"captioner-shapes-caption-{NAME}-cafe0001-best"
    again = refusal(capsys, "export", "model", "--workspace", str(workspace), "--task=caption")
    assert "already exists" in again
    assert exported(capsys, "--workspace", workspace, "--task=caption", "--overwrite")["files"] == row["files"]
    captions = ["caption", "--model", str(target), "--samples=2", "--task=caption", f"--workspace={workspace}"]
    assert run([*captions, "--device=cpu", f"--output={workspace / 'c.json'}", "--quiet"]) == 0
    assert len(json.loads((workspace / "c.json").read_text())["results"]) == 2


def test_the_only_data_set_that_was_trained_on_is_meant(trained: Path, tmp_path: Path) -> None:
    place = Workspace(tmp_path)
    shutil.copytree(trained / "checkpoints", place.checkpoints)
    [first] = place.checkpoints.iterdir()
    for name, task in (("coco2017", "caption"), ("shapes", "caption"), ("shapes", "vqa")):
        write_json(place.dataset_folder(name, task) / "dataset.json", {"default_task": "caption"})
    config = ExportConfig(what="model", workspace=tmp_path)
    assert _newest(place, config) == first
    second = place.checkpoint_folder("captioner", "coco2017", "caption", "cafe0002", NAME)
    shutil.copytree(first, second)
    with pytest.raises(StoreError, match=r"trained on coco2017 \(caption\), shapes \(caption\)"):
        _newest(place, config)
    assert _newest(place, config.model_copy(update={"dataset": "coco2017"})) == second


def test_what_cannot_be_exported(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(checkpoint, moved)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    (moved / "cut.safetensors").write_bytes((moved / "best.safetensors").read_bytes()[:100])

    def refused(*arguments: Any) -> str:
        return " ".join(refusal(capsys, "export", *map(str, arguments)).split())

    at = ["model", "--input", moved]
    assert "files that are not part of an exported model" in refused(*at, "--output", tmp_path / "mine", "--overwrite")
    assert (tmp_path / "mine" / "thesis.tex").exists()
    assert "is also the input" in refused(*at, "--output", moved, "--overwrite")
    assert "min_vl.safetensors does not exist; checkpoints there: best, cut, last" in refused(
        *at, "--checkpoint=min_vl"
    )
    assert "model cannot be exported as csv hint: choose from folder, tar.gz" in refused(*at, "--format=csv")
    assert "--dtype has no effect with --weights fine-tuned" in refused(*at, "--weights=fine-tuned", "--dtype=float16")
    assert "cut.safetensors is truncated" in refused("model", "--input", moved / "cut.safetensors")
    assert "--weights, --configuration cannot be used to export results" in refused(
        "results", "--weights=fine-tuned", "--configuration=none"
    )
    monkeypatch.setenv("MODEL_CPK_DIR", str(tmp_path))
    base = checkpoint.parents[2] / "models"
    base.rename(base.with_name("away"))
    try:
        message = refused(*at, "--output", tmp_path / "new")
        assert f"the whole {NAME} cannot be exported: weights of {NAME} are not on this machine" in message
        assert "--weights fine-tuned" in message
        assert not (tmp_path / "new").exists()
        assert exported(capsys, *at[1:], "--weights=fine-tuned", "--output", tmp_path / "new")["files"] == 4
    finally:
        base.with_name("away").rename(base)
