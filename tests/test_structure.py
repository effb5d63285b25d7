"""The tree has no circles, neither of rooms nor of files; and the script that says so sees them where there are some."""

from __future__ import annotations

from pathlib import Path

from tests.structure import ROOT, measure, table


def test_nothing_imports_in_a_circle() -> None:
    house = measure(ROOT)
    assert house.circles == []
    assert house.back == set()
    assert house.lines["components"] > 10_000, "it was read"
    assert len(house.arrows) > 30


def test_what_is_counted(tmp_path: Path) -> None:
    files = {
        "one/a.py": "from typing import Any\nfrom icltool.two import b\ndef f() -> tuple[int, Any, str]: ...\n",
        "one/c.py": "from icltool.one.d import x\n",
        "one/d.py": "def x(y):\n    import torch, icltool.one.c\n    return getattr(y, 'device', None) or getattr(y, str(y))\n",
        "two/b.py": "TYPE_CHECKING = 0\nif TYPE_CHECKING:\n    import icltool.one.d\nfrom icltool.one import a\n",
        "two/e.py": "def g() -> tuple[int, ...]: ...\ndef _h() -> tuple[int, int, int]: ...\n",
    }
    for name, text in files.items():
        (tmp_path / "icltool" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "icltool" / name).write_text(text)
    house = measure(tmp_path)
    assert house.lines == {"one": 7, "two": 6}
    assert house.arrows == house.back == {("one", "two"), ("two", "one")}
    assert house.circles == [["icltool.one.a", "icltool.two.b"], ["icltool.one.c", "icltool.one.d"]]
    assert (house.lazy, house.any, house.tuples, house.lookups) == (1, 1, 1, 1)
    assert table({"this": house})[1] == ["lines", "13"]
