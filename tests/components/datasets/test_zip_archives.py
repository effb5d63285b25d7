"""Official zip archives in place of unpacked folders: every reader gives the same examples from both."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from icltool.components.datasets.coco2014 import Coco2014Reader
from icltool.components.datasets.coco2017 import Coco2017Reader
from icltool.components.datasets.coco_karpathy import CocoKarpathyReader, KarpathyOptions
from icltool.components.datasets.okvqa import OKVQAReader
from icltool.components.datasets.vqav2 import VQAv2Reader
from icltool.components.datasets.vqav2_sub import VQAv2SubOptions, VQAv2SubReader
from icltool.components.models.shared.images import read_image
from icltool.contracts import DatasetReader, Example, file_exists
from icltool.errors import DataError
from icltool.execution.progress import SilentProgress
from icltool.testing import check_dataset
from tests.components.datasets.builders import (
    pack,
    truncate,
    write_coco,
    write_image,
    write_json,
    write_karpathy,
    write_okvqa,
    write_vqa,
)


def coco(year: int) -> Callable[[Path], Path]:
    def build(root: Path) -> Path:
        write_coco(root / "mscoco" / f"mscoco{year}", year=year)
        return root

    return build


def images_2014(root: Path) -> None:
    for part in ("train2014", "val2014"):
        pack(root / "mscoco" / "mscoco2014" / f"{part}.zip", root / "mscoco" / "mscoco2014" / part)


def zip_coco(root: Path) -> None:
    (base,) = (root / "mscoco").iterdir()
    year = base.name[-4:]
    pack(base / f"annotations_trainval{year}.zip", base / "annotations")
    for part in ("train", "val"):
        pack(base / f"{part}{year}.zip", base / f"{part}{year}")


def zip_vqa(root: Path) -> None:
    for path in sorted((root / "vqav2").iterdir()):
        part = "Train" if "train" in path.name else "Val"
        pack(path.with_name(f"v2_{'Questions' if 'questions' in path.name else 'Annotations'}_{part}_mscoco.zip"), path)
    images_2014(root)


def zip_okvqa(root: Path) -> None:
    for path in sorted((root / "okvqa").iterdir()):
        pack(path.with_name(f"{path.name}.zip"), path)
    images_2014(root)


def zip_karpathy(root: Path) -> None:
    pack(root / "coco-karpathy" / "caption_datasets.zip", root / "coco-karpathy" / "dataset_coco.json")
    images_2014(root)


ALL = pytest.mark.parametrize(
    ("make", "build", "zip_up", "task"),
    [
        (Coco2017Reader, coco(2017), zip_coco, "caption"),
        (Coco2014Reader, coco(2014), zip_coco, "caption"),
        (lambda: CocoKarpathyReader(KarpathyOptions()), write_karpathy, zip_karpathy, "caption"),
        (VQAv2Reader, write_vqa, zip_vqa, "vqa"),
        (lambda: VQAv2SubReader(VQAv2SubOptions(size=1)), write_vqa, zip_vqa, "vqa"),
        (OKVQAReader, write_okvqa, zip_okvqa, "vqa"),
    ],
    ids=["coco2017", "coco2014", "coco-karpathy", "vqav2", "vqav2-sub", "okvqa"],
)


def read(reader: DatasetReader, root: Path) -> dict[str, list[Example]]:
    splits = reader.read(root, reader.tasks[0], Path("unused"), SilentProgress())
    return {split.name: list(split.examples) for split in splits}


def refused(reader: DatasetReader, root: Path, verify: bool = False) -> DataError:
    with pytest.raises(DataError) as caught:
        reader.check(root, reader.tasks[0], verify)
    assert "\n" not in caught.value.message
    assert caught.value.hint
    return caught.value


@ALL
def test_all_archives_at_once(
    make: Callable[[], DatasetReader],
    build: Callable[[Path], Path],
    zip_up: Callable[[Path], None],
    task: str,
    tmp_path: Path,
) -> None:
    root = build(tmp_path / "data")
    check_dataset(make, root, task, tmp_path / "ws1")
    plain = read(make(), root)
    zip_up(root)
    assert not [path for path in root.rglob("*") if path.suffix in (".json", ".jpg")]
    check_dataset(make, root, task, tmp_path / "ws2")
    zipped = read(make(), root)
    for name, examples in plain.items():
        assert [replace(e, image="") for e in zipped[name]] == [replace(e, image="") for e in examples]
        for one, other in zip(examples, zipped[name], strict=True):
            assert Path(one.image).parts[-2:] == Path(other.image).parts[-2:]  # what the fingerprint sees
            assert ".zip/" in other.image
            assert file_exists(other.image)
            assert read_image(other.image).size == (48, 48)
    report = make().check(root, task, True)
    assert {path.suffix for path in report.files} <= {".zip", ""}
    assert set(root.rglob("*.zip")) == {path for path in report.files if path.suffix == ".zip"}


@ALL
def test_nothing_there_names_archives(
    make: Callable[[], DatasetReader],
    build: Callable[[Path], Path],
    zip_up: Callable[[Path], None],
    task: str,
    tmp_path: Path,
) -> None:
    assert ".zip" in str(refused(make(), tmp_path).hint)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """COCO 2017 with all in archives."""
    root = coco(2017)(tmp_path / "data")
    zip_coco(root)
    return root / "mscoco" / "mscoco2017"


def test_the_path_of_an_image_in_an_archive(base: Path) -> None:
    first = read(Coco2017Reader(), base)["train"][0]
    assert first.image == str(base / "train2017.zip" / "train2017" / "000000000009.jpg")


@pytest.mark.parametrize("place", ["downloads", "annotations"])
def test_archives_in_a_subfolder(base: Path, place: str) -> None:
    expected = [replace(e, image="") for e in read(Coco2017Reader(), base)["train"]]
    (base / place).mkdir()
    for path in base.glob("*.zip"):
        path.rename(base / place / path.name)
    for root in (base, base.parent, base.parent.parent):
        assert [replace(e, image="") for e in read(Coco2017Reader(), root)["train"]] == expected
    Coco2017Reader().check(base, "caption", True)


def test_archives_in_the_root_itself(base: Path, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in base.glob("*.zip"):
        path.rename(flat / path.name)
    assert len(read(Coco2017Reader(), flat)["train"]) == 3


def test_a_folder_deeper_within_the_archive(base: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(base / "val2017.zip") as archive:
        archive.extractall(tmp_path)
    (base / "val2017.zip").unlink()
    pack(base / "val2017.zip", tmp_path / "val2017", "coco/images/")
    image = read(Coco2017Reader(), base)["validation"][0].image
    assert image == str(base / "val2017.zip" / "coco" / "images" / "val2017" / "000000000632.jpg")
    Coco2017Reader().check(base, "caption", True)


def test_images_without_a_folder_within_the_archive(base: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(base / "val2017.zip") as archive:
        archive.extractall(tmp_path)
    (base / "val2017.zip").unlink()
    for image in (tmp_path / "val2017").iterdir():
        pack(base / "val2017.zip", image)
    assert read(Coco2017Reader(), base)["validation"][0].image == str(base / "val2017.zip" / "000000000632.jpg")
    Coco2017Reader().check(base, "caption", True)


def test_what_one_archiver_adds_is_not_taken(base: Path) -> None:
    with zipfile.ZipFile(base / "annotations_trainval2017.zip", "a") as archive:
        archive.writestr("__MACOSX/captions_train2017.json", b"\x00\x05\x16\x07")
        archive.writestr("__MACOSX/annotations/._captions_train2017.json", b"\x00\x05\x16\x07")
    assert len(read(Coco2017Reader(), base)["train"]) == 3


def test_what_is_unpacked_comes_first(base: Path, tmp_path: Path) -> None:
    captions = {"train": {9: ["unpacked"]}, "val": {632: ["a bed"]}}
    write_coco(tmp_path / "other", captions)
    shutil.move(tmp_path / "other" / "train2017", base / "train2017")
    shutil.move(tmp_path / "other" / "annotations", base / "annotations")
    (base / "annotations_trainval2017.zip").write_bytes(b"not looked at")
    splits = read(Coco2017Reader(), base)
    assert [(e.label, e.image) for e in splits["train"]] == [("unpacked", str(base / "train2017" / "000000000009.jpg"))]
    assert splits["validation"][0].image.startswith(str(base / "val2017.zip"))


def test_archives_unpacked_into_folders_of_their_own_names(base: Path, tmp_path: Path) -> None:
    expected = [replace(e, image="") for e in read(Coco2017Reader(), base)["train"]]
    with zipfile.ZipFile(base / "annotations_trainval2017.zip") as archive:
        archive.extractall(base / "annotations_trainval2017")
    (base / "annotations_trainval2017.zip").unlink()
    assert [replace(e, image="") for e in read(Coco2017Reader(), base)["train"]] == expected
    root = write_vqa(tmp_path / "vqa")
    answered = read(VQAv2Reader(), root)
    zip_vqa(root)
    for path in sorted((root / "vqav2").glob("*.zip")):
        with zipfile.ZipFile(path) as archive:
            archive.extractall(path.with_suffix(""))
        path.unlink()
    for name, examples in read(VQAv2Reader(), root).items():
        assert [replace(e, image="") for e in examples] == [replace(e, image="") for e in answered[name]]


def test_groups_beside_the_archive(base: Path) -> None:
    write_json(base / "near_duplicates.json", {"train": {"9": "cats"}})
    assert read(Coco2017Reader(), base)["train"][0].group == "cats"
    assert base / "near_duplicates.json" in Coco2017Reader().check(base, "caption", False).files


def test_truncated_archives(base: Path) -> None:
    for name in ("train2017.zip", "annotations_trainval2017.zip"):
        whole = (base / name).read_bytes()
        truncate(base / name)
        message = refused(Coco2017Reader(), base).message
        assert message.startswith(f"{base / name} cannot be read: it is cut off or no zip archive")
        (base / name).write_bytes(whole)
    Coco2017Reader().check(base, "caption", True)


def test_an_archive_that_lacks_an_image(base: Path) -> None:
    rewrite(base / "train2017.zip", lambda name, content: None if name.endswith("139.jpg") else content)
    assert refused(Coco2017Reader(), base).message == (
        f"{base / 'annotations_trainval2017.zip' / 'annotations' / 'captions_train2017.json'} names 1 image missing "
        f"from {base / 'train2017.zip' / 'train2017'}: 000000000139.jpg"
    )


def test_an_archive_of_something_else(base: Path) -> None:
    rewrite(base / "annotations_trainval2017.zip", lambda name, content: None if "train" in name else content)
    error = refused(Coco2017Reader(), base)
    assert error.message == f"{base / 'annotations_trainval2017.zip'} has no captions_train2017.json"
    shutil.copy(base / "val2017.zip", base / "train2017.zip")
    assert refused(Coco2017Reader(), base).message.endswith("has no captions_train2017.json")
    (base / "annotations_trainval2017.zip").unlink()
    write_coco(base)
    shutil.rmtree(base / "train2017")
    assert refused(Coco2017Reader(), base).message == f"{base / 'train2017.zip'} has no folder train2017"


def test_an_image_cut_within_the_archive(base: Path) -> None:
    rewrite(base / "val2017.zip", lambda name, content: content[: len(content) // 2])
    error = refused(Coco2017Reader(), base)
    assert error.message.startswith(f"2 images in {base / 'val2017.zip' / 'val2017'} cannot be read: ")


def test_a_damaged_image_and_a_damaged_captions_file(base: Path) -> None:
    for name, member in (("val2017.zip", "val2017/000000000785.jpg"), ("annotations_trainval2017.zip", "annotations/")):
        with zipfile.ZipFile(base / name) as archive:
            info = next(i for i in archive.infolist() if i.filename.startswith(member) and i.file_size)
        content = bytearray((base / name).read_bytes())
        content[info.header_offset + 30 + len(info.filename) + 40] ^= 0xFF
        (base / name).write_bytes(content)
        message = refused(Coco2017Reader(), base).message
        assert "it is damaged: " in message
        assert str(base / name) in message


def test_an_archive_that_cannot_be_opened(base: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    (base / "val2017.zip").chmod(0)
    assert refused(Coco2017Reader(), base).message == f"{base / 'val2017.zip'} cannot be read: Permission denied"


def test_images_of_the_wrong_split_in_archives(base: Path) -> None:
    rewrite(base / "annotations_trainval2017.zip", lambda name, content: content, {"train": "val", "val": "train"})
    assert refused(Coco2017Reader(), base).message.endswith(
        "belongs to the wrong split: its images are in val2017, not in train2017"
    )


def rewrite(archive: Path, change: Callable[[str, bytes], bytes | None], renamed: dict[str, str] | None = None) -> None:
    """Each member becomes what `change` says, None for nothing; words of `renamed` change places in names."""
    with zipfile.ZipFile(archive) as opened:
        contents = {i.filename: opened.read(i) for i in opened.infolist() if not i.is_dir()}
    archive.unlink()
    with zipfile.ZipFile(archive, "w") as opened:
        for name, content in contents.items():
            new = name
            for old, other in (renamed or {}).items():
                if f"_{old}2017" in name:
                    new = name.replace(f"_{old}2017", f"_{other}2017")
            if (changed := change(name, content)) is not None:
                opened.writestr(new, changed)


def test_one_split_unpacked_and_one_not(tmp_path: Path) -> None:
    root = write_vqa(tmp_path / "data")
    images = root / "mscoco" / "mscoco2014"
    pack(images / "zips" / "train2014.zip", images / "train2014")
    splits = read(VQAv2Reader(), root)
    assert splits["train"][0].image.startswith(str(images / "zips" / "train2014.zip" / "train2014"))
    assert splits["validation"][0].image.startswith(str(images / "val2014"))
    report = VQAv2Reader().check(root, "vqa", True)
    assert report.files[-1] == images / "zips" / "train2014.zip"


def test_other_files_in_an_archive_do_not_matter(base: Path, tmp_path: Path) -> None:
    expected = read(Coco2017Reader(), base)
    for name in ("more/x.jpg", "x.jpg"):
        write_image(tmp_path / name)
        pack(base / "train2017.zip", (tmp_path / name).parent if "/" in name else tmp_path / name)
    assert read(Coco2017Reader(), base) == expected
    Coco2017Reader().check(base, "caption", True)
