"""The .env file: found upwards, never over the real environment, mistakes named with file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from icltool.config.env import load_environment
from icltool.errors import ConfigError


def test_the_nearest_file_fills_in_what_is_not_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setenv("SAMPLE_SET", "real")
    monkeypatch.setenv("SAMPLE_UNSET", "")
    monkeypatch.delenv("SAMPLE_UNSET")
    (tmp_path / ".env").write_text("SAMPLE_UNSET=outer\n")
    (tmp_path / "a").mkdir()
    inner = tmp_path / "a" / ".env"
    inner.write_text("# roots\nSAMPLE_SET=file\nexport SAMPLE_UNSET='of the file'\n")
    (tmp_path / "a" / "b").mkdir()
    assert load_environment(tmp_path / "a" / "b") == inner
    assert (os.environ["SAMPLE_SET"], os.environ["SAMPLE_UNSET"]) == ("real", "of the file")


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
