"""`icltool caption` as users call it, on the embedded world."""

from __future__ import annotations

import itertools
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from icltool.cli.app import run
from icltool.commands.caption import entries as entries_module
from icltool.commands.caption.answer_session import AnswerSession
from icltool.components.models.idefics.idefics import IdeficsModel
from icltool.store.journal import journal_path
from icltool.store.records import open_dataset
from icltool.store.workspace import Workspace
from tests.cli.test_bad_input import refusal
from tests.processes import Child

MODEL = ["--model=tiny-idefics", "--device=cpu"]


@pytest.fixture
def images(small_world: Path) -> list[Path]:
    """Some images of the small world."""
    dataset = open_dataset(Workspace(small_world).dataset_folder("shapes", "caption"))
    return [Path(image) for image in dataset.split("validation").images[:6]]


def written(file: Path, entries: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(entries if isinstance(entries, str) else json.dumps(entries))
    return file


def captioned(capsys: pytest.CaptureFixture[str], output: Path, *arguments: Any) -> dict[str, Any]:
    """The file of a call that must succeed."""
    capsys.readouterr()
    code = run(["caption", *MODEL, *map(str, arguments), "--output", str(output), "--quiet"])
    assert code == 0, capsys.readouterr().err
    return dict(json.loads(output.read_text()))


def test_captions_of_a_list(
    workspace: Path, images: list[Path], tiny_model: IdeficsModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = images[0].parent
    entries = [
        {"image": p.name, "reference": f"reference {n}"} if n % 2 else {"image": str(p)} for n, p in enumerate(images)
    ]
    file = written(tmp_path / "in" / "list.json", entries)
    captions = captioned(capsys, tmp_path / "out.json", "--input", file, "--images", folder, "--batch-size=4")
    assert (captions["model_name"], captions["model_revision"]) == ("tiny-idefics", tiny_model.fingerprint())
    assert list(captions) == ["model_name", "model_revision", "settings", "results"]
    assert [row["image"] for row in captions["results"]] == [entry["image"] for entry in entries]
    assert [row.get("reference") for row in captions["results"]] == [entry.get("reference") for entry in entries]
    alone = captioned(capsys, tmp_path / "alone.json", "--input", file, "--images", folder, "--batch-size=1")
    assert alone["results"] == captions["results"], "no caption depends on the batch"
    assert all(row["caption"].startswith("a ") for row in captions["results"])
    exit_code = run(["caption", *MODEL, f"--input={file}", f"--images={folder}", f"--output={tmp_path / 'o.json'}"])
    assert exit_code == 0
    out = capsys.readouterr().out
    assert "the first 5 of 6 captions" in out
    assert captions["results"][0]["caption"] in out


def test_a_description_stands_for_the_name(
    images: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path / "list.json", [{"image": str(images[0])}])
    assert captioned(capsys, tmp_path / "o.json", "--input", file, "--description=my model")["model_name"] == "my model"


def test_hashes_and_demonstrations(
    workspace: Path, images: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An image's demonstrations depend on the image and the seed, not on its place in the list."""
    entries = [{"image_hash": p.stem} for p in images]
    common = ["--images", images[0].parent, "--shots=3", "--workspace", workspace, "--task=caption"]
    forth = captioned(capsys, tmp_path / "f.json", "--input", written(tmp_path / "a.json", entries), *common)
    back = captioned(capsys, tmp_path / "b.json", "--input", written(tmp_path / "b", entries[::-1]), *common)
    other = captioned(capsys, tmp_path / "s.json", "--input", tmp_path / "a.json", *common, "--seed=1")
    assert forth["results"] == back["results"][::-1]
    icds = [row["icd_ids"] for row in forth["results"]]
    assert all(len(set(ids)) == 3 for ids in icds)
    assert icds != [row["icd_ids"] for row in other["results"]]
    assert forth["results"][0]["image_hash"] == images[0].stem
    assert forth["results"][0]["image"] == images[0].name
    assert forth["settings"]["shots"] == 3


def test_samples_of_a_data_set(workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--task=vqa", "--workspace", workspace, "--shots=2"]
    captions = captioned(capsys, tmp_path / "v.json", "--samples=5", *common)
    records = open_dataset(Workspace(workspace).dataset_folder("shapes", "vqa")).split("validation")
    train = open_dataset(Workspace(workspace).dataset_folder("shapes", "vqa")).split("train")
    known = {(e.image, e.question): e for e in records}
    for row in captions["results"]:
        query = known[row["image"], row["question"]]
        assert row["reference"] == query.label
        demonstrations = train.rows([train.row_of(i) for i in row["icd_ids"]])
        assert not any(d.image_id == query.image_id or d.group == query.group for d in demonstrations)
    again = captioned(capsys, tmp_path / "v2.json", "--samples=5", *common)
    assert again == captions
    assert captioned(capsys, tmp_path / "v3.json", "--samples=5", "--seed=3", *common)["results"] != captions["results"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{not json", ["list.json is not a JSON file"]),
        ({"image": "a.jpg"}, ["holds an object, not a list"]),
        ([], ["holds an empty list"]),
        (["a.jpg"], ["entry 1: expected an object, got a text"]),
        ([{"image": "GOOD"}, {"style": "Sweet"}], ["entry 2: no image"]),
        ([{"image": "GOOD", "image_hash": "x"}], ["entry 1: both image and image_hash"]),
        ([{"image": "GOOD", "stile": "x"}], ["entry 1: unknown key 'stile'", "did you mean 'style'"]),
        ([{"image": 3}], ["entry 1: image must be a string, got a number"]),
        ([{"image": "GOOD"}, {"image": "gone.jpg"}], ["entry 2: ", "gone.jpg does not exist", "--images FOLDER"]),
        (
            [{"image": "text.jpg"}],
            ["entry 1: ", "text.jpg cannot be read: it is not an image of a known format", "restore the file"],
        ),
        ([{"image": "."}], ["entry 1: ", " is a folder"]),
        (
            [{"image": f"{n}.jpg"} for n in range(9)],
            ["0.jpg does not exist", "2.jpg does not exist; and 6 more images"],
        ),
        ([{"image": "GOOD", "style": "Sweet"}, {"image": "GOOD"}], ["entry 2 has no style, but entry 1 has one"]),
        ([{"image": "GOOD", "question": "q", "clue": "c"}], ["entry 1: both question and clue"]),
    ],
)
def test_lists_that_do_not_fit(
    content: Any, words: list[str], images: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written(tmp_path / "text.jpg", "no image")
    text = content if isinstance(content, str) else json.dumps(content).replace("GOOD", str(images[0]))
    file = written(tmp_path / "list.json", text)
    err = refusal(capsys, "caption", "--model=tiny-idefics", "--input", str(file), f"--output={tmp_path / 'o.json'}")
    for word in words:
        assert word in err
    assert not (tmp_path / "o.json").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["give either --input FILE or --samples N"]),
        (["--input", "LIST", "--samples=3"], ["give either --input FILE or --samples N"]),
        (["--samples=3", "--images=."], ["--images is for the images of --input"]),
        (["--input", "gone.json"], ["gone.json does not exist"]),
        (["--input", "LIST", "--task=captoin"], ["unknown task 'captoin'", "did you mean 'caption'"]),
        (["--input", "LIST", "--task=classification"], ["chooses from a list"]),
        (["--input", "LIST", "--task=vqa"], ["entry 1: no question, which task vqa needs"]),
        (["--input", "LIST", "--model=tiny-idefix"], ["did you mean 'tiny-idefics'"]),
        (["--input", "LIST", "--shots=2", "--dataset=cocoo"], ["cocoo", "icltool prepare"]),
        (["--input", "LIST", "--shots=9999"], ["--shots 9999: only"]),
        (["--input", "LIST", "--output=FOLDER"], ["is a folder"]),
        (["--input", "LIST", "--output=LIST"], ["already exists", "--overwrite"]),
        (["--input", "LIST", "--output=LIST", "--overwrite"], ["is an input file"]),
        (["--input", "LIST", "--output=LIST/c.json"], ["cannot be written: no file can be created there"]),
    ],
)
def test_calls_that_do_not_fit(
    arguments: list[str],
    words: list[str],
    workspace: Path,
    images: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = written(tmp_path / "list.json", [{"image": str(images[0])}])
    options = [a.replace("LIST", str(file)).replace("FOLDER", str(tmp_path)) for a in arguments]
    err = refusal(capsys, "caption", *MODEL, *options, "--workspace", str(workspace))
    for word in words:
        assert word in err
    assert json.loads(file.read_text()), "what was there stays"


def test_styles_are_checked_before_the_model_is_loaded(
    images: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MODEL_CPK_DIR", raising=False)
    entries = [{"image": str(images[0]), "style": style} for style in ("Sweet", "happpy")]
    file, styles = written(tmp_path / "list.json", entries), written(tmp_path / "styles.txt", "Happy\nSweet\n\n")
    call = ["caption", "--input", str(file), "--model=idefics-9b", f"--output={tmp_path / 'o.json'}"]
    err = refusal(capsys, *call, "--styles", str(styles))
    assert "entry 2: unknown style 'happpy'" in err
    assert "did you mean 'Happy'? known: Happy, Sweet; --any-style accepts it" in err
    assert "weights of idefics-9b are not" in refusal(capsys, *call, "--styles", str(styles), "--any-style")
    assert "contains no styles" in refusal(capsys, *call, "--styles", str(written(tmp_path / "none.txt", "\n")))


@pytest.mark.parametrize(("key", "task"), [("clue", "inference"), ("question", "vqa"), ("style", "style")])
def test_what_entries_hold_says_what_is_asked(
    key: str, task: str, images: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path / "list.json", [{"image": str(p), key: "what colour?"} for p in images[:2]])
    captions = captioned(capsys, tmp_path / "o.json", "--input", file, "--workspace", tmp_path)
    assert captions["settings"]["task"] == task
    assert [row[key] for row in captions["results"]] == ["what colour?"] * 2
    plain = captioned(capsys, tmp_path / "p.json", "--input", file, "--workspace", tmp_path, "--task=caption")
    assert plain["settings"]["task"] == "caption"
    assert [row["caption"] for row in plain["results"]] != [row["caption"] for row in captions["results"]]


def test_a_image_that_breaks_half_way_loses_nothing(
    images: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = tmp_path / "cut.jpg"
    data = images[2].read_bytes()
    cut.write_bytes(data[: len(data) // 2])
    entries = [{"image": str(p)} for p in (*images[:2], cut, *images[3:])]
    file, output = written(tmp_path / "list.json", entries), tmp_path / "o.json"
    call = ["caption", *MODEL, "--input", str(file), "--output", str(output), "--batch-size=1", "--image-cache-mb=0"]
    err = refusal(capsys, *call)
    assert "list.json, entry 3: image" in err
    assert "rerun the command to resume" in err
    assert not output.exists()
    assert journal_path(output).exists()
    other = refusal(capsys, *call, "--num-beams=1")
    assert "contains unfinished captions made with different generation, options" in other
    cut.write_bytes(data)
    assert run(call) == 0
    assert "2 of 6 images were captioned by an earlier run" in capsys.readouterr().out
    assert not journal_path(output).exists()
    whole = captioned(capsys, tmp_path / "whole.json", "--input", file, "--batch-size=1", "--image-cache-mb=0")
    assert json.loads(output.read_text()) == whole


def test_a_killed_call_goes_on(images: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path / "list.json", [{"image": str(images[n % 6]), "reference": str(n)} for n in range(24)])
    output = tmp_path / "o.json"
    call = ["caption", *MODEL, "--input", str(file), "--output", str(output), "--batch-size=2"]

    def work() -> int:
        answers, numbers = AnswerSession.answers, itertools.count()

        def dying(self: AnswerSession, requests: Any) -> Any:
            if next(numbers) == 5:
                os.kill(os.getpid(), signal.SIGKILL)
            return answers(self, requests)

        AnswerSession.answers = dying  # type: ignore[method-assign]
        return run(call)

    with Child(work) as child:
        assert child.wait() == -signal.SIGKILL, child.err
    assert journal_path(output).exists()
    assert not output.exists()
    assert run(call) == 0
    assert "10 of 24 images were captioned by an earlier run" in capsys.readouterr().out
    results = json.loads(output.read_text())["results"]
    assert [row["reference"] for row in results] == [str(n) for n in range(24)]
    assert len({row["caption"] for row in results[::6]}) == 1


def test_what_is_asked_is_known_by_its_content(images: list[Path], tmp_path: Path) -> None:
    entries = [
        {"image": str(images[0]), "style": "Sweet", "reference": "r"},
        {"image": str(images[1]), "style": "Sad"},
    ]
    first = entries_module.read_entries(written(tmp_path / "a.json", entries))
    moved = entries_module.read_entries(written(tmp_path / "b.json", entries[::-1]))
    assert [e.example.id for e in first] == [e.example.id for e in moved[::-1]]
    assert entries_module.digest_of(first) != entries_module.digest_of(moved)
    assert entries_module.task_of_entries(first, tmp_path) == "style"
    region = f"{images[0]}#xywh=1,2,3,4&show=highlight"
    [entry] = entries_module.read_entries(written(tmp_path / "c.json", [{"image": region, "clue": "a hat"}]))
    assert entry.example.image == region
    assert (entry.example.question, entries_module.task_of_entries([entry], tmp_path)) == ("a hat", "inference")
