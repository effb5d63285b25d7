"""Which method a name is, and which file it reads."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from icltool.commands.evaluate import interventions
from icltool.commands.evaluate.inputs import Inputs
from icltool.commands.evaluate.options import EvaluateConfig
from icltool.commands.evaluate.settings import Settings
from icltool.components.models.idefics.idefics import IdeficsModel
from icltool.errors import ConfigError, PluginError, StoreError
from icltool.plugin import Registration
from icltool.plugin.registry import RegisteredComponent, Registry
from tests.commands.evaluate.vectors import ABOUT, vectors


def config(workspace: Path, **options: Any) -> EvaluateConfig:
    return EvaluateConfig(workspace=workspace, **{"model": "tiny-idefics", "task": "vqa", "test_size": 6, **options})


def settings(workspace: Path, **options: Any) -> Settings:
    return Settings(Inputs(config(workspace, **options)))


def keys(built: Settings) -> list[tuple[str, int, int]]:
    return [setting.key for group in built.groups for setting in group]


def test_a_name_is_looked_for_among_both_kinds() -> None:
    assert interventions.kind_of("i2i") == "retrievers"
    assert interventions.kind_of("live") == "interventions"
    for typed, meant in (("lve", "live"), ("randm", "random")):
        with pytest.raises(PluginError, match=f"unknown method '{typed}'") as caught:
            interventions.kind_of(typed)
        assert str(caught.value.hint).startswith(f"did you mean '{meant}'? known: ")


def test_a_name_of_both_kinds_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    both = [
        RegisteredComponent(kind, Registration("x", "a:B", ""), owner, "1")
        for kind, owner in (("retrievers", "one"), ("interventions", "two"))
    ]
    monkeypatch.setattr(interventions, "load_registry", lambda: Registry(both, []))
    with pytest.raises(PluginError, match=r"'x' is a retriever \(of one\) and an intervention \(of two\)"):
        interventions.kind_of("x")


def test_files_go_to_the_methods_that_made_them(workspace: Path, tiny_model: IdeficsModel, tmp_path: Path) -> None:
    live = vectors(tmp_path / "run" / "last.safetensors", tiny_model, 0.0)
    pca = vectors(tmp_path / "pca.safetensors", tiny_model, 0.0, method="icv-pca")
    alone = settings(workspace, vectors=(live.parent, pca), seeds=(0, 1), shots=(1, 2))
    assert keys(alone) == [("live", 0, 0), ("icv-pca", 0, 0)], "neither shots nor seeds apply"
    assert [group[0].title for group in alone.groups] == ["live", "icv-pca"]
    assert alone.methods[0].options == {"file": str(live)}
    beside = settings(workspace, vectors=(pca,), methods=("random", "icv-pca"), shots=(0, 1))
    assert keys(beside) == [("zero-shot", 0, 0), ("random", 1, 0), ("icv-pca", 0, 0)]
    by_option = settings(workspace, methods=("live",), method_options={"live.file": str(live.parent)})
    assert by_option.groups[0][0].digest == alone.groups[0][0].digest
    with pytest.raises(ConfigError, match=r"pca\.safetensors was made by icv-pca, which --method does not name"):
        settings(workspace, vectors=(live, pca), methods=("live",))
    with pytest.raises(ConfigError, match="two files for live"):
        settings(workspace, vectors=(live,), methods=("live",), method_options={"live.file": str(live)})
    with pytest.raises(StoreError, match="was written by `icltool train icv-pca`, not for method live"):
        settings(workspace, methods=("live",), method_options={"live.file": str(pca)})
    unknown = vectors(tmp_path / "x.safetensors", tiny_model, 0.0, method="unheard-of")
    with pytest.raises(ConfigError, match="was made by unheard-of, which is not an installed method"):
        settings(workspace, vectors=(unknown,))


def test_several_files_of_a_method_are_told_apart(workspace: Path, tiny_model: IdeficsModel, tmp_path: Path) -> None:
    files = [vectors(tmp_path / f"seed{n}" / "last.safetensors", tiny_model, 0.1, seed=n) for n in range(2)]
    result = settings(workspace, vectors=(*files, files[0]))
    assert keys(result) == [("live-seed0", 0, 0), ("live-seed1", 0, 0)]
    assert len({group[0].digest for group in result.groups}) == 2


def test_the_content_makes_the_setting_wherever_it_lies(
    workspace: Path, tiny_model: IdeficsModel, tmp_path: Path
) -> None:
    one, other = (vectors(tmp_path / name, tiny_model, alpha) for name, alpha in (("a", 0.1), ("b", 0.2)))
    moved = tmp_path / "elsewhere"
    shutil.copyfile(one, moved)
    digests = [settings(workspace, vectors=(file,)).groups[0][0].digest for file in (one, moved, other)]
    assert digests[0] == digests[1] != digests[2]


def trained(workspace: Path, lvlm: IdeficsModel, name: str, age: int, finished: bool = True, **identity: Any) -> Path:
    """What `train live` leaves: the file, and the record of a finished training."""
    folder = workspace / "checkpoints" / f"live-shapes-vqa-{name}"
    file = vectors(folder / "last.safetensors", lvlm, 0.1)
    os.utime(file, (age, age))
    if finished:
        own = {
            "model": "tiny-idefics",
            "model_path": None,
            "dataset_fingerprint": Inputs(config(workspace)).dataset.fingerprint,
        }
        (folder / "training.json").write_text(json.dumps({"identity": {**own, **identity}}))
    return file


def test_without_a_file_the_newest_of_those_that_fit_is_taken(workspace: Path, tiny_model: IdeficsModel) -> None:
    def chosen(**changes: Any) -> str:
        return str(settings(workspace, methods=("live",), **changes).methods[0].options["file"])

    with pytest.raises(StoreError, match=r"no live file for shapes \(vqa\)") as caught:
        settings(workspace, methods=("live",))
    assert "icltool train live --dataset shapes --task vqa" in str(caught.value.hint)
    unfinished = trained(workspace, tiny_model, "unfinished", 900, finished=False)
    with pytest.raises(StoreError, match=r"the training in .*unfinished is unfinished") as caught:
        settings(workspace, methods=("live",))
    assert f"--vectors {unfinished.parent}" in str(caught.value.hint)
    files = {
        "old": trained(workspace, tiny_model, "old", 100),
        "new": trained(workspace, tiny_model, "new", 200),
        "template": trained(workspace, tiny_model, "template", 300, prompt_template="live"),
        "data": trained(workspace, tiny_model, "data", 400, dataset_fingerprint="of another version"),
        "path": trained(workspace, tiny_model, "path", 500, model_path="m2"),
        "model": trained(workspace, tiny_model, "model", 600, model="idefics-9b"),
    }
    assert chosen() == str(files["new"])
    assert chosen(prompt_template="live") == str(files["template"])
    assert chosen(model_path="m2") == str(files["path"])
    assert chosen(model="idefics-9b") == str(files["model"])
    assert chosen(model="idefics2-8b", model_path="elsewhere") == str(
        files["model"]
    )  # nothing fits: its own check says so


def test_the_folder_of_a_checkpoint_is_taken_as_vectors(workspace: Path, tiny_model: IdeficsModel) -> None:
    file = trained(workspace, tiny_model, "one", 100)
    trained(workspace, tiny_model, "newer", 200)
    result = settings(workspace, methods=("live",), checkpoint=file.parent)
    assert result.methods[0].options["file"] == str(file)


def test_a_file_of_an_unfinished_training_is_named(workspace: Path, tiny_model: IdeficsModel, tmp_path: Path) -> None:
    about = {**ABOUT, "figures": {"epoch": 5.0}, "options": {"epochs": 12}}
    file = vectors(tmp_path / "v.safetensors", tiny_model, 0.1, about=about)
    assert "live: its training is unfinished, 5 of 12 epochs" in settings(workspace, vectors=(file,)).remarks


def test_remarks_say_what_it_was_made_from(workspace: Path, tiny_model: IdeficsModel, tmp_path: Path) -> None:
    inputs = Inputs(config(workspace))

    def notes(about: dict[str, Any]) -> list[str]:
        file = vectors(tmp_path / "v.safetensors", tiny_model, 0.1, about=about)
        return settings(workspace, vectors=(file,)).remarks

    numbers = f"live: {tmp_path / 'v.safetensors'}, 516 numbers"
    own = {**ABOUT, "dataset_fingerprint": inputs.dataset.fingerprint}
    assert notes(own) == [f"{numbers}, made from shapes (vqa), 8 shots, seed 3"]
    assert notes({}) == [numbers]
    assert notes({"dataset": "okvqa", "task": "vqa"})[1] == "live was made from okvqa (vqa), and this is shapes (vqa)"
    unnamed = "live was made from a data set that it does not name (caption), and this is shapes (vqa)"
    assert notes({"task": "caption"})[1] == unnamed
    assert notes({**own, "dataset_fingerprint": "x"})[1] == "live was made from another version of shapes (vqa)"


def test_what_looks_at_the_last_token_cannot_rank_choices(tiny_model: IdeficsModel, tmp_path: Path) -> None:
    from tests.commands.evaluate.test_ranked import workspace as classification

    where = classification(tmp_path / "ws", ("bad", "good"))
    vector = vectors(tmp_path / "v.safetensors", tiny_model, 0.1)
    inputs = Inputs(config(where, task=None, vectors=(vector,)))
    assert keys(Settings(inputs)) == [("live", 0, 0)]

    class OfTheLast:
        everywhere = False

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interventions, "component", lambda *_, **__: OfTheLast())
        with pytest.raises(ConfigError, match="live changes the last token of a prompt alone"):
            Settings(inputs)
