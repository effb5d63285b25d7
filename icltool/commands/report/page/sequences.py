"""A page of generated sequences: anchors as queries, beams as settings, and what tells whether training on them is worth it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icltool.commands.report.page.beam_figures import diversity, gains_by_beam, gains_by_step, hubness, worse_than_none
from icltool.commands.report.page.content import Anchors, Extra, Page, Result, Shown, Source
from icltool.commands.report.page.examples import DatasetKey, Examples, given_up, workspaces_of
from icltool.commands.report.page.page_builder import Catalogue, Draft, drawn, readable, sample_remark
from icltool.commands.report.page.settings import configured
from icltool.commands.report.page.times import ImageTimes, changed_at
from icltool.contracts import Float64Array
from icltool.results.intervals import Interval, bootstrap_interval
from icltool.results.privacy import without_places
from icltool.store.checkpoint_names import checkpoint_name_in
from icltool.store.sequences import SequenceFile

Arrays = Mapping[str, NDArray[Any]]
#: The setting without demonstrations, which beams are measured against.
NONE = "no demonstrations"
#: What of a beam is shown: name, column of the file, column of what it is without demonstrations.
_SCORES = (("value", "values", "base_value"), ("log-probability", "log_probs", "base_log_prob"))


def sequences_page(path: Path, workspace: Path, queries: int = 400, seed: int = 0, title: str = "") -> Draft:
    """The page of a sequences file, images still to be made; one that is still being generated is shown as far as it is.

    The gallery has `queries` of the anchors (-1 all), drawn by `seed`; `Page.extra` is of all of them. Raises StoreError for
    a file that is missing, damaged, or something else. A data set that is gone, or prepared again, is noted.
    """
    with SequenceFile.open(path) as file:
        arrays, provenance = file.arrays(), file.provenance
        shots, finished, total = file.shots, len(file), file.total
    configuration = provenance.configuration
    name, task = (str(configuration.get(option) or "") for option in ("dataset", "task"))
    key = DatasetKey(name, task, provenance.dataset_fingerprint)
    examples = Examples(key, workspaces_of(path, "sequences", workspace))
    chosen = drawn(arrays["query_id"].tolist(), finished if queries < 0 else queries, seed)
    times = ImageTimes(key.label, changed_at(path))
    gathering = _Gathering(key, examples, arrays, chosen, str(configuration.get("queries") or "train"), times)
    results = tuple(gathering.results())
    metrics = tuple(name for name, column, _ in _SCORES if np.isfinite(arrays[column]).any()) or ("value",)
    settings = [_without(arrays, metrics), *_beams(arrays, metrics, shots, provenance.seed)]
    unfinished = [] if finished == total else [f"unfinished: {finished:,} of {total:,} anchors so far"]
    notes = tuple(map(readable, [*unfinished, *given_up(path, "icltool generate")]))
    source = Source(readable(_title(configuration, key)), readable(path), _lines(configuration, key), notes)
    page = Page(
        kind="sequences",
        title=readable(title or without_places(f"Sequences of {key.label or path.stem}", workspace)),
        sources=(source,),
        metrics=metrics,
        settings=tuple(settings),
        results=results,
        remarks=(
            *sample_remark(len(chosen), finished, "anchors", seed),
            *map(readable, dict.fromkeys([*examples.remarks, *times.remarks()])),
        ),
        extra=_figures(arrays, gathering, {"shown": len(chosen), "finished": finished, "total": total}),
    )
    return gathering.catalogue.draft(page, workspace)


class _Gathering:
    """The anchors that are shown, their beams and their demonstrations."""

    def __init__(
        self,
        key: DatasetKey,
        examples: Examples,
        arrays: Arrays,
        chosen: Sequence[int],
        split: str,
        times: ImageTimes,
    ) -> None:
        self.key, self.arrays, self.times = key, arrays, times
        self.catalogue = Catalogue()
        self.index_size = examples.size("train")
        self._rows = np.searchsorted(arrays["query_id"], np.array(chosen, dtype=np.int64)).tolist()
        self._anchors = examples.load_queries(split, chosen)
        demonstrations = arrays["icd_ids"][self._rows]
        self._demonstrations = examples.load("train", np.unique(demonstrations[demonstrations >= 0]).tolist())

    def results(self) -> list[Result]:
        """Those without demonstrations first, then beam by beam; fills the catalogue."""
        anchors = [self._anchor(int(self.arrays["query_id"][row])) for row in self._rows]
        results = [
            Result(0, anchor, (), scores=_scores(self.arrays, row, None))
            for row, anchor in zip(self._rows, anchors, strict=True)
        ]
        for beam in range(self.arrays["icd_ids"].shape[1]):
            for row, anchor in zip(self._rows, anchors, strict=True):
                if beam < self.arrays["beam_count"][row]:
                    results.append(self._beam(row, beam, anchor))
        return results

    def _beam(self, row: int, beam: int, anchor: int) -> Result:
        arrays = self.arrays
        scores, before = _scores(arrays, row, beam), _scores(arrays, row, None)
        query = self._anchors.get(int(arrays["query_id"][row]))
        rule = "" if query is None else query.rule
        return Result(
            setting=beam + 1,
            query=anchor,
            demonstrations=tuple(self._demonstration(icd, rule) for icd in arrays["icd_ids"][row, beam].tolist()),
            scores={**scores, "score": float(arrays["scores"][row, beam])},
            gains={name: score - before[name] for name, score in scores.items() if name in before},
            steps=tuple(arrays["step_scores"][row, beam].tolist()),
        )

    def _anchor(self, one: int) -> int:
        example = self._anchors.get(one)
        # the scores are of the label
        references = () if example is None else dict.fromkeys([example.label, *example.references])
        images = () if example is None else map(self.times.usable, example.images)
        return self.catalogue.query(self.key, one, self.key.label, example, references, images)

    def _demonstration(self, one: int, rule: str) -> int:
        example = self._demonstrations.get(one)
        images = () if example is None else map(self.times.usable, example.images)
        return self.catalogue.demonstration(self.key, one, example, images, rule)


def _figures(arrays: Arrays, gathering: _Gathering, anchors: Anchors) -> Extra:
    """`Page.extra`: figures over all anchors, JSON-ready."""
    most = hubness(arrays, gathering.index_size)
    for entry in most["top"]:
        entry["demonstration"] = gathering.catalogue.known_demonstration(gathering.key, entry["id"])
    return {
        "anchors": anchors,
        "gains": gains_by_beam(arrays),
        "steps": gains_by_step(arrays),
        "worse": worse_than_none(arrays),
        "hubness": most,
        "diversity": diversity(arrays),
    }


def _scores(arrays: Arrays, row: int, beam: int | None) -> dict[str, float]:
    """By name, of a beam, or without demonstrations; those that the scorer did not compute are left out."""
    scores = {
        name: float(arrays[base][row] if beam is None else arrays[column][row, beam]) for name, column, base in _SCORES
    }
    return {name: value for name, value in scores.items() if math.isfinite(value) or name == "value"}


def _without(arrays: Arrays, metrics: Sequence[str]) -> Shown:
    figures = {name: _interval(arrays[base]) for name, _, base in _SCORES if name in metrics}
    return Shown(0, NONE, 0, 0, len(arrays["query_id"]), figures)


def _beams(arrays: Arrays, metrics: Sequence[str], shots: int, seed: int) -> list[Shown]:
    beams = []
    for beam in range(arrays["icd_ids"].shape[1]):
        there = arrays["beam_count"] > beam
        columns = {name: (arrays[column][there, beam], arrays[base][there]) for name, column, base in _SCORES}
        beams.append(
            Shown(
                evaluation=0,
                method=f"beam {beam + 1}",
                shots=shots,
                seed=seed,
                queries=int(there.sum()),
                metrics={name: _interval(columns[name][0]) for name in metrics},
                gains={name: _interval(columns[name][0] - columns[name][1]) for name in metrics},
                outcomes={name: _outcome(columns[name][0] - columns[name][1]) for name in metrics},
            )
        )
    return [one for one in beams if one.queries]


def _interval(values: Float64Array) -> Interval:
    """Mean over anchors with its bootstrap interval; NaN where no value is known."""
    known = values[np.isfinite(values)]
    return bootstrap_interval(known) if len(known) else Interval(math.nan, math.nan, math.nan)


def _outcome(gains: Float64Array) -> tuple[int, int, int]:
    return int((gains > 0).sum()), int((gains < 0).sum()), int((gains == 0).sum())


def _title(configuration: Mapping[str, object], key: DatasetKey) -> str:
    parts = [key.label, checkpoint_name_in(configuration), *(configuration.get(name) for name in ("sampler", "scorer"))]
    return ", ".join(str(part) for part in parts if part)


def _lines(configuration: Mapping[str, object], key: DatasetKey) -> tuple[tuple[str, str], ...]:
    """How the sequences were made."""
    known = [*configuration.items(), ("fingerprint of the data set", key.fingerprint)]
    return tuple(configured(known))
