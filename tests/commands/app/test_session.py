"""What the page does, without the page."""

from __future__ import annotations

from pathlib import Path

import pytest

from icltool.commands.app.options import AppConfig
from icltool.commands.app.session import AppSession
from icltool.commands.caption.answer_session import AnswerSession
from icltool.commands.caption.demonstrations import RandomDemonstrations
from icltool.components.tasks import task_named
from icltool.errors import ConfigError, DataError, StoreError
from icltool.execution.progress import for_terminal
from icltool.store.prepared import PreparedDataset
from icltool.store.records import open_dataset
from icltool.store.workspace import Workspace


@pytest.fixture(scope="module")
def answers() -> AnswerSession:
    return AnswerSession(AppConfig(model="tiny-idefics", device="cpu"), task_named("caption"), for_terminal(quiet=True))


@pytest.fixture
def dataset(small_world: Path) -> PreparedDataset:
    return open_dataset(Workspace(small_world).dataset_folder("shapes", "caption"))


def test_an_answer_with_all_that_was_asked(answers: AnswerSession, dataset: PreparedDataset) -> None:
    session = AppSession(answers, dataset, ())
    query = session.example(3)
    icds = session.drawn(query, 4, seed=1)
    answer = session.ask(query, icds)
    assert answer.references == query.references
    assert answer.demonstrations == icds
    expected = answers.model.prompt("caption", icds, query)
    assert answer.prompt == expected.text
    assert answers.model.clean("caption", answer.raw) == answer.answer
    assert session.ask(query, icds) == answer


def test_demonstrations(answers: AnswerSession, dataset: PreparedDataset) -> None:
    session = AppSession(answers, dataset, ())
    query = session.example(0)
    icds = session.drawn(query, 16, seed=0)
    assert len({e.id for e in icds}) == 16
    assert session.drawn(query, 5, seed=0) == icds[:5]
    assert session.drawn(query, 16, seed=1) != icds
    assert not any(e.image_id == query.image_id or (query.group and e.group == query.group) for e in icds)
    assert session.chosen([icds[2].id, icds[0].id]) == (icds[2], icds[0])
    with pytest.raises(StoreError, match="has no example 987654321"):
        session.chosen([987654321])
    train = dataset.split("train")
    own = session.own(train.images[5], "", "")
    drawn = RandomDemonstrations(train, len(train) - 1, 0, False, frozenset({"image"}))(own)
    assert train.images[5] not in {e.image for e in drawn}
    with pytest.raises(ConfigError, match=r"only .* show another image"):
        session.drawn(own, len(train), 0)


def test_words_are_found_in_the_index_set(answers: AnswerSession, dataset: PreparedDataset) -> None:
    session = AppSession(answers, dataset, ())
    first = dataset.split("train")[0]
    matches = session.search(first.label.upper(), 5)
    assert matches[0] == first
    assert all(set(first.label.split()) <= set(e.text.split()) for e in matches)
    assert session.search("no such words", 5) == []
    assert len(set(session.some_rows(12, 0))) == 12
    assert session.some_rows(12, 0) != session.some_rows(12, 1)


def test_what_was_asked_otherwise_has_no_references(answers: AnswerSession, dataset: PreparedDataset) -> None:
    session = AppSession(answers, dataset, ())
    query = session.example(0)
    assert session.about(query, "", "").references == query.references
    assert session.about(query, "", "Sweet").references == ()


def test_faults_are_told_in_a_line(answers: AnswerSession, tmp_path: Path) -> None:
    session = AppSession(answers, None, ())
    (tmp_path / "notes.jpg").write_text("no image")
    with pytest.raises(DataError, match=r"^image notes\.jpg cannot be read: it is not an image of a known format"):
        session.own(str(tmp_path / "notes.jpg"), "", "")
    with pytest.raises(DataError, match=r"^image gone\.jpg does not exist"):
        session.own(str(tmp_path / "gone.jpg"), "", "")
    with pytest.raises(DataError, match="there is no example 0"):
        session.example(0)
    with pytest.raises(ConfigError, match="need a prepared data set"):
        session.chosen([1])
    assert (session.examples, session.search("a", 3), session.chosen([])) == (0, [], ())
