"""NoCaps, from a made-up file in the official layout, with demonstrations from COCO."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from icltool.cli.app import run
from icltool.components.datasets.nocaps import NocapsReader
from icltool.errors import DataError
from icltool.testing import check_dataset
from tests.components.datasets.builders import edit, read_all, write_image, write_json, write_karpathy


@pytest.fixture
def root(tmp_path: Path) -> Path:
    names = {0: ("00000000000000a1.jpg", "near-domain"), 1: ("00000000000000b2.jpg", "out-domain")}
    images = [
        {"id": number, "open_images_id": file[:-4], "file_name": file, "coco_url": "", "domain": domain}
        for number, (file, domain) in names.items()
    ]
    captions = [{"id": n, "image_id": n // 10, "caption": f" A made-up\ncaption, number {n}. "} for n in range(20)]
    write_json(tmp_path / "nocaps" / "nocaps_val_4500_captions.json", {"images": images, "annotations": captions[::-1]})
    for file, _ in names.values():
        write_image(tmp_path / "nocaps" / "val" / file)
    return tmp_path


def test_it_conforms(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    check_dataset(NocapsReader(), root, "caption", tmp_path_factory.mktemp("ws"))


def test_queries_only(root: Path) -> None:
    splits = read_all(NocapsReader(), root, "caption")
    assert list(splits) == ["validation"]
    first, second = splits["validation"]
    assert (first.id, first.image) == (0, str(root / "nocaps" / "val" / "00000000000000a1.jpg"))
    assert (len(first.references), first.label) == (10, "A made-up caption, number 9.")
    assert (first.aspects, second.aspects) == ({"domain": "near-domain"}, {"domain": "out-domain"})
    remarks = NocapsReader().check(root, "caption", True).remarks
    assert remarks == ("nocaps_val_4500_captions.json has 2 images; the official split has 4,500",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file.unlink(), "nocaps_val_4500_captions.json is missing"),
        (lambda file: (file.parent / "val" / "00000000000000b2.jpg").unlink(), "names 1 image missing from .*val"),
        (lambda file: edit(file, lambda c: c["annotations"][0].update(image_id=7)), "images that it does not list: 7"),
        (lambda file: edit(file, lambda c: c["images"].append(c["images"][0])), "lists image 0 more than once"),
        (lambda file: edit(file, lambda c: c["images"][1].pop("file_name")), "entry 1 is not an image: it has no"),
        (lambda file: edit(file, lambda c: c.pop("annotations")), "has no list 'annotations'"),
    ],
)
def test_faults_name_file_and_entry(root: Path, change: Any, message: str) -> None:
    change(root / "nocaps" / "nocaps_val_4500_captions.json")
    with pytest.raises(DataError, match=message) as caught:
        NocapsReader().check(root, "caption", False)
    assert "nocaps.org" in str(caught.value.hint)


def test_with_demonstrations_from_coco(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workspace = ["--workspace", str(tmp_path / "ws")]
    assert run(["prepare", "nocaps", "--root", str(root), *workspace]) == 0
    assert run(["prepare", "coco-karpathy", "--root", str(write_karpathy(tmp_path / "coco")), *workspace]) == 0
    model = [*workspace, "--model", "tiny-idefics", "--method", "random,i2i", "--shots", "2", "--metric", "cider"]
    for command in (["evaluate", *model], ["prompts", *model[:-2]]):
        assert run([*command, "--dataset", "nocaps"]) != 0
        error = capsys.readouterr().err
        assert "nocaps (caption) has queries only, and no examples for demonstrations" in error
        assert "--index-dataset NAME" in error
    for name in ("nocaps", "coco-karpathy"):
        assert run(["embed", *workspace, "--encoder", "tiny-clip", "--dataset", name]) == 0
    capsys.readouterr()
    assert run(["evaluate", *model, "--dataset", "nocaps", "--index-dataset", "coco-karpathy", "--json"]) == 0
    row, _ = json.loads(capsys.readouterr().out)["rows"]
    assert row["by"]["domain"].keys() == {"near-domain", "out-domain"}
