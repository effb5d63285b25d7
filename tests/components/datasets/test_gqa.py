"""GQA, from small files in the official layout, and the official script's figures of made-up questions."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from icltool.cli.app import run
from icltool.commands.evaluate.judging import Judge
from icltool.components.datasets.gqa import GqaOptions, GqaReader
from icltool.config.metrics import named_metric
from icltool.contracts import Example, group_code
from icltool.errors import DataError
from icltool.testing import check_dataset
from tests.components.datasets.builders import edit, read_all, truncate, write_image, write_json

FIXTURE = json.loads((Path(__file__).parents[2] / "fixtures" / "benchmarks_choices.json").read_text("utf-8"))
#: Beginnings of the names of the official script's figures, and the aspects that break ours down.
ASPECTS = {
    "structural type": "structural_type",
    "semantic type": "semantic_type",
    "steps number": "steps",
    "words number": "words",
}


def entry(image: str, question: str, answer: str, structural: str = "verify", **changed: Any) -> dict[str, Any]:
    """An entry of a file of questions."""
    steps = [("select", "cup"), ("query", "color") if structural == "query" else ("exist", "?")]
    return {
        "imageId": image,
        "question": question,
        "answer": answer,
        "fullAnswer": f"{answer.capitalize()}, that is so.",
        "isBalanced": True,
        "groups": {"global": None if structural == "verify" else "color", "local": "06-apple_red"},
        "entailed": [],
        "equivalent": [],
        "types": {"structural": structural, "semantic": "attr", "detailed": "existAttrC"},
        "annotations": {"answer": {}, "question": {"4": "1"}, "fullAnswer": {}},
        "semantic": [{"operation": o, "argument": a, "dependencies": []} for o, a in steps],
        "semanticStr": "select: table (1)->exist: ? [0]",
        **changed,
    }


TRAIN = {
    "02930152": entry("2354786", "Is the sky dark?", "yes"),
    "07333408": entry("2354786", "What color is the  cup?", "blue", "query"),
    "101": entry("n12", "Is it red?", "no"),
}
TESTDEV = {
    "00000001": entry("n100001", "Is there a red apple on the table?", "no"),
    "201": entry("n100001", "What color is the cup?", "white", "query"),
    "202": entry("n100002", "Which color is the cup?", "red", "query", isBalanced=False),
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_json(tmp_path / "train_balanced_questions.json", TRAIN)
    write_json(tmp_path / "testdev_balanced_questions.json", TESTDEV)
    for record in (*TRAIN.values(), *TESTDEV.values()):
        write_image(tmp_path / "images" / f"{record['imageId']}.jpg")
    return tmp_path


def reader(**options: Any) -> GqaReader:
    return GqaReader(GqaOptions(**options))


def refused(root: Path, verify: bool = False, **options: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        reader(**options).check(root, "vqa", verify)
    assert "\n" not in caught.value.message
    assert "cs.stanford.edu/people/dorarad/gqa" in str(caught.value.hint)
    return caught.value


def pack(root: Path, archive: str, pattern: str) -> None:
    """Moves files below `root` into a zip archive."""
    with zipfile.ZipFile(root / archive, "w") as packed:
        for file in sorted(root.glob(pattern)):
            packed.write(file, file.relative_to(root))
            file.unlink()


def write_all(root: Path) -> None:
    """Ten files with all questions of train."""
    for number in range(10):
        question = entry("n12", f"Is it {number}?", "no", isBalanced=False)
        write_json(root / "train_all_questions" / f"train_all_questions_{number}.json", {str(1000 + number): question})


def test_it_conforms(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    check_dataset(reader(), root, "vqa", tmp_path_factory.mktemp("ws"))


def test_examples(root: Path) -> None:
    splits = read_all(reader(), root, "vqa")
    assert [e.id for e in splits["train"]] == [group_code("02930152"), group_code("07333408"), 101]
    assert [e.image_id for e in splits["train"]] == [2354786, 2354786, group_code("n12")]
    assert splits["train"][1] == Example(
        id=group_code("07333408"),
        image=str(root / "images" / "2354786.jpg"),
        image_id=2354786,
        text="What color is the cup?",
        label="blue",
        references=("blue",),
        question="What color is the cup?",
        group="image 2354786",
        answer_type="open",
        aspects={
            "structural_type": "query",
            "semantic_type": "attr",
            "steps": "2",
            "words": "5",
            "global_group": "color",
        },
    )
    first, second = splits["validation"]
    assert (first.answer_type, first.aspects["steps"], first.aspects["words"]) == ("binary", "1", "8")
    assert "global_group" not in first.aspects
    assert (second.label, second.image_id) == ("white", group_code("n100001"))


def test_remarks(root: Path) -> None:
    assert reader().check(root, "vqa", True).remarks == (
        "train_balanced_questions.json has 3 questions; the official split has 943,000",
        "testdev_balanced_questions.json has 3 questions; the official split has 12,578",
        "testdev_balanced_questions.json: 1 question outside the balanced ones left out",
    )


def test_all_questions_of_train_and_the_queries_of_val(root: Path) -> None:
    write_all(root)
    write_json(root / "val_balanced_questions.json", {"7": TESTDEV["201"]})
    splits = read_all(reader(index="all", queries="val"), root, "vqa")
    assert [e.id for e in splits["train"]] == list(range(1000, 1010))
    assert [e.id for e in splits["validation"]] == [7]
    files = reader(index="all", queries="val").check(root, "vqa", False).files
    assert len(files) == 11
    (root / "train_all_questions" / "train_all_questions_7.json").unlink()
    assert "train_all_questions_7.json is missing" in refused(root, index="all").message


def test_archives_give_the_same_examples(root: Path) -> None:
    write_all(root)
    before = {index: read_all(reader(index=index), root, "vqa") for index in ("balanced", "all")}
    pack(root, "questions1.2.zip", "**/*.json")
    pack(root, "images.zip", "images/*.jpg")
    (root / "images").rmdir()
    (root / "train_all_questions").rmdir()
    for index, splits in before.items():
        after = read_all(reader(index=index), root, "vqa")
        assert {name: [(e.id, e.label) for e in examples] for name, examples in after.items()} == {
            name: [(e.id, e.label) for e in examples] for name, examples in splits.items()
        }
        assert after["train"][0].image.startswith(str(root / "images.zip" / "images"))
    report = reader().check(root, "vqa", True)
    assert set(report.files) == {root / "questions1.2.zip", root / "images.zip"}


def test_questions_are_read_again_once_the_file_has_changed(root: Path) -> None:
    one = reader()
    one.check(root, "vqa", False)
    edit(root / "train_balanced_questions.json", lambda rows: rows.pop("101"))
    assert len(read_all(one, root, "vqa")["train"]) == 2


def change(file: str, how: Callable[[Any], Any]) -> Callable[[Path], None]:
    return lambda root: edit(root / f"{file}_balanced_questions.json", how)


def drop(path: str) -> Callable[[Path], None]:
    return lambda root: (root / path).unlink()


def repeat(root: Path) -> None:
    path = root / "testdev_balanced_questions.json"
    text = path.read_text()
    path.write_text(f"{text[:-1]}, {json.dumps({'201': TESTDEV['201']})[1:]}")


FAULTS: list[tuple[Callable[[Path], None], str]] = [
    (drop("testdev_balanced_questions.json"), "no GQA in .*: testdev_balanced_questions.json is missing"),
    (drop("images/n12.jpg"), "train_balanced_questions.json names 1 image missing from .*images: n12.jpg"),
    (repeat, "testdev_balanced_questions.json lists question 201 more than once"),
    (lambda root: write_json(root / "testdev_balanced_questions.json", TRAIN), "belongs to the wrong split"),
    (lambda root: write_json(root / "testdev_balanced_questions.json", [TRAIN]), "holds no JSON object"),
    (lambda root: write_json(root / "testdev_balanced_questions.json", {}), "has no usable question"),
    (change("train", lambda rows: rows["101"].pop("answer")), "entry '101' is not a question .*: it has no 'answer'"),
    (change("train", lambda rows: rows["101"].update(answer=" ")), "entry '101' .*: its answer is empty"),
    (change("train", lambda rows: rows["101"].update(question=1)), "entry '101' .*: 1 is not a text"),
    (change("train", lambda rows: rows["101"].update(imageId="../12")), "entry '101' .*: imageId '../12' is not that"),
    (change("train", lambda rows: rows["101"].update(isBalanced=1)), "entry '101' .*: isBalanced is 1"),
    (change("train", lambda rows: rows["101"].update(types={})), "entry '101' .*: it has no 'structural'"),
    (change("train", lambda rows: rows["101"].update(semantic=["x"])), "entry '101' is not a question"),
    (change("train", lambda rows: rows.update({"101": "x"})), "entry '101' .*: it is 'x'"),
    (lambda root: truncate(root / "train_balanced_questions.json"), "is cut off at line 1"),
]


@pytest.mark.parametrize(("fault", "message"), FAULTS)
def test_faults_name_file_and_entry(fault: Callable[[Path], None], message: str, root: Path) -> None:
    fault(root)
    with pytest.raises(DataError, match=message):
        reader().check(root, "vqa", False)
    refused(root)


def test_all_images_are_opened_to_verify(root: Path) -> None:
    truncate(root / "images" / "n100001.jpg")
    assert "n100001.jpg" in refused(root, True).message


def test_from_the_files_to_the_figures(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workspace = ["--workspace", str(tmp_path / "ws")]
    assert run(["prepare", "gqa", "--root", str(root), *workspace]) == 0
    model = [*workspace, "--model", "tiny-idefics", "--method", "random", "--shots", "1"]
    assert run(["prompts", *model, "--limit", "1"]) == 0
    assert "Question:What color is the cup? Short answer:" in capsys.readouterr().out
    assert run(["evaluate", *model, "--json"]) == 0
    [row] = json.loads(capsys.readouterr().out)["rows"]
    assert {"exact-match:norm=lmms", "exact-match:norm=strict", "gqa-distribution"} <= row.keys()
    assert row["by"]["answer_type"].keys() == {"binary", "open"}
    assert row["by"]["global_group"]["color"]["queries"] == 1
    assert row["gqa-distribution"] in (0, pytest.approx(0.01))  # of one question with a group


def test_the_figures_of_the_official_script(tmp_path: Path) -> None:
    """All figures that it computes from the files of release 1.2, printed with two digits, for 90 questions."""
    corpus = FIXTURE["gqa_corpus"]
    questions = {f"9{key}": question for key, question in corpus["questions"].items()}  # numbers as ids
    write_json(tmp_path / "testdev_balanced_questions.json", questions)
    write_json(tmp_path / "train_balanced_questions.json", TRAIN)
    (tmp_path / "images").mkdir()
    queries = read_all(reader(), tmp_path, "vqa")["validation"]
    assert len(queries) == sum(question["isBalanced"] for question in questions.values()) == 68
    rows: list[Any] = [
        {
            "query_id": query.id,
            "group": query.group,
            "answer": corpus["predictions"][str(query.id)[1:]],
            "references": list(query.references),
            "answer_type": query.answer_type,
            "aspects": dict(query.aspects),
            "scores": {},
        }
        for query in queries
    ]
    strict = "exact-match:norm=strict"
    judge = Judge({name: named_metric(name) for name in (strict, "gqa-distribution")})
    judge.prepare()
    judged = judge.judge(rows)
    found = {"Accuracy": judged[strict].figure, "Distribution": judged["gqa-distribution"].figure}
    types = judge.breakdown(rows, "answer_type", judged)
    found |= {name.capitalize(): table[strict] for name, table in types.items()}
    for title, aspect in ASPECTS.items():
        table = judge.breakdown(rows, aspect, judged)
        found |= {f"Accuracy / {title} / {value}": figures[strict] for value, figures in table.items()}
    left_out = {"Consistency", "Validity", "Plausibility", "Grounding"}
    expected = {name: value for name, value in corpus["figures"].items() if name not in left_out}
    assert found == pytest.approx(expected, abs=0.00501)
    assert len(found) == 24
