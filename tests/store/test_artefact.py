"""Identity, provenance, and files that are not what they should be."""

from __future__ import annotations

import itertools
import os
import re
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, strategies as st

import icltool
from icltool.cli.boundary import guarded
from icltool.errors import StoreError
from icltool.store import artefact
from icltool.store.artefact import digest, first_difference
from icltool.store.embeddings import EmbeddingFile
from icltool.store.provenance import Provenance
from icltool.store.sequences import SequenceFile
from tests.processes import Child

from .killable import PROVENANCE, embedding_writer, features_of, ids_of, result_of, sequence_writer

OPENERS = {"sequences": SequenceFile.open, "embeddings": EmbeddingFile.open}


def write(kind: str, path: Path, count: int = 6, **options: Any) -> Path:
    if kind == "sequences":
        with sequence_writer(path, count, **options) as writer:
            for query in sorted(set(range(count)) - writer.finished):
                writer.append(result_of(query))
    else:
        with embedding_writer(path, count, **options) as rows:
            rest = range(rows.done, count)
            if rest:
                rows.append(ids_of(rest), features_of(rest))
    return path


@pytest.fixture(params=["sequences", "embeddings"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def reader(kind: str) -> Callable[[Path], Any]:
    return OPENERS[kind]


def test_provenance_round_trip(kind: str, memory_path: Path, reader: Callable[[Path], Any]) -> None:
    long = replace(PROVENANCE, configuration={"ids": list(range(30_000)), "name": "ä"})  # HDF5's usual limit is 64 KiB
    for number, provenance in enumerate((PROVENANCE, long, Provenance({}, ""))):
        path = write(kind, memory_path / f"{number}.h5", provenance=provenance)
        with reader(path) as file:
            assert file.provenance == provenance
            assert file.header.icltool_version == icltool.__version__
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", file.header.created)


def test_attributes_are_plain_hdf5(kind: str, memory_path: Path) -> None:
    with h5py.File(write(kind, memory_path / "file.h5"), "r") as file:
        attributes = dict(file.attrs)
    assert attributes["schema"] == f"icltool.{kind}"
    assert attributes["schema_version"] == 1
    assert attributes["complete"]
    assert attributes["seed"] == 7
    assert attributes["dataset_fingerprint"] == "0123abcd"
    assert attributes["configuration"] == ('{"beam_size":4,"options":{"norm":[1,2],"order":"left"},"sampler":"random"}')


def test_fingerprint_is_that_of_the_identity(kind: str, memory_path: Path, reader: Callable[[Path], Any]) -> None:
    variants = {
        "same": PROVENANCE,
        "other plugins": replace(PROVENANCE, plugins={}, extra={}),
        "seed": replace(PROVENANCE, seed=8),
        "data": replace(PROVENANCE, dataset_fingerprint="ffff"),
        "options": replace(PROVENANCE, configuration={}),
    }
    fingerprints = {}
    for name, provenance in variants.items():
        with reader(write(kind, memory_path / f"{name}.h5", provenance=provenance)) as file:
            fingerprints[name] = file.fingerprint
    assert fingerprints["same"] == fingerprints["other plugins"]
    assert len(set(fingerprints.values())) == 4


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": 8}, "seed is 7 in the file, 8 in this run"),
        (
            {"configuration": {**PROVENANCE.configuration, "beam_size": 5}},
            "configuration.beam_size is 4 in the file, 5 in this run",
        ),
        (
            {"configuration": {**PROVENANCE.configuration, "options": {"order": "right", "norm": [1, 2]}}},
            "configuration.options.order is 'left' in the file, 'right' in this run",
        ),
        (
            {"configuration": {**PROVENANCE.configuration, "new": True}},
            "configuration.new is 'nothing' in the file, True in this run",
        ),
        ({"dataset_fingerprint": "ffff"}, "dataset_fingerprint is '0123abcd' in the file, 'ffff' in this run"),
    ],
)
def test_other_options_are_refused(kind: str, memory_path: Path, change: dict[str, Any], words: str) -> None:
    path = write(kind, memory_path / "file.h5")
    before = path.read_bytes()
    with pytest.raises(StoreError) as caught:
        write(kind, path, provenance=replace(PROVENANCE, **change))
    assert words in caught.value.message
    assert str(path) in caught.value.message
    assert "--overwrite" in str(caught.value.hint)
    assert path.read_bytes() == before
    write(kind, path, provenance=replace(PROVENANCE, **change), overwrite=True)
    assert path.read_bytes() != before


def test_overwrite_starts_anew(kind: str, memory_path: Path, reader: Callable[[Path], Any]) -> None:
    path = write(kind, memory_path / "file.h5")
    journal = memory_path / ".file.h5.journal"
    journal.write_bytes(b"anything")
    path.write_bytes(b"damaged")
    writer = {"sequences": sequence_writer, "embeddings": embedding_writer}[kind](path, 6, overwrite=True)
    with writer as opened:
        assert not opened._is_complete()
        with reader(path) as file:
            assert len(file) == 0
            assert not file.complete
    assert not journal.exists()


def test_a_removed_file_is_started_anew_without_its_old_journal(memory_path: Path) -> None:
    path = write("sequences", memory_path / "file.h5", count=3)
    with sequence_writer(memory_path / "other.h5", 3) as writer:
        writer.append(result_of(0))
        (memory_path / ".file.h5.journal").write_bytes((memory_path / ".other.h5.journal").read_bytes())
    path.unlink()
    with sequence_writer(path, 3) as writer:
        assert writer.finished == frozenset()


def test_journal_of_another_run_is_refused_by_writers_and_passed_over_by_readers(memory_path: Path) -> None:
    path = write("sequences", memory_path / "file.h5", count=3)
    with sequence_writer(memory_path / "other.h5", 3, provenance=replace(PROVENANCE, seed=99)) as writer:
        writer.append(result_of(77))
        journal = memory_path / ".file.h5.journal"
        journal.write_bytes((memory_path / ".other.h5.journal").read_bytes())
    with SequenceFile.open(path) as file:
        assert file.query_ids == (0, 1, 2)
    with pytest.raises(StoreError, match="seed is 99 in its journal, 7 in this run"):
        write("sequences", path, count=3)
    assert journal.exists()


def test_expect_dataset(kind: str, memory_path: Path, reader: Callable[[Path], Any]) -> None:
    path = write(kind, memory_path / "file.h5")
    with reader(path) as file:
        file.expect_dataset("0123abcd")
        with pytest.raises(StoreError, match=r"file\.h5 .*0123abcd.*ffff") as caught:
            file.expect_dataset("ffff")
        command = {"sequences": "icltool generate", "embeddings": "icltool embed"}[kind]
        assert command in str(caught.value.hint)
        with pytest.raises(StoreError) as caught:
            file.expect_dataset("ffff", "icltool embed --dataset shapes")
        assert "icltool embed --dataset shapes" in str(caught.value.hint)


def refused(reader: Callable[[Path], Any], path: Path, words: str) -> None:
    with pytest.raises(StoreError, match=words) as caught:
        reader(path)
    assert str(path) in caught.value.message
    assert caught.value.hint


def test_what_is_no_artefact(kind: str, memory_path: Path, reader: Callable[[Path], Any]) -> None:
    path = memory_path / "file.h5"
    refused(reader, path, "does not exist")
    path.write_text('{"id_list": [1, 2]}\n' * 100)
    refused(reader, path, "not an HDF5 file")
    path.write_bytes(b"")
    refused(reader, path, "not an HDF5 file")
    refused(reader, memory_path, "is a folder")
    path.unlink()
    with h5py.File(path, "w") as file:
        file["features"] = np.zeros(3)
    refused(reader, path, "has no schema")
    other = write("embeddings" if kind == "sequences" else "sequences", memory_path / "other.h5")
    refused(reader, other, f"holds icltool\\..*, not icltool.{kind}")


@pytest.mark.parametrize(("version", "words"), [(2, "newer icltool"), (0, "older icltool")])
def test_other_schema_versions(
    kind: str, memory_path: Path, reader: Callable[[Path], Any], version: int, words: str
) -> None:
    path = write(kind, memory_path / "file.h5")
    with h5py.File(path, "r+") as file:
        file.attrs["schema_version"] = version
        del file["query_id" if kind == "sequences" else "id"]
    refused(reader, path, words)
    with pytest.raises(StoreError, match=words):
        write(kind, path)


def test_missing_parts_are_damage(kind: str, memory_path: Path, reader: Callable[[Path], Any]) -> None:
    whole = write(kind, memory_path / "whole.h5").read_bytes()
    with h5py.File(memory_path / "whole.h5", "r") as file:
        names = [*file.keys(), *(f"@{name}" for name in file.attrs if name != "schema" and name != "complete")]
    for name in names:
        path = memory_path / "file.h5"
        path.write_bytes(whole)
        with h5py.File(path, "r+") as file:
            if name.startswith("@"):
                del file.attrs[name[1:]]
            else:
                del file[name]
        with pytest.raises(StoreError, match=r"file\.h5 is truncated or damaged"):
            reader(path)


def test_columns_that_do_not_fit_together_are_damage(kind: str, memory_path: Path) -> None:
    path = write(kind, memory_path / "file.h5")
    name = "text" if kind == "embeddings" else "scores"
    for shape in ((5, *((4,) if kind == "sequences" else (16,))), (6, 3), (6,), ()):
        with h5py.File(path, "r+") as file:
            del file[name]
            file[f"{name}/text" if kind == "embeddings" else name] = np.zeros(shape)
        for attempt in (lambda: OPENERS[kind](path), lambda: write(kind, path, count=6)):
            with pytest.raises(StoreError, match=r"file\.h5 is truncated or damaged"):
                attempt()


def read_everything(reader: Callable[[Path], Any], path: Path) -> Any:
    with reader(path) as file:
        if isinstance(file, EmbeddingFile):
            return [file.ids.tobytes(), *(file.read(field).tobytes() for field in file.fields)]
        return {name: array.tobytes() for name, array in file.arrays().items()}


def test_cut_files_are_refused(kind: str, memory_path: Path, reader: Callable[[Path], Any]) -> None:
    whole = write(kind, memory_path / "file.h5").read_bytes()
    path = memory_path / "cut.h5"
    for end in [*range(0, 200, 7), *range(200, len(whole), len(whole) // 60), len(whole) - 1]:
        path.write_bytes(whole[:end])
        with pytest.raises(StoreError, match=r"cut\.h5") as caught:
            read_everything(reader, path)
        assert caught.value.hint


def test_changed_bytes_of_data_are_noticed(kind: str, memory_path: Path, reader: Callable[[Path], Any]) -> None:
    path = write(kind, memory_path / "file.h5")
    whole = bytearray(path.read_bytes())
    pattern = result_of(1).scores.tobytes() if kind == "sequences" else features_of(range(3))["text"].tobytes()[-64:]
    place = bytes(whole).index(pattern)
    whole[place + 5] ^= 16
    path.write_bytes(whole)
    with pytest.raises(StoreError, match="truncated or damaged"):
        read_everything(reader, path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
json_objects = st.dictionaries(st.text(max_size=5), json_values, max_size=4)


@given(json_objects, json_objects)
def test_first_difference(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert first_difference(one, one) is None
    result = first_difference(one, other)
    same_types = repr(sorted(one.items(), key=str)) == repr(sorted(other.items(), key=str))
    assert result is not None or one == other
    assert result is None or not same_types


@given(json_objects)
def test_digest_does_not_depend_on_order(config: dict[str, Any]) -> None:
    assert re.fullmatch("[0-9a-f]{8}", digest(config))
    assert digest(dict(reversed(config.items()))) == digest(config)
    assert digest({**config, "one more key": 1}) != digest(config)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("at", [1, 2, 6, 14])
def test_a_signal_while_hdf5_writes_ends_the_command_in_order(
    kind: str, number: int, code: int, at: int, tmp_path: Path
) -> None:
    """HDF5 calls Python to write a block; an exception in that call would be lost, or crash the process."""
    path, writes, write_block = tmp_path / "file.h5", itertools.count(1), artefact._Sink.write

    def struck(sink: Any, data: Any) -> int:
        if next(writes) == at:
            os.kill(os.getpid(), number)
        return write_block(sink, data)

    def work() -> int:
        artefact._Sink.write = struck  # type: ignore[method-assign]  # in a process that ends
        return guarded(lambda: write(kind, path))

    with Child(work) as child:
        assert child.wait() == code, child.err
    assert "Traceback" not in child.err
    write(kind, path)
    with OPENERS[kind](path) as file, OPENERS[kind](write(kind, tmp_path / "whole.h5")) as whole:
        assert file.complete
        assert len(file) == len(whole) == 6
