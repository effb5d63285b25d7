"""The built-in executor passes the suite of executors."""

from __future__ import annotations

from icltool.components.executors.local import LocalExecutor
from icltool.testing import check_executor


def test_the_local_executor_conforms() -> None:
    check_executor(LocalExecutor)
