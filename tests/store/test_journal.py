"""The journal gives back what was appended, whatever end it was torn at."""

from __future__ import annotations

import time
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from icltool.errors import StoreError
from icltool.store.journal import MAGIC, Journal, journal_path

payloads = st.lists(st.binary(min_size=1, max_size=60), max_size=5)
json_objects = st.dictionaries(
    st.text(max_size=8),
    st.recursive(st.none() | st.integers() | st.text(max_size=8), st.lists, max_leaves=4),
    max_size=3,
)


def written(path: Path, records: list[bytes], identity: dict[str, object]) -> list[int]:
    """Writes a journal; the sizes that the file had after each record, the first with none."""
    journal = Journal.create(path, identity)
    sizes = [path.stat().st_size]
    for record in records:
        journal.append(record)
        sizes.append(path.stat().st_size)
    journal.close()
    return sizes


def records_of(journal: Journal) -> list[bytes]:
    return [journal.read(entry) for entry in journal.entries]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(payloads, json_objects)
def test_round_trip(memory_path: Path, records: list[bytes], identity: dict[str, object]) -> None:
    path = memory_path / "journal"
    written(path, records, identity)
    for writable in (False, True):
        journal = Journal(path, writable)
        assert journal.identity == identity
        assert records_of(journal) == records
        assert [journal.read(e, 2) for e in journal.entries] == [r[:2] for r in records]
        journal.close()


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15)
@given(payloads.filter(bool), st.binary(min_size=1, max_size=20))
def test_torn_at_every_byte(memory_path: Path, records: list[bytes], more: bytes) -> None:
    path = memory_path / "journal"
    sizes = written(path, records, {"key": "value"})
    whole = path.read_bytes()
    for end in range(sizes[0], len(whole) + 1):
        path.write_bytes(whole[:end])
        complete = records[: sum(size <= end for size in sizes) - 1]
        reader = Journal(path)
        assert records_of(reader) == complete
        reader.close()
        assert path.stat().st_size == end, "a reader must not touch the file"
        writer = Journal(path, writable=True)
        assert records_of(writer) == complete
        writer.append(more)
        writer.close()
        again = Journal(path)
        assert records_of(again) == [*complete, more]
        again.close()


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(payloads.filter(bool), st.data())
def test_changed_byte_is_never_read(memory_path: Path, records: list[bytes], data: st.DataObject) -> None:
    path = memory_path / "journal"
    sizes = written(path, records, {})
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(sizes[0], len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    journal = Journal(path)
    assert records_of(journal) == records[: sum(size <= place for size in sizes) - 1]
    journal.close()


def test_zeros_after_a_power_failure_are_no_records(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    written(path, [b"one"], {})
    path.write_bytes(path.read_bytes() + bytes(4096))
    journal = Journal(path, writable=True)
    assert records_of(journal) == [b"one"]
    journal.close()
    assert path.stat().st_size < 100


@pytest.mark.parametrize("content", [b"", b"short", b"\x89HDF\r\n\x1a\n" * 9, MAGIC, MAGIC + bytes(50)])
def test_what_is_no_journal_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / ".file.h5.journal"
    path.write_bytes(content)
    for writable in (False, True):
        with pytest.raises(StoreError, match=r"\.file\.h5\.journal") as caught:
            Journal(path, writable)
        assert caught.value.hint
        assert path.read_bytes() == content


def test_records_that_cannot_be_told_apart_from_none_are_refused(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path / "journal", {})
    with pytest.raises(ValueError, match="1 to"):
        journal.append(b"")
    journal.close()


def test_reader_sees_a_growing_journal_and_outlives_its_removal(tmp_path: Path) -> None:
    path = journal_path(tmp_path / "file.h5")
    assert path == tmp_path / ".file.h5.journal"
    writer = Journal.create(path, {})
    writer.append(b"one")
    reader = Journal(path)
    writer.append(b"two")
    later = Journal(path)
    writer.remove()
    assert not path.exists()
    assert records_of(reader) == [b"one"]
    assert records_of(later) == [b"one", b"two"]
    reader.close()
    later.close()


def test_appending_costs_no_more_as_the_journal_grows(tmp_path: Path) -> None:
    journal, seconds = Journal.create(tmp_path / "journal", {}), []
    for _ in range(4):
        start = time.process_time()  # not what other processes take
        for _ in range(500):
            journal.append(bytes(1500))
        seconds.append(time.process_time() - start)
    journal.close()
    assert seconds[3] < 3 * seconds[0]


def test_an_identity_that_is_no_object_is_a_damaged_journal(tmp_path: Path) -> None:
    path = tmp_path / "a.journal"
    payload = b'["no identity"]'
    length = len(payload).to_bytes(4, "little")
    path.write_bytes(MAGIC + length + zlib.crc32(payload, zlib.crc32(length)).to_bytes(4, "little") + payload)
    with pytest.raises(StoreError, match=r"a\.journal is damaged: its first record cannot be read"):
        Journal(path)
