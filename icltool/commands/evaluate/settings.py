"""The settings of a call (method, shots, seed), and the demonstrations of each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from icltool.commands.evaluate.inputs import Inputs
from icltool.commands.evaluate.methods import ZERO_SHOT, Method, RetrieverPart, methods
from icltool.contracts import IndexSet, IntArray, QuerySet, keyed_generator
from icltool.contracts.evaluation import SettingKey
from icltool.engine.choosing import Handed
from icltool.errors import ConfigError
from icltool.store.artefact import digest


@dataclass(frozen=True)
class Setting:
    """One cell of the table. `digest` stands for all that decides its demonstrations. `count` is their number for a query."""

    method: Method
    shots: int
    seed: int
    digest: str

    @property
    def key(self) -> SettingKey:
        """What names it in the results."""
        return SettingKey(self.method.label, self.shots, self.seed)

    @property
    def count(self) -> int:
        return self.shots * self.method.shot_size

    @property
    def asks(self) -> bool:
        """Whether the model is asked which demonstrations to show."""
        return self.method.chain is not None and self.method.chain.asking is not None

    @property
    def title(self) -> str:
        """What a person calls it."""
        seed = f", seed {self.seed}" if self.seed else ""
        return f"{self.method.label}, {self.shots}-shot{seed}" if self.shots else self.method.label


class Settings:
    """All settings of a call, grouped: `groups` are the seeds of one method and number of shots, in the seeds' order.

    Zero-shot comes once, and retrievers at 0 shots are zero-shot. Raises ConfigError for impossible numbers of
    shots, and what `methods` raises.
    """

    def __init__(self, inputs: Inputs) -> None:
        self.inputs = inputs
        config = inputs.config
        if min(config.shots, default=-1) < 0:
            raise ConfigError("--shots must be non-negative integers", "--shots 1,2,4")
        if not config.seeds:
            raise ConfigError("--seed takes at least one number", "--seed 0")
        self.methods = methods(inputs)
        if not self.methods:
            raise ConfigError("there is no method to evaluate", "--method random, or --plan FILE")
        if inputs.task.textless and (by_text := [m.label for m in self.methods if m.reads_query_text]):
            raise ConfigError(
                f"{by_text[0]} compares the text of a query, and queries of {inputs.dataset.name} ({inputs.task.name}) have "
                "none",
                "i2i and i2t compare the query's image",
            )
        groups: dict[tuple[str, int], list[Setting]] = {}
        for method in self.methods:
            for shots in method.shots:
                self._check(method, shots)
                used = method if shots or method.own_model else Method(ZERO_SHOT, None, (0,))
                seeds = dict.fromkeys(config.seeds) if shots else (0,)
                groups.setdefault((used.label, shots), [self._setting(used, shots, seed) for seed in seeds])
        self.groups = list(groups.values())
        self._rows: dict[tuple[str, int, int], IntArray | None] = {}
        if config.permutations > 1 and (asking := [g[0].method.label for g in self.groups if g[0].asks]):
            raise ConfigError(
                f"--permutations: {asking[0]} asks the model which demonstrations to show, so other orders "
                "are known only once the model has run",
                "evaluate it without, then `icltool export plan` and `evaluate --plan FILE --permutations …`",
            )

    @cached_property
    def remarks(self) -> list[str]:
        """What the methods have to say, each once."""
        return list(dict.fromkeys(remark for method in self.methods for remark in method.remarks))

    def choose(self, setting: Setting) -> None:
        """Chooses as far as no model is needed. Raises what the methods raise."""
        if setting.asks:
            self.among(setting)
        else:
            self.demonstrations(setting)

    def among(self, setting: Setting) -> IntArray | None:
        """Of a setting that asks the model: int64 [Q, P] rows of the IndexSet that the first asking method is given to choose
        among, None where it is the first of all."""
        chain = setting.method.chain
        assert chain is not None
        assert chain.asking is not None
        key = (setting.method.label, setting.seed, setting.shots)
        if key not in self._rows:
            handed = Handed(examples=self.inputs.examples)
            self._rows[key] = chain.handed_to(chain.asking, self._arrays, setting.count, setting.seed, handed).among
        return self._rows[key]

    def demonstrations(self, setting: Setting) -> IntArray:
        """int64 [Q, count] rows of the index records, in prompt order, of a setting that does not ask the model."""
        method, inputs = setting.method, self.inputs
        if method.chain is None:
            return np.empty((len(inputs.query_rows), 0), dtype=np.int64)
        counts = [shots * method.shot_size for shots in method.shots]
        most = max(counts) if method.chain.nested(counts) else setting.count
        key = (method.label, setting.seed, most)
        if key not in self._rows:
            handed = Handed(examples=inputs.examples)
            try:
                self._rows[key] = method.chain.retrieve(self._arrays, most, setting.seed, handed)
            except ConfigError as error:
                raise _of_method(error, method.label) from error
        whole = self._rows[key]
        assert whole is not None
        rows = whole[:, : setting.count]
        return inputs.index_rows[rows[:, ::-1] if self.reverses(method) else rows]

    def _arrays(self, part: RetrieverPart) -> tuple[IndexSet, QuerySet]:
        return self.inputs.arrays(part.needs, part.encoder)

    def _check(self, method: Method, shots: int) -> None:
        available = len(self.inputs.index_rows)
        if shots * method.shot_size > available:
            each = f" of {method.shot_size} demonstrations each" if method.shot_size > 1 else ""
            raise ConfigError(f"{shots} shots{each} from an index set of {available}", "use fewer shots")
        most = method.most_shots
        if most is not None and shots > most:
            raise ConfigError(
                f"{method.options.get('file', method.label)} has {most} demonstrations per query, {shots} were asked for",
                f"ask for {most} shots, or for fewer: the last ones of each list are taken then",
            )

    def _setting(self, method: Method, shots: int, seed: int) -> Setting:
        identity: dict[str, Any] = {"method": method.label, "shots": shots, "seed": seed, **method.identity}
        if method.shot_size > 1:
            identity["shot_size"] = method.shot_size
        if method.ranked:
            identity["reversed"] = self.reverses(method)
        return Setting(method, shots, seed, digest(identity))

    def reverses(self, method: Method) -> bool:
        """Whether the method's rows are shown from the last to the first."""
        own = method.reversed_order
        return method.ranked and (self.inputs.config.reversed_order if own is None else own)


def _of_method(error: ConfigError, label: str) -> ConfigError:
    """The error with the method's name in front, unless it begins with it."""
    named = error.message if error.message.startswith(label) else f"{label}: {error.message}"
    return ConfigError(named, error.hint)


def further_orders(setting: Setting, query_ids: IntArray, count: int) -> IntArray:
    """int64 [Q, m, count]: up to `count` further orders of each query's demonstrations, as positions in the method's own.

    They are drawn for the query and the seed, differ from one another and from the method's own, and more of them begin
    with those of fewer. m is smaller than `count` where there are no more: two demonstrations have one other order.
    """
    m = min(count, _orders_of(setting.count, count + 1) - 1)
    orders = np.empty((len(query_ids), m, setting.count), dtype=np.int64)
    for position, query_id in enumerate(query_ids.tolist()):
        generator = keyed_generator(setting.seed, "evaluate.order", query_id)
        seen = {tuple(range(setting.count))}
        while len(seen) <= m:
            order = tuple(generator.permutation(setting.count).tolist())
            if order not in seen:
                orders[position, len(seen) - 1] = order
                seen.add(order)
    return orders


def _orders_of(shots: int, enough: int) -> int:
    """shots!, or any number from `enough` up where it is larger."""
    product = 1
    for factor in range(2, shots + 1):
        product *= factor
        if product >= enough:
            break
    return product
