"""The task passes the suite of tasks."""

from __future__ import annotations

from icltool import packaged_task
from icltool.testing import check_task


def test_it_conforms() -> None:
    check_task(packaged_task("icltool_example", "counting.toml"))
