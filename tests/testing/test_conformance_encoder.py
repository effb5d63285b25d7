"""The open_clip encoder passes the suite of encoders, on the embedded world's weights."""

from __future__ import annotations

from pathlib import Path

from icltool.plugin.manager import component
from icltool.testing import check_encoder


def test_tiny_clip_conforms(tmp_path: Path) -> None:
    check_encoder(component("encoders", "tiny-clip", device="cpu"), tmp_path)
