"""Checks of optional abilities, used by the suites of each kind of component."""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection, Mapping
from dataclasses import fields
from pathlib import Path

from icltool.components.tasks import BUILT_IN
from icltool.contracts import Example, NamesMetrics
from icltool.contracts.abilities import HasIdentity, HasRemarks, MadeForTasks, NeedsReferences, OfDataset
from icltool.contracts.fine_tuning import StartsFromTrained
from icltool.contracts.learner import HasVariant
from icltool.contracts.metric import GivesWay, ReadsField
from icltool.contracts.retriever import (
    ChoosesJointly,
    EmbeddedBy,
    HasLengths,
    HasPoolSize,
    HasShots,
    HasShotSize,
    ReadsCheckpoint,
    ReadsSequences,
    ReadsTheQuery,
)
from icltool.testing.expectations import expect

_FIELDS = {field.name for field in fields(Example)}
#: Optional abilities of a retriever, by name.
_OF_RETRIEVERS = {
    "remarks": HasRemarks,
    "identity": HasIdentity,
    "fingerprint": OfDataset,
    "query": ReadsTheQuery,
    "learner": ReadsCheckpoint,
    "sequences": ReadsSequences,
    "shots": HasShots,
    "lengths": HasLengths,
    "shot_size": HasShotSize,
    "encoder": EmbeddedBy,
    "joint": ChoosesJointly,
    "pool_size": HasPoolSize,
}
#: Similarity from which a name counts as a misspelling of one of these.
_ALIKE = 0.85


def expect_judging_abilities(judge: object) -> None:
    """Checks abilities of a metric or a scorer: MadeForTasks, NeedsReferences, ReadsField, GivesWay."""
    if isinstance(judge, MadeForTasks):
        expect(_are_texts(judge.tasks), f"`tasks` must be names of tasks, not {judge.tasks!r}")
        unknown = sorted(set(judge.tasks) - set(BUILT_IN))
        expect(not unknown, f"`tasks` names {', '.join(unknown)}; the tasks are {', '.join(BUILT_IN)}")
    if isinstance(judge, NeedsReferences):
        least = judge.least_references
        expect(isinstance(least, int) and least > 0, f"`least_references` must be a positive integer, not {least!r}")
    if isinstance(judge, ReadsField):
        expect(judge.reads in _FIELDS, f"`reads` must be a field of Example, not {judge.reads!r}")
    if isinstance(judge, GivesWay):
        expect(_is_name(judge.instead), f"`instead` must be the name of a metric, not {judge.instead!r}")


def expect_reading_abilities(reader: object) -> None:
    """Checks abilities of a data set's reader beyond DatasetReader."""
    if isinstance(reader, NamesMetrics):
        named = reader.metrics
        right = isinstance(named, Mapping) and all(
            isinstance(task, str) and (isinstance(metrics, str) or _are_texts(metrics))
            for task, metrics in named.items()
        )
        expect(right, f"`metrics` must map names of tasks to names of metrics, not {named!r}")
        unknown = sorted(set(named) - set(BUILT_IN))
        expect(not unknown, f"`metrics` names the tasks {', '.join(unknown)}; the tasks are {', '.join(BUILT_IN)}")


def expect_choosing_abilities(retriever: object) -> None:
    """Checks abilities of a retriever: all of `_OF_RETRIEVERS`, and that none is misspelt."""
    _expect_spelt(retriever)
    if isinstance(retriever, HasRemarks):
        expect(_are_texts(retriever.remarks), f"`remarks` must be lines of text, not {retriever.remarks!r}")
    if isinstance(retriever, HasIdentity):
        actual = retriever.identity()
        expect(isinstance(actual, Mapping), f"`identity()` must be a mapping, not {actual!r}")
        expect(retriever.identity() == actual, "two calls of `identity` give different answers")
    if isinstance(retriever, ChoosesJointly):
        expect(isinstance(retriever.joint, bool), f"`joint` must be True or False, not {retriever.joint!r}")
    _expect_names(retriever)
    _expect_numbers(retriever)


def _expect_names(retriever: object) -> None:
    if isinstance(retriever, OfDataset):
        made_for = retriever.fingerprint
        expect(made_for is None or _is_name(made_for), f"`fingerprint` must be a text or None, not {made_for!r}")
    if isinstance(retriever, ReadsTheQuery):
        expect(retriever.query in ("image", "text"), f'`query` must be "image" or "text", not {retriever.query!r}')
    if isinstance(retriever, ReadsCheckpoint):
        expect(_is_name(retriever.learner), f"`learner` must be the name of a learner, not {retriever.learner!r}")
    if isinstance(retriever, ReadsSequences):
        expect(_is_name(retriever.sequences), f"`sequences` must be the name of a split, not {retriever.sequences!r}")
    if isinstance(retriever, EmbeddedBy):
        encoder = retriever.encoder
        expect(encoder is None or _is_name(encoder), f"`encoder` must be a name or None, not {encoder!r}")


def _expect_numbers(retriever: object) -> None:
    if isinstance(retriever, HasShots):
        number = retriever.shots
        expect(isinstance(number, int) and number >= 0, f"`shots` must be a non-negative integer, not {number!r}")
    if isinstance(retriever, HasLengths):
        numbers = retriever.lengths
        expect(
            isinstance(numbers, Collection) and all(isinstance(n, int) and n > 0 for n in numbers),
            f"`lengths` must be numbers of demonstrations, not {numbers!r}",
        )
    if isinstance(retriever, HasShotSize):
        size = retriever.shot_size
        expect(isinstance(size, int) and size > 0, f"`shot_size` must be a positive integer, not {size!r}")
    if isinstance(retriever, HasPoolSize):
        for k in (1, 2, 5):
            expected = retriever.pool_size(k)
            expect(
                isinstance(expected, int) and expected >= k,
                f"`pool_size({k})` must be a number from {k} on, not {expected!r}",
            )


def _expect_spelt(retriever: object) -> None:
    """Checks that no public attribute is nearly named like an ability that the retriever lacks."""
    for name in dir(retriever):
        if name.startswith("_") or name in _OF_RETRIEVERS:
            continue
        for meant in difflib.get_close_matches(name, _OF_RETRIEVERS, n=1, cutoff=_ALIKE):
            expect(
                hasattr(retriever, meant),
                f"`{name}` is not part of any contract: did you mean `{meant}` ({_OF_RETRIEVERS[meant].__name__})? If it is "
                f"private, call it `_{name}`",
            )


def expect_learning_abilities(learner: object, other: object) -> None:
    """Checks abilities of a learner, with `other` built from the same options: HasIdentity, HasVariant, StartsFromTrained."""
    if isinstance(learner, HasIdentity) and isinstance(other, HasIdentity):
        try:
            actual = [json.dumps(one.identity(), sort_keys=True) for one in (learner, other)]
        except (TypeError, ValueError) as error:
            raise AssertionError(f"`identity` must give JSON values: {error}") from error
        expect(
            actual[0] == actual[1], f"`identity` must be the same for the same options: {actual[0]} against {actual[1]}"
        )
    if isinstance(learner, HasVariant):
        name = learner.variant
        expect(_is_name(name) and name == Path(name).name, f"`variant` must be part of a folder's name, not {name!r}")
    if isinstance(learner, StartsFromTrained):
        starts = learner.starts_from_trained
        expect(isinstance(starts, bool), f"`starts_from_trained` must be a truth value, not {starts!r}")


def _are_texts(values: object) -> bool:
    return isinstance(values, Collection) and not isinstance(values, str) and all(isinstance(v, str) for v in values)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value)
