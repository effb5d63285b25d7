"""The units of work of `icltool evaluate`: chunks of queries, and the queries by which costs are measured."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from icltool.commands.evaluate.methods import Method
from icltool.commands.evaluate.settings import Setting
from icltool.contracts import IntArray
from icltool.contracts.evaluation import SettingKey


@dataclass(frozen=True)
class Conditions:
    """What the model answers under: a file of fine-tuned weights, or the registered name and the options (JSON) of an
    intervention, its file among them; neither: as it is."""

    weights: Path | None = None
    intervention: str = ""
    options: str = "{}"
    label: str = ""

    @classmethod
    def of(cls, method: Method) -> Conditions:
        """Those of a method."""
        if method.intervention is None:
            return cls(method.weights)
        return cls(None, method.identity["intervention"], json.dumps(method.options), method.label)

    @classmethod
    def of_all(cls, settings: Iterable[Setting]) -> tuple[Conditions, ...]:
        """Those of several settings, each once; other weights than the model's own come last."""
        return tuple(dict.fromkeys(cls.of(setting.method) for setting in sorted(settings, key=weights_last)))


def weights_last(setting: Setting) -> str:
    """Orders settings so that no weights are loaded twice, the model's own first."""
    return str(setting.method.weights or "")


@dataclass(frozen=True)
class AskingPart:
    """A retriever that a worker builds: what messages call it, its registered name, its options (JSON), and whose
    embeddings it reads."""

    name: str
    registered: str
    options: str
    encoder: str | None


@dataclass(frozen=True)
class Choosing:
    """How a worker chooses demonstrations, where the model is asked for that: the methods from the first that asks on."""

    parts: tuple[AskingPart, ...]
    count: int
    seed: int
    reverses: bool

    @classmethod
    def of(cls, setting: Setting, reverses: bool) -> Choosing:
        """Of a setting that asks the model."""
        chain = setting.method.chain
        assert chain is not None
        parts = [
            AskingPart(part.name, part.registered, json.dumps(part.options), part.encoder)
            for part in chain.parts[chain.asking :]
        ]
        return cls(tuple(parts), setting.count, setting.seed, reverses)


@dataclass(frozen=True)
class Chunk:
    """The unit of work: queries that are answered together, those from number `start` of task `number` on. `query_rows`
    int64 [n], `chosen` int64 [n, shots] rows of the index records in prompt order.

    With `choosing` they are chosen before they are answered: `chosen` is [n, 0], and `among` int64 [n, P] are rows of the
    IndexSet to choose among, padded with -1, None for all."""

    number: int
    start: int
    query_rows: IntArray
    chosen: IntArray
    under: Conditions
    choosing: Choosing | None = None
    among: IntArray | None = None


class Measured(NamedTuple):
    """A setting whose cost is measured; `chosen` int64 [n, shots] are the demonstrations of the sample's queries."""

    key: SettingKey
    under: Conditions
    chosen: IntArray


@dataclass(frozen=True)
class CostSample:
    """The unit of work that measures what settings cost: all by one worker, so that they can be compared. `query_rows`
    int64 [n]."""

    query_rows: IntArray
    settings: tuple[Measured, ...]
