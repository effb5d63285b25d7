"""VL-ICL Bench, from made-up files in the official layout."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from icltool.cli.app import run
from icltool.components.datasets.vlicl import VlIclReader
from icltool.errors import DataError
from icltool.plugin.manager import component
from icltool.store.evaluations import predictions_file, read_predictions
from icltool.testing import check_dataset
from tests.components.datasets.builders import edit, read_all, write_image, write_json

QUESTION = "What is the result of the following mathematical expression?"
WORDS = ("blicket", "slation", "dax", "shously", "perpo")


def operator(task: str, files: dict[str, Any]) -> dict[str, Any]:
    pairs = [(a, b) for a in range(4) for b in range(3)]
    support = [
        {
            "id": f"{task}_support_{a}_{b}",
            "image": files["support"](a, b),
            "question": QUESTION,
            "answer": [a + b, a - b, a * b],
        }
        for a, b in pairs[2:]
    ]  # fmt: skip
    queries = [
        {"id": f"{task}_query_{a}_{b}", "image": files["query"](a, b), "operator": operator, "question": QUESTION,
         "answer": {"+": a + b, "-": a - b, "x": a * b}[operator]}
        for a, b in pairs[:2]
        for operator in ("+", "-", "x")
    ]  # fmt: skip
    return {"support": support, "query": queries}


def open_mi() -> dict[str, Any]:
    def image(episode: int, number: int) -> str:
        return f"open_mi/support/open_ended_mi_shots_5_ways_5_id_{episode:04d}_image_{number}.jpg"

    support, queries = [], []
    for episode in (1, 2):
        words = WORDS[episode:] + WORDS[:episode]
        support += [
            {"id": f"open_mi_support_{episode:04d}_{n}", "image": [image(episode, n)], "question": "This is a",
             "answer": words[(n - 1) % 5]}
            for n in range(1, 26)
        ]  # fmt: skip
        classes = {
            word: {"images": [image(episode, 1 + place + 5 * k) for k in range(5)], "caption": f"This is a {word}."}
            for place, word in enumerate(words)
        }
        queries.append({"id": f"open_mi_query_{episode:04d}", "image": [f"open_mi/query/{episode}.jpg"],
                        "question": "This is a", "answer": "dax", "classes": list(words), "support": classes})  # fmt: skip
    return {"support": support, "query": queries}


def matching() -> dict[str, Any]:
    def pair(*names: str, answer: str) -> dict[str, Any]:
        return {
            "image": [f"matching_mi/{name}.jpg" for name in names],
            "question": "What is the output?",
            "answer": answer,
        }

    support = [
        {"same": pair(f"support/{n}_a", f"support/{n}_b", answer="yes"), "diff": pair(f"support/{n}_a", f"support/{n}_c",
         answer="no")}
        for n in range(4)
    ]  # fmt: skip
    queries = [{"id": f"matching_mi_query_{n}", **pair(f"query/{n}_a", f"query/{n}_b", answer=answer)}
               for n, answer in enumerate(("yes", "no"))]  # fmt: skip
    return {"support": support, "query": queries}


def plain(task: str, question: str, answers: tuple[Any, ...]) -> dict[str, Any]:
    return {
        part: [
            {"id": f"{task}_{part}_{n}", "image": [f"{task}/{part}/{n}.png"], "question": question, "answer": answer}
            for n, answer in enumerate(answers)
        ]
        for part in ("support", "query")
    }


def contents() -> dict[str, dict[str, Any]]:
    one = {part: lambda a, b, part=part: [f"operator_induction/{part}/{a}_{b}.png"] for part in ("support", "query")}
    two = dict.fromkeys(
        ("support", "query"), lambda a, b: [f"operator_induction_interleaved/support/{digit}.png" for digit in (a, b)]
    )
    return {
        "operator_induction": operator("operator_induction", one),
        "operator_induction_interleaved": operator("operator_induction_interleaved", two),
        "clevr": plain("clevr", "material: rubber", (2, 3, 0)),
        "textocr": plain("textocr", "What text is shown in the red box?", ("No.5", "STOP", "exit")),
        "open_mi": open_mi(),
        "matching_mi": matching(),
    }


NAMES = {
    "vlicl-operator": "operator_induction", "vlicl-operator-interleaved": "operator_induction_interleaved",
    "vlicl-clevr": "clevr", "vlicl-textocr": "textocr", "vlicl-open-mi": "open_mi", "vlicl-matching": "matching_mi",
}  # fmt: skip


def images_of(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [image for one in value.values() for image in images_of(one)]
    if isinstance(value, list):
        return [image for one in value for image in images_of(one)]
    return [value] if isinstance(value, str) and value.endswith((".png", ".jpg")) else []


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All tasks; those that read one image each have theirs in archives."""
    root = tmp_path_factory.mktemp("data") / "VL-ICL"
    for task, content in contents().items():
        for part, rows in content.items():
            write_json(root / task / f"{part}.json", rows)
            for image in images_of(rows):
                write_image(root / image, 16)
        if task in ("clevr", "textocr"):
            for part in ("support", "query"):
                with zipfile.ZipFile(root / task / f"{part}.zip", "w") as packed:
                    for file in sorted((root / task / part).iterdir()):
                        packed.write(file, f"{part}/{file.name}")
                        file.unlink()
                (root / task / part).rmdir()
    return root.parent


@pytest.fixture
def root(whole: Path, tmp_path: Path) -> Path:
    import shutil

    return Path(shutil.copytree(whole, tmp_path / "data"))


def reader(name: str) -> VlIclReader:
    made = component("datasets", name)
    assert isinstance(made, VlIclReader)
    return made


@pytest.mark.parametrize("name", NAMES)
def test_each_task_conforms(name: str, whole: Path, tmp_path: Path) -> None:
    check_dataset(reader(name), whole, "vqa", tmp_path)
    report = reader(name).check(whole / "VL-ICL", "vqa", True)
    assert whole / "VL-ICL" / NAMES[name] / "query.json" in report.files


def test_operators(whole: Path) -> None:
    splits = read_all(reader("vlicl-operator"), whole, "vqa")
    assert dict(splits["train"][3].labels) == {"+": "3", "-": "-1", "x": "2"}
    assert [(e.id, e.rule, e.label) for e in splits["validation"]][3:] == [(3, "+", "1"), (4, "-", "-1"), (5, "x", "0")]
    remarks = reader("vlicl-operator").check(whole, "vqa", False).remarks
    assert "query.json: 4 ids repeated; queries are numbered by row" in remarks
    assert "support.json has 10 examples; the official split has 80" in [
        r.replace("questions", "examples") for r in remarks
    ]


@pytest.mark.parametrize(
    ("name", "rule", "fair"),
    [
        ("vlicl-open-mi", "text", "text"), ("vlicl-textocr", "text", "text"), ("vlicl-clevr", "text", "number"),
        ("vlicl-operator", "number", "number"), ("vlicl-operator-interleaved", "number", "number"),
        ("vlicl-matching", "yes-no", "yes-no"),
    ],
)  # fmt: skip
def test_each_task_is_judged_by_its_rules(name: str, rule: str, fair: str) -> None:
    assert reader(name).metrics == {"vqa": (f"vlicl-accuracy:rule={rule}", f"vlicl-accuracy-fair:rule={fair}")}


def test_what_figures_are_broken_down_by(whole: Path) -> None:
    queries = {name: read_all(reader(name), whole, "vqa")["validation"] for name in ("vlicl-operator", "vlicl-clevr")}
    assert [dict(e.aspects) for e in queries["vlicl-operator"]][:3] == [{"operator": sign} for sign in ("+", "-", "x")]
    assert all(e.aspects == {"attribute": "material"} for e in queries["vlicl-clevr"])


@pytest.mark.parametrize("inner", ["", "support/", "clevr/support/"])
def test_archives_of_any_inner_folder(inner: str, root: Path) -> None:
    archive = root / "VL-ICL" / "clevr" / "support.zip"
    with zipfile.ZipFile(archive) as packed:
        images = {Path(name).name: packed.read(name) for name in packed.namelist()}
    with zipfile.ZipFile(archive, "w") as packed:
        for name, content in images.items():
            packed.writestr(inner + name, content)
    assert archive in reader("vlicl-clevr").check(root, "vqa", True).files


def test_repeated_ids_of_the_index_set_are_remarked_on(root: Path) -> None:
    edit(root / "VL-ICL" / "clevr" / "support.json", lambda rows: rows[1].update(id=rows[0]["id"]))
    remarks = reader("vlicl-clevr").check(root, "vqa", False).remarks
    assert "support.json: 1 id repeated; examples are numbered by row" in remarks


def test_a_task_in_two_places(root: Path) -> None:
    import shutil

    shutil.copytree(root / "VL-ICL" / "clevr", root / "clevr")
    with pytest.raises(DataError, match=r"holds clevr twice: .*VL-ICL/clevr and .*/clevr"):
        reader("vlicl-clevr").check(root, "vqa", False)


def test_images_of_digits_are_compared_in_pairs(whole: Path) -> None:
    splits = read_all(reader("vlicl-operator-interleaved"), whole, "vqa")
    query = splits["validation"][0]  # 0 and 0
    assert [len(e.images) for e in splits["train"]] == [2] * 10
    assert not any(e.shares_image(query) for e in splits["train"])
    assert query.shares_image(splits["validation"][1])  # the same pair
    assert not query.shares_image(splits["validation"][3])  # 0 and 1


def test_support_sets_begin_with_the_own_class(whole: Path) -> None:
    splits = read_all(reader("vlicl-open-mi"), whole, "vqa")
    labels = {e.id: e.label for e in splits["train"]}
    for query in splits["validation"]:
        assert len(query.support) == 25
        assert [labels[i] for i in query.support[:5]] == ["dax"] * 5
        assert len({labels[i] for i in query.support[5:]} - {"dax"}) == 4
    assert not set(splits["validation"][0].support) & set(splits["validation"][1].support)


def test_examples_of_an_episode_are_shown_to_one_another_alone(whole: Path) -> None:
    splits = read_all(reader("vlicl-open-mi"), whole, "vqa")
    labels = {e.id: e.label for e in splits["train"]}
    for example in splits["train"]:
        assert [labels[i] for i in example.support[:5]] == [example.label] * 5
        assert set(example.support) == set(splits["validation"][example.id // 25].support)


def test_pairs_that_match_are_followed_by_one_that_does_not(whole: Path) -> None:
    head = read_all(reader("vlicl-matching"), whole, "vqa")["train"][0]
    [other] = head.followed_by
    assert (head.label, other.label, len(head.images), len(other.images)) == ("yes", "no", 4, 2)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("vlicl-clevr", lambda task: (task / "query.json").unlink(), "query.json is missing"),
        ("vlicl-clevr", lambda task: (task / "query.zip").unlink(), "no images of VL-ICL Bench .*: folder query is missing"),
        ("vlicl-operator", lambda task: (task / "support" / "3_1.png").unlink(), "names 1 image missing from"),
        ("vlicl-operator", lambda task: edit(task / "support.json", lambda rows: rows[1].update(answer=[1, 2])),
         r"support.json: entry 1 is not an example: its answer is \[1, 2\], not one for each"),
        ("vlicl-operator", lambda task: edit(task / "query.json", lambda rows: rows[2].update(operator="/")),
         "query.json: entry 2 .*: its operator is '/'"),
        ("vlicl-textocr", lambda task: edit(task / "query.json", lambda rows: rows[0].update(image="textocr/query/0.png")),
         "entry 0 .*: its image is 'textocr/query/0.png', not a list"),
        ("vlicl-textocr", lambda task: edit(task / "query.json", lambda rows: rows[0].pop("answer")), "it has no 'answer'"),
        ("vlicl-open-mi", lambda task: edit(task / "support.json", lambda rows: rows.pop(7)),
         "entry 0 has support images that support.json lacks: .*image_8.jpg"),
        ("vlicl-open-mi", lambda task: edit(task / "support.json", lambda rows: rows[7].update(answer="perpo")),
         r"entry 0 has support images that are of another class in support.json: .*image_8.jpg \(shously, not perpo\)"),
        ("vlicl-open-mi", lambda task: edit(task / "query.json", lambda rows: rows[1].update(answer="wug")),
         "entry 1 .*: its answer 'wug' is not a class of its support set"),
        ("vlicl-open-mi", lambda task: edit(task / "query.json", lambda rows: rows[1]["support"]["dax"].update(images=[])),
         "entry 1 .*: its support set has no image of dax"),
        ("vlicl-matching", lambda task: edit(task / "support.json", lambda rows: rows[2].pop("diff")), "entry 2 .*'diff'"),
        ("vlicl-clevr", lambda task: (task / "support.json").write_bytes((task / "query.json").read_bytes()),
         "support.json has the examples of query.json, such as clevr_query_0"),
        ("vlicl-textocr", lambda task: (task / "query.json").write_bytes((task / "support.json").read_bytes()),
         "query.json has the examples of support.json, such as textocr_support_0"),
    ],
)  # fmt: skip
def test_faults_name_file_and_entry(name: str, change: Any, message: str, root: Path) -> None:
    change(root / "VL-ICL" / NAMES[name])
    with pytest.raises(DataError, match=message) as caught:
        reader(name).check(root, "vqa", False)
    assert "ys-zong/VL-ICL" in str(caught.value.hint)


def test_without_the_task(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="folder clevr is missing"):
        reader("vlicl-clevr").check(tmp_path, "vqa", False)


@pytest.fixture(scope="module")
def workspace(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    made = ["--workspace", str(tmp_path_factory.mktemp("ws"))]
    for name in NAMES:
        assert run(["prepare", name, "--root", str(whole), *made]) == 0
    return made


MODEL = ["--model", "tiny-idefics", "--max-new-tokens", "4"]


@pytest.mark.parametrize(
    ("name", "method", "shots"),
    [(name, "random", "2") for name in NAMES]
    + [("vlicl-open-mi", "episode", "1,2,5"), ("vlicl-matching", "random", "0,1")],
)
def test_from_the_files_to_the_figures(
    name: str, method: str, shots: str, workspace: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    options = [*workspace, *MODEL, "--dataset", name, "--method", method, "--shots", shots]
    assert run(["evaluate", *options, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert len(report["rows"]) == len(shots.split(","))
    for row in report["rows"]:
        assert set(reader(name).metrics["vqa"]) <= row.keys()
    notes = " ".join(report["notes"])
    if name == "vlicl-operator":
        assert "1 of 6 queries cannot be right under the published rule" in notes
    if name == "vlicl-matching" and shots == "2":
        assert "followed by another: a shot is 2 examples, together with 4 images, and they all count as one" in notes
        assert "of 4 demonstrations, these match their query: question 4, text 4" in notes
    if method == "episode":
        assert "a guess among the classes shown is 50 % right" in notes
        assert "a shot is an example of each of 2 classes" in notes
        for count in (1, 2, 5):
            rows = read_predictions(predictions_file(Path(report["path"]), "episode", count, 0))
            assert {len(row["icd_ids"]) for row in rows} == {2 * count}


def shown_prompt(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    capsys.readouterr()
    assert run(["prompts", *options]) == 0
    return capsys.readouterr().out


def test_what_a_prompt_shows(workspace: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    base = [*workspace, "--model", "tiny-idefics", "--limit", "1", "--shots"]
    text = shown_prompt(
        capsys, *base, "1", "--dataset", "vlicl-matching", "--method", "random", "--prompt-template", "vl-icl"
    )
    assert text.count("User: What is the output?\nAssistant: yes\n") == 1
    assert text.count("User: What is the output?\nAssistant: no\n") == 1
    assert text.index("Assistant: yes") < text.index("Assistant: no")
    text = shown_prompt(
        capsys, *base, "2", "--dataset", "vlicl-open-mi", "--method", "episode", "--prompt-template", "vl-icl"
    )
    answers = [line.removeprefix("Assistant: ") for line in text.splitlines() if line.startswith("Assistant: ")]
    assert answers[0::2] == [answers[0]] * 2 != answers[1::2] == [answers[1]] * 2
    assert "dax" in answers


def test_what_a_support_set_cannot_give(workspace: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    base = ["evaluate", *workspace, *MODEL, "--dataset", "vlicl-open-mi"]
    assert run([*base, "--method", "random", "--shots", "26"]) != 0
    assert "26 rows are needed, but only 25 of the 25 in its support set" in capsys.readouterr().err
    assert run([*base, "--method", "random", "--shots", "2", "--index-dataset", "vlicl-clevr"]) != 0
    assert "so it cannot be shown examples of vlicl-clevr" in capsys.readouterr().err
    embedded = ["embed", *workspace, "--dataset", "vlicl-open-mi", "--encoder", "tiny-clip"]
    assert run(embedded) == 0
    capsys.readouterr()
    assert run([*base, "--method", "i2i", "--shots", "26"]) != 0
    assert "26 rows are needed, but only 25 of the 25 in its support set" in capsys.readouterr().err
    assert run(["generate", *workspace, "--model", "tiny-idefics", "--dataset", "vlicl-open-mi", "--shots", "2"]) != 0
    assert "64 rows are needed, but only 24 of the 25 in its support set" in capsys.readouterr().err
    assert run([*base, "--method", "episode", "--shots", "6"]) != 0
    assert "does not hold 6 of each of 2 classes" in capsys.readouterr().err
    assert run(["evaluate", *workspace, *MODEL, "--dataset", "vlicl-clevr", "--method", "episode", "--shots", "1"]) != 0
    assert "episode needs a data set with a support set" in capsys.readouterr().err
    assert run([*base, "--method", "episode", "--shots", "26"]) != 0
    assert "26 shots of 2 demonstrations each from an index set of 50" in capsys.readouterr().err
    assert run(["generate", *workspace, "--dataset", "vlicl-matching", "--model", "tiny-idefics"]) != 0
    assert "a beam search cannot put together" in capsys.readouterr().err


def test_demonstrations_come_from_the_own_support_set(workspace: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for method in ("random", "episode", "i2i"):
        if method == "i2i":
            assert run(["embed", *workspace, "--dataset", "vlicl-open-mi", "--encoder", "tiny-clip"]) == 0
        capsys.readouterr()
        base = [*workspace, *MODEL, "--dataset", "vlicl-open-mi", "--method", method, "--shots", "4"]
        assert run(["prompts", *base, "--json"]) == 0
        prompts = json.loads(capsys.readouterr().out)["rows"]
        chosen = [set(np.array(row["icd_ids"]) // 25) for row in prompts]
        assert chosen == [{0}, {1}]


def test_the_suite_makes_one_table(workspace: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert run(["evaluate", *workspace, *MODEL, "--suite", "vl-icl", "--shots", "0,2"]) == 0
    shown = capsys.readouterr().out
    assert "Suite vl-icl: the six image-to-text tasks of VL-ICL Bench" in shown
    for name in NAMES:
        assert f"{name}, vlicl-accuracy:rule=" in " ".join(shown.split())
    assert shown.count("episode") >= 1
