"""The .env file: of the current folder, never over the real environment, mistakes named with file and line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from icltool.config.env import EnvFile, load_environment
from icltool.errors import ConfigError


def test_the_file_fills_in_what_is_not_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COCO_PATH", "real")
    monkeypatch.setenv("HF_TOKEN", "")
    monkeypatch.delenv("HF_TOKEN")
    file = tmp_path / ".env"
    file.write_text("# roots\nCOCO_PATH=file\nexport HF_TOKEN='of the file'\n")
    assert load_environment(tmp_path) == EnvFile(file, ())
    assert (os.environ["COCO_PATH"], os.environ["HF_TOKEN"]) == ("real", "of the file")


def test_a_file_further_up_is_not_read(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("COCO_PATH=outer\n")
    (tmp_path / "a").mkdir()
    assert load_environment(tmp_path / "a") is None


def test_no_file_is_no_error(tmp_path: Path) -> None:
    assert load_environment(tmp_path) is None


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
