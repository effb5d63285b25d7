"""Precedence: defaults < environment < profile < --set < flags, for every subset of places."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from icltool.commands.generate.options import GenerateConfig
from icltool.config.resolve import resolve
from icltool.errors import ConfigError

PLACES = ("environment", "profile", "set", "flag")


@pytest.mark.parametrize("arguments", [c for n in range(5) for c in itertools.combinations(PLACES, n)], ids="+".join)
def test_the_later_place_wins(arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ICLTOOL_WORKSPACE", raising=False)
    profile = tmp_path / "p.toml"
    profile.write_text("[common]\nworkspace = 'profile'\n")
    if "environment" in arguments:
        monkeypatch.setenv("ICLTOOL_WORKSPACE", "environment")
    config = resolve(
        "generate",
        GenerateConfig,
        {"workspace": "flag"} if "flag" in arguments else {"workspace": None},
        str(profile) if "profile" in arguments else None,
        ["workspace=set"] if "set" in arguments else [],
    )
    assert config.workspace == Path(arguments[-1] if arguments else "icl-workspace")


def test_a_stage_s_own_table_wins_over_common(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_text("[common]\nbatch_size = 4\nseed = 1\n[generate]\nbatch_size = 8\n")
    config = resolve("generate", GenerateConfig, profile=str(path))
    assert isinstance(config, GenerateConfig)
    assert (config.batch_size, config.seed) == (8, 1)


def test_mappings_are_merged_key_by_key(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_text("[generate.sampler_options]\nrandom = 0.5\ntext = 0.25\n")
    config = resolve(
        "generate",
        GenerateConfig,
        {"sampler_options": ["image=0.1"]},
        str(path),
        ["generate.sampler_options.text=0.4", "sampler-options.other='7'"],
    )
    assert isinstance(config, GenerateConfig)
    assert config.sampler_options == {"random": 0.5, "text": 0.4, "image": 0.1, "other": "7"}


def test_options_of_a_profile_are_for_its_own_learner(tmp_path: Path) -> None:
    from icltool.commands.train.options import TrainConfig

    path = tmp_path / "p.toml"
    path.write_text('[train]\nlearner = "live"\nseed = 3\n[train.options]\nalpha_lr = 0.3\n')
    own = resolve("train", TrainConfig, {}, str(path))
    typed = resolve("train", TrainConfig, {"learner": "live", "options": ["epochs=2"]}, str(path))
    other = resolve("train", TrainConfig, {"learner": "lora", "options": ["epochs=2"]}, str(path))
    assert isinstance(own, TrainConfig)
    assert isinstance(typed, TrainConfig)
    assert isinstance(other, TrainConfig)
    assert (own.options, typed.options) == ({"alpha_lr": 0.3}, {"alpha_lr": 0.3, "epochs": 2})
    assert (other.options, other.seed) == ({"epochs": 2}, 3)


def test_lists_are_replaced(tmp_path: Path) -> None:
    from icltool.commands.evaluate.options import EvaluateConfig

    path = tmp_path / "p.toml"
    path.write_text("[evaluate]\nshots = [1, 2, 3]\n")
    config = resolve("evaluate", EvaluateConfig, {"shots": ["4,6", "8"]}, str(path))
    assert isinstance(config, EvaluateConfig)
    assert config.shots == (4, 6, 8)


def test_values_that_are_no_text_are_taken_as_they_are() -> None:
    config = resolve("generate", GenerateConfig, {"anchors": 3, "overwrite": True, "output": Path("x.h5")})
    assert isinstance(config, GenerateConfig)
    assert (config.anchors, config.overwrite, config.output) == (3, True, Path("x.h5"))


def test_home_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert resolve("generate", GenerateConfig, {"workspace": "~/icl"}).workspace == Path("/home/somebody/icl")


@pytest.mark.parametrize(
    ("sets", "message", "hint"),
    [
        (["ancors=3"], "--set ancors=3: generate has no option 'ancors'", "did you mean 'anchors'?"),
        (["train.learner=x"], "--set train.learner=x is an option of train, not of generate", "leave it out"),
        (["train.nothing=x"], "--set train.nothing=x: train has no option 'nothing'", "known: "),
        (["=3"], "--set '=3' is not of the form key=value", "for example"),
        (["beam_score=best"], "--set beam_score must be increment or cumulative, got 'best'", ""),
        (["anchors=2.5"], "--set anchors must be an integer, got '2.5'", "anchors: number of anchors"),
        (["sampler_options=5"], "--set sampler_options: '5' is not of the form KEY=VALUE", ""),
    ],
)
def test_wrong_settings_are_named(sets: list[str], message: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve("generate", GenerateConfig, sets=sets)
    assert caught.value.message == message
    assert hint in (caught.value.hint or "")


def test_a_wrong_environment_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from pydantic import Field

    from icltool.config.base import StageConfig

    class Config(StageConfig):
        workers: int = Field(default=1, description="workers", json_schema_extra={"env": "SAMPLE_WORKERS"})

    monkeypatch.setenv("SAMPLE_WORKERS", "two")
    with pytest.raises(ConfigError, match="environment variable SAMPLE_WORKERS must be an integer, got 'two'"):
        resolve("sample", Config)
