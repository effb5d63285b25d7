"""Profiles: what is shipped fits the stages' options; what is wrong is named with file, table and key."""

from __future__ import annotations

import resource
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from icltool.commands.evaluate.methods import FINETUNED
from icltool.config.profiles import ProfileFolders, load_profile, read_profile
from icltool.config.resolve import resolve
from icltool.errors import ConfigError
from icltool.plugin.commands import stage_model, stages

ROOT = Path(__file__).resolve().parents[2]
#: Files of the package that are not Python.
_PARTS = (".css", ".js", ".html", ".svg")
SHIPPED = sorted((ROOT / "profiles").glob("*.toml"))
#: How the names of models begin that come from packages of their own (plugins/), which need not be installed.
PLUGIN_MODELS = ("openflamingo-", "ofa-", "tiny-ofa")


def write(folder: Path, text: str) -> Path:
    path = folder / "p.toml"
    path.write_text(text)
    return path


def test_the_published_set_ups_are_shipped() -> None:
    names = {path.stem for path in SHIPPED}
    assert {"leverlm-coco2017-idefics-9b", "leverlm-vqav2-idefics-9b", "demo"} <= names


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
@pytest.mark.parametrize("stage", stages())
def test_every_shipped_profile_gives_every_stage_its_options(path: Path, stage: str) -> None:
    """Each key arrives in the stage's configuration with the value that the file has."""
    model = stage_model(stage)
    profile = read_profile(path)
    assert profile.summary
    required = {"what": "results"} if stage == "export" else {}
    config = resolve(stage, model, required, profile=str(path))
    for key, value in profile.values(stage, model).items():
        setting = getattr(config, key)
        assert (list(setting) if isinstance(setting, tuple) else setting) == value


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_profile_names_components_and_learner_options_that_exist(path: Path) -> None:
    from icltool.plugin.manager import component, load_registry

    registry = load_registry()
    kinds = {k: f"{k}s" for k in ("model", "encoder", "sampler", "scorer", "learner")}
    tables = read_profile(path).tables
    for table in tables.values():
        for key, kind in kinds.items():
            if key in table and not str(table[key]).startswith(PLUGIN_MODELS):
                registry.get(kind, table[key])
    registry.get("datasets", tables["prepare"]["name"])
    known = {*registry.names("retrievers"), *registry.names("interventions"), FINETUNED}
    assert set(tables["evaluate"]["methods"]) <= known
    if "train" in tables:  # methods that learn nothing have no such table
        component("learners", tables["train"]["learner"], **tables["train"]["options"])


def test_the_published_figures() -> None:
    for name in ("leverlm-coco2017-idefics-9b", "leverlm-vqav2-idefics-9b"):
        tables = load_profile(name).tables
        generate = tables["generate"]
        assert [generate[key] for key in ("anchors", "candidates", "beam_size", "shots")] == [5000, 64, 5, 2]
        assert tables["evaluate"]["shots"] == [1, 2, 3, 4, 6, 8]


def test_names_are_found_in_the_current_folder_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_profile("demo").path.resolve() == (ROOT / "profiles" / "demo.toml").resolve()
    (tmp_path / "profiles").mkdir()
    own = tmp_path / "profiles" / "demo.toml"
    own.write_text("summary = 'mine'")
    assert load_profile("demo").summary == "mine"
    assert load_profile(str(own)).summary == "mine"
    assert "demo" in ProfileFolders().names()


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("[generate]\nanchor = 5", "{p}: unknown key 'anchor' in table [generate]", "did you mean 'anchors'?"),
        ("[generat]\nanchors = 5", "{p}: unknown table 'generat'", "did you mean 'generate'?"),
        ("anchors = 5", "{p}: unknown key 'anchors'", "known: summary, common, prepare"),
        ("[common]\nbeam_sise = 5", "{p}: unknown key 'beam_sise' in table [common]", "did you mean 'beam_size'?"),
        ("[generate]\nanchors = 'many'", "{p}, table [generate], key 'anchors' must be an integer, got 'many'", ""),
        ("[generate]\nanchors = '5'", "{p}, table [generate], key 'anchors' must be an integer, got '5'", ""),
        ("[generate]\nanchors = true", "{p}, table [generate], key 'anchors' must be an integer, got True", ""),
        ("[generate]\nanchors = 0", "{p}, table [generate], key 'anchors' must be at least 1, got 0", ""),
        (
            "[generate]\nbeam_score = 'x'",
            "{p}, table [generate], key 'beam_score' must be increment or cumulative",
            "",
        ),
        (
            "[evaluate]\nshots = 4",
            "{p}, table [evaluate], key 'shots' must be a list in which each item is an integer",
            "",
        ),
        ("[evaluate]\nshots = [4, 'x']", "{p}, table [evaluate], key 'shots' must be an integer, got 'x'", ""),
        ("[common]\nmodel = 5", "{p}, table [common], key 'model' must be a string, got 5", ""),
        ("generate = 5", "{p}: 'generate' must be a table, got 5", "write it as [generate]"),
        ("summary = 5", "{p}: summary must be a string, got 5", ""),
        ("[generate]\nanchors = ?", "{p}: not valid TOML: Invalid value (at line 2, column 11)", ""),
    ],
)
def test_mistakes_are_named(text: str, message: str, hint: str, tmp_path: Path) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        read_profile(path)
    assert caught.value.message.startswith(message.format(p=path))
    assert hint in (caught.value.hint or "")


def test_mistakes_in_another_stage_s_table_are_found_as_well(tmp_path: Path) -> None:
    path = write(tmp_path, "[generate]\nanchors = 5\n[evaluate]\nshot = [1]")
    with pytest.raises(ConfigError, match=r"unknown key 'shot' in table \[evaluate\]"):
        resolve("generate", stage_model("generate"), profile=str(path))


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"summary = '\xe9'"])
def test_a_file_that_is_no_text_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"p\.toml"):
        read_profile(path)


def test_a_file_that_does_not_fit_in_memory(tmp_path: Path) -> None:
    """A sparse file, far larger than what this process may take."""
    path = tmp_path / "p.toml"
    with path.open("wb") as file:
        file.truncate(1 << 36)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (1 << 36, limits[1]))
    try:
        with pytest.raises(ConfigError, match=r"p\.toml cannot be read: it is too large"):
            read_profile(path)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("demp", "unknown profile 'demp'", "did you mean 'demo'?"),
        ("no/such.toml", "profile no/such.toml does not exist", "demo"),
    ],
)
def test_unknown_profiles(name: str, message: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_profile(name)
    assert caught.value.message == message
    assert hint in (caught.value.hint or "")


@pytest.mark.external
def test_the_wheel_holds_the_profiles_and_finds_them_there(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    own = {path.relative_to(ROOT).as_posix() for path in (ROOT / "icltool").rglob("*") if path.suffix in _PARTS}
    assert own, "style sheets, scripts and templates of pages"
    assert all((tmp_path / "site" / name).is_file() for name in own)
    code = "from icltool.config.profiles import load_profile; print(load_profile('demo').path)"
    answer = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout.strip() == str(tmp_path / "site" / "icltool" / "_profiles" / "demo.toml")
