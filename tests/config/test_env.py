"""The .env file: found upwards, never over the real environment, mistakes named with file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from icltool.config.env import EnvFile, load_environment
from icltool.errors import ConfigError


def test_the_nearest_file_fills_in_what_is_not_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setenv("COCO_PATH", "real")
    monkeypatch.setenv("HF_TOKEN", "")
    monkeypatch.delenv("HF_TOKEN")
    (tmp_path / ".env").write_text("HF_TOKEN=outer\n")
    (tmp_path / "a").mkdir()
    inner = tmp_path / "a" / ".env"
    inner.write_text("# roots\nCOCO_PATH=file\nexport HF_TOKEN='of the file'\n")
    (tmp_path / "a" / "b").mkdir()
    assert load_environment(tmp_path / "a" / "b") == EnvFile(inner, ())
    assert (os.environ["COCO_PATH"], os.environ["HF_TOKEN"]) == ("real", "of the file")


@pytest.mark.parametrize(
    "name", ["JAVA_HOME", "LD_PRELOAD", "PATH", "PYTHONPATH", "GRADIO_ALLOWED_PATHS", "HF_ENDPOINT"]
)
def test_what_decides_which_code_runs_is_left_alone(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.delenv(name, raising=False)
    (tmp_path / ".env").write_text(f"{name}=./evil\n")
    assert load_environment(tmp_path) == EnvFile(tmp_path / ".env", (name,))
    assert name not in os.environ


def test_no_file_is_no_error(tmp_path: Path) -> None:
    assert load_environment(tmp_path) is None or not (tmp_path / ".env").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"COCO_PATH=/data\nthis is = 'no line\n", r"\.env, line 2: not of the form NAME=value"),
        (b"COCO_PATH=\xff\xfe\n", r"\.env cannot be read"),
    ],
)
def test_a_broken_file_is_named(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        load_environment(tmp_path)
