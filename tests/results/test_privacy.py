"""What is shared says nothing of who made it where."""

from __future__ import annotations

from pathlib import Path

import pytest

from icltool.results.privacy import without_places


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home folder of a user of that name, who is logged in."""
    folder = tmp_path / "home" / "ada.l"
    (folder / "my ws").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("USER", "ada.l")
    return folder


def test_paths_are_told_from_the_workspace(home: Path) -> None:
    root = home / "my ws"
    texts = {
        f"no prepared data set in {root}/datasets/shapes": "no prepared data set in datasets/shapes",
        f"shapes in {root} is another version": "shapes in the workspace is another version",
        f"shapes in {root}: missing": "shapes in the workspace: missing",
        f"{root}/": "the workspace/",
        f"file {root}-2/a": "file ~/my ws-2/a",
        f"{root}.old/a": "~/my ws.old/a",
        f"/mnt{root}/a": f"/mnt{root}/a".replace(str(home), "~"),
        "/scratch/ada.l/model": "/scratch/~/model",
        "ada.lovelace says so": "ada.lovelace says so",
        "datasets/shapes": "datasets/shapes",
    }
    assert {text: without_places(text, root) for text in texts} == texts
    assert without_places([{f"{root}/a": (f"{root}/b", 3)}], root) == [{"a": ["b", 3]}]


def test_a_workspace_behind_a_link_or_a_relative_one(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = home.parent / "link"
    link.symlink_to(home / "my ws")
    for path in (link / "a", home / "my ws" / "a"):
        assert without_places(str(path), link) == "a"
    monkeypatch.chdir(home)
    assert without_places(f"{home}/my ws/a and my ws/a", Path("my ws")) == "a and my ws/a"
    assert without_places("/a/b", Path("/")) == "/a/b"
