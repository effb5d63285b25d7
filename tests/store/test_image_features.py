"""Image features on disk: what comes back is what was stored, of the very image, or nothing."""

from __future__ import annotations

import os
import signal
import zipfile
from dataclasses import replace
from pathlib import Path

import h5py
import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st

import icltool
from icltool.store import image_features
from icltool.store.artefact import Schema
from icltool.store.image_features import open_image_features
from icltool.store.journal import journal_path
from icltool.store.workspace import Workspace
from tests.processes import Child, die_before
from tests.store import killable_features
from tests.store.killable_features import HEADER, features_of, opened

TYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.bool)


def images_in(folder: Path, count: int) -> list[str]:
    for number in range(count):
        (folder / f"{number}.jpg").write_bytes(b"image %d" % number)
    return [str(folder / f"{number}.jpg") for number in range(count)]


def stored(path: Path, images: list[str], finished: bool = True) -> None:
    file = opened(path)
    file.get(images)
    file.put({image: features_of(Path(image)) for image in images})
    file.close(finished)
    assert file.notes == []


def read(path: Path, images: list[str]) -> tuple[dict[str, torch.Tensor], list[str]]:
    file = opened(path)
    features = file.get(images)
    file.close(finished=False)
    return features, file.notes


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.sampled_from(TYPES), st.lists(st.integers(0, 3), max_size=4), st.booleans()),
        min_size=1,
        max_size=6,
    )
)
def test_any_shape_and_type_comes_back_from_memory_journal_and_file(
    memory_path: Path, kinds: list[tuple[torch.dtype, list[int], bool]]
) -> None:
    path = memory_path / "features.h5"
    for old in memory_path.glob("*features*"):
        old.unlink()
    images = images_in(memory_path, len(kinds))
    features = {i: torch.randn(shape).mul(9).to(dtype) for i, (dtype, shape, _) in zip(images, kinds, strict=True)}
    file = opened(path)
    for image, (_, _, flush) in zip(images, kinds, strict=True):
        file.put({image: features[image]})
        if flush:
            file._write_held()
    for source in ("memory", "journal", "file", "file again"):
        result = file.get([*images, "/no/such.jpg"])
        assert list(result) != []
        assert set(result) == set(images), source
        for image, expected in features.items():
            assert result[image].dtype == expected.dtype
            assert torch.equal(result[image], expected)
        file.close(finished=source == "journal")
        assert file.notes == []
        file = opened(path)
    file.close()


def test_the_file_says_what_it_is(tmp_path: Path) -> None:
    images = images_in(tmp_path, 3)
    file = open_image_features(Workspace(tmp_path / "ws"), "OWNER/tiny", "abc123")
    file.get(images)
    file.put({image: features_of(Path(image)) for image in images})
    file.close()
    assert file.path.parent == tmp_path / "ws" / "cache"
    assert file.path.name.startswith("image-features-OWNER--tiny-")
    with h5py.File(file.path) as h5:
        attributes = h5.attrs
        assert attributes["schema"] == "icltool.image-features"
        assert (attributes["schema_version"], attributes["icltool_version"]) == (1, icltool.__version__)
        assert (attributes["model"], attributes["model_fingerprint"]) == ("OWNER/tiny", "abc123")
        assert "transformers" in attributes["configuration"]
        assert [name.decode() for name in h5["image"]] == images
        assert h5["dtype"][:].tolist() == [b"float32", b"bfloat16", b"float16"]
    assert not journal_path(file.path).exists()
    assert open_image_features(Workspace(tmp_path / "ws"), "OWNER/tiny", "abc124").path != file.path


def test_a_replaced_image_is_another_image(tmp_path: Path) -> None:
    path, images = tmp_path / "features.h5", images_in(tmp_path, 3)
    stored(path, images)
    Path(images[1]).write_bytes(b"longer than before")
    status = Path(images[2]).stat()
    os.utime(images[2], ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert set(read(path, images)[0]) == {images[0]}
    stored(path, images)
    assert set(read(path, images)[0]) == set(images)
    with h5py.File(path) as h5:
        assert len(h5["image"]) == 3, "what nobody can ask for any more is dropped"


def test_a_image_that_changes_while_it_is_encoded_is_not_stored(tmp_path: Path) -> None:
    path, images = tmp_path / "features.h5", images_in(tmp_path, 2)
    file = opened(path)
    assert file.get(images) == {}
    Path(images[0]).write_bytes(b"another image")
    file.put({image: features_of(Path(image)) for image in images})
    file.close()
    assert set(read(path, images)[0]) == {images[1]}


def test_members_of_an_archive_go_by_the_archive(tmp_path: Path) -> None:
    archive = tmp_path / "train.zip"

    def write(text: str) -> list[str]:
        with zipfile.ZipFile(archive, "w") as new:
            for number in range(2):
                new.writestr(f"in/{number}.jpg", text)
        return [f"{archive}/in/{number}.jpg" for number in range(2)]

    path, images = tmp_path / "features.h5", write("one")
    stored(path, images)
    assert set(read(path, images)[0]) == set(images)
    write("another")
    assert read(path, images) == ({}, [])


def test_a_broken_off_run_leaves_its_journal(tmp_path: Path) -> None:
    path, images = tmp_path / "features.h5", images_in(tmp_path, 4)
    stored(path, images[:2], finished=False)
    assert journal_path(path).exists()
    assert set(read(path, images)[0]) == set(images[:2])
    stored(path, images[2:])
    assert not journal_path(path).exists()
    assert set(read(path, images)[0]) == set(images)


@pytest.mark.parametrize("change", ["schema", "version", "fingerprint", "no HDF5", "cut", "no columns"])
def test_what_cannot_be_trusted_is_started_anew(change: str, tmp_path: Path) -> None:
    path, images = tmp_path / "features.h5", images_in(tmp_path, 3)
    header = HEADER
    if change == "schema":
        header = replace(HEADER, schema=Schema("icltool.other", 1, "others", "icltool x", HEADER.schema.details))
    if change == "version":
        header = replace(HEADER, schema=replace(HEADER.schema, version=2))
    if change == "fingerprint":
        header = replace(HEADER, details={"model": "m", "model_fingerprint": "g"})
    file = opened(path, header)
    if change not in ("schema", "version"):
        file.get(images)
        file.put({image: features_of(Path(image)) for image in images})
    file.close()
    if change in ("schema", "version"):
        with h5py.File(path, "r+") as written:
            written.attrs["schema"], written.attrs["schema_version"] = header.schema.name, header.schema.version
    if change == "no HDF5":
        path.write_bytes(b"text")
    if change == "cut":
        path.write_bytes(path.read_bytes()[:-2000])
    if change == "no columns":
        with h5py.File(path, "r+") as written:
            del written["crc"]
    features, notes = read(path, images)
    assert features == {}
    assert len(notes) == 1
    assert str(path) in notes[0]
    assert "started again" in notes[0]
    stored(path, images)
    assert set(read(path, images)[0]) == set(images)


def test_damaged_features_are_computed_again(tmp_path: Path) -> None:
    path, images = tmp_path / "features.h5", images_in(tmp_path, 3)
    stored(path, images)
    with h5py.File(path, "r+") as written:
        written["data"][1] ^= 0xFF
    features, notes = read(path, images)
    assert set(features) == set(images[1:])
    assert "damaged in places" in notes[0]
    journal = journal_path(path)
    journal.write_bytes(b"nonsense")
    features, notes = read(path, images)
    assert set(features) == set(images[1:])
    assert "not a journal" in notes[0]


def test_a_second_process_reads_and_adds_nothing(tmp_path: Path) -> None:
    path, images = tmp_path / "features.h5", images_in(tmp_path, 4)
    stored(path, images[:1])
    first = opened(path)
    first.get(images)
    first.put({images[1]: features_of(Path(images[1]))})
    first._write_held()
    first._wait()
    second = opened(path)
    assert "is being written by" in second.notes[0]
    assert "none are added" in second.notes[0]
    assert set(second.get(images)) == set(images[:2])
    second.put({images[2]: features_of(Path(images[2]))})
    first.close()
    assert set(second.get(images)) == set(images[:2]), "what it has open stays readable"
    second.close()
    assert set(read(path, images)[0]) == set(images[:2])


def test_the_limit_holds_and_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_features, "_IMAGES", 1)
    path, images = tmp_path / "features.h5", images_in(tmp_path, 12)
    file = opened(path)
    size = file._size
    file.close()
    file = opened(path, limit=size + 250)
    file.get(images)
    for image in images:
        file.put({image: torch.zeros(25)})
    file.close()
    assert len(read(path, images)[0]) == 2
    assert len(file.notes) == 1
    assert "has reached its limit" in file.notes[0]
    assert not journal_path(path).exists()


def test_a_folder_that_cannot_be_written_is_a_note(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    file = opened(tmp_path / "cache" / "features.h5")
    images = images_in(tmp_path, 1)
    assert file.get(images) == {}
    file.put({images[0]: torch.zeros(2)})
    file.close()
    assert len(file.notes) == 1


@pytest.mark.reliability
def test_killed_before_each_file_operation(memory_path: Path) -> None:
    images = [Path(image) for image in images_in(memory_path, 7)]
    path = memory_path / "features.h5"

    def run(die_at: int = 0) -> int:
        """How a writer ended; it dies before the `die_at`-th operation on files."""

        def work() -> None:
            if die_at:
                die_before(die_at)
            killable_features.work(path, images)

        with Child(work) as child:
            code = child.wait()
        assert code in (0, -signal.SIGKILL), child.err
        return code

    deaths, most = 0, 0
    for die_at in range(1, 1000):
        for old in memory_path.glob("*features*"):
            old.unlink()
        ended = run(die_at)
        result = killable_features.check(path, images)
        if ended == 0:
            assert result == len(images)
            break
        deaths += 1
        most = max(most, result)
        assert run() == 0
        assert killable_features.check(path, images) == len(images)
    assert deaths >= 8
    assert most == len(images), "a kill at the end loses nothing that was written"


def test_regions_of_a_image_are_images_of_their_own(tmp_path: Path) -> None:
    [path] = images_in(tmp_path, 1)
    references = [path, *(f"{path}#xywh=0,0,{width},9&show=crop" for width in (4, 5))]
    features = {reference: torch.full((2,), float(n)) for n, reference in enumerate(references)}
    file = opened(tmp_path / "features.h5")
    file.put(features)
    file.close(finished=True)
    stored, notes = read(tmp_path / "features.h5", references)
    assert notes == []
    assert {reference: tensor[0].item() for reference, tensor in stored.items()} == dict(
        zip(references, range(3), strict=True)
    )
    Path(path).write_bytes(b"another image")
    assert read(tmp_path / "features.h5", references)[0] == {}
