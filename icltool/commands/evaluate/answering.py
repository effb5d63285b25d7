"""Answers of the model to one setting after another. Finished chunks of queries outlive a kill."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from icltool.commands.evaluate.inputs import Inputs
from icltool.contracts import (
    Example,
    IntArray,
    Intervention,
    Progress,
    Prompt,
    ScoringRequest,
)
from icltool.contracts.arrays import plain_text
from icltool.engine.choices import best_choice, rank_choices
from icltool.engine.devices import device_of
from icltool.engine.generation import generation_options
from icltool.engine.session import Session
from icltool.store.arrays import asked_by, content_code, content_codes
from icltool.store.evaluations import PartialAnswers

if TYPE_CHECKING:
    from icltool.commands.evaluate.settings import Setting

#: Queries that are answered, and safe on disk, at a time, where the batch size is small, and where it is "auto"; else so
#: many batches, that prompts can be sorted by length and share what they have in common.
CHUNK, CHUNK_OF_AUTO = 64, 512
BATCHES = 4


class Answerer:
    """Answers queries; the model is loaded when the first answer is needed."""

    def __init__(self, inputs: Inputs, progress: Progress) -> None:
        self.inputs, self.progress = inputs, progress
        #: Seconds that answering took, and a remark, of part files that workers filled.
        self.elsewhere: dict[Path, tuple[float, str]] = {}
        self._session: Session | None = None
        self.weights: Path | None = None
        self._told: list[str] = []

    @property
    def notes(self) -> list[str]:
        """What the sessions had to say about memory, and how much the model did."""
        return list(dict.fromkeys([*self._told, *self._session_notes()]))

    def open(self, settings: Sequence[Setting]) -> None:
        """Loads the model of the first of these, and raises ConfigError where an intervention was made for another."""
        first = next((s for s in settings if s.method.weights is None), settings[0])
        self.use(first.method.weights)
        model = self.session().model
        for setting in settings:
            if (made := setting.method.intervention) is not None:
                assert model is not None
                made.check(model)

    def use(self, weights: Path | None) -> None:
        """Answers come from the model with these weights from now on, None for its own. What was loaded before is let go."""
        if weights == self.weights:
            return
        if self._session is not None:
            self._told += self._session_notes()
            self._session.close(finished=True)
            self._session = None
        self.weights = weights

    @property
    def remarks(self) -> list[str]:
        """What the session that is open has to say about memory."""
        return [] if self._session is None else self._session.notes

    def _session_notes(self) -> list[str]:
        return [] if self._session is None else [*self._session.notes, *self._session.work]

    def __enter__(self) -> Answerer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(finished=error is None)

    def close(self, finished: bool) -> None:
        """Ends what works beside the session, if there is one."""
        if self._session is not None:
            self._session.close(finished=finished)

    def ready(self, weights: Path | None) -> bool:
        """Whether the model is loaded with these weights."""
        return self._session is not None and self.weights == weights

    def expect(self, query_rows: IntArray, chosen: IntArray) -> None:
        """Announces the images of a chunk, in the order of its prompts."""
        for row, demonstrations in zip(query_rows, chosen, strict=True):
            self.session().expect([*self.inputs.index.rows(demonstrations), self.inputs.queries[row]])

    def answer(
        self, title: str, chosen: IntArray, part: PartialAnswers, intervention: Intervention | None = None
    ) -> list[dict[str, Any]]:
        """One prediction row per query, without scores, for `chosen` int64 [Q, shots] rows of the index records in prompt
        order, answered under `intervention`. What `part` holds is not answered again; the rest is added to it chunk by
        chunk."""
        rows, ahead = self.known(chosen, part)
        with ExitStack() as stack:
            missing = self.chunks(len(rows), len(chosen), {start: len(found) for start, found in ahead.items()})
            if missing:
                self.session().expect(self._needed(chosen, missing))
                if intervention is not None:
                    stack.enter_context(self.session().steered(intervention))
            done = len(chosen) - sum(map(len, missing))
            ticker = stack.enter_context(self.progress.task(title, len(chosen), "queries", done=done))
            for asked in missing:
                found = self.rows(self.inputs.query_rows[asked.start : asked.stop], chosen[asked.start : asked.stop])
                part.append(found, asked.start)
                ahead[asked.start] = found
                ticker.advance(len(found))
        for start in sorted(ahead):
            rows += ahead[start]
        return rows

    def known(
        self, chosen: IntArray, part: PartialAnswers
    ) -> tuple[list[dict[str, Any]], dict[int, list[dict[str, Any]]]]:
        """(the first rows that `part` holds, chunks of those behind a gap by their first row)."""
        query_ids = self.inputs.queries.ids[self.inputs.query_rows].tolist()
        icd_ids = self.inputs.index.ids[chosen].tolist()
        rows = part.resume(list(zip(query_ids, icd_ids, strict=True)))
        return rows, dict(part.ahead)

    def chunks(self, done: int, total: int, ahead: Mapping[int, int]) -> list[range]:
        """The queries that are asked together, of those that are missing: neither among the first `done` nor `ahead`, so many
        from each of these positions on."""
        size = self.inputs.config.batch_size
        chunk = CHUNK_OF_AUTO if size == "auto" else max(BATCHES * size, CHUNK)
        found, low = [], done
        for start in [*sorted(ahead), total]:
            found += [range(first, min(first + chunk, start)) for first in range(low, start, chunk)]
            low = start + ahead.get(start, 0)
        return found

    def _needed(self, chosen: IntArray, missing: Sequence[range]) -> Iterator[Example]:
        """The examples of all prompts to come, in their order."""
        for position in (position for asked in missing for position in asked):
            yield from self.inputs.index.rows(chosen[position])
            yield self.inputs.queries[self.inputs.query_rows[position]]

    def rows(self, query_rows: IntArray, chosen: IntArray) -> list[dict[str, Any]]:
        """Answers one chunk: rows without scores of some queries with their demonstrations."""
        queries = self.inputs.queries.rows(query_rows)
        demonstrations = [tuple(self.inputs.index.rows(row)) for row in chosen]
        requests = [ScoringRequest(q, d) for q, d in zip(queries, demonstrations, strict=True)]
        self.session().start_anew()  # so that an answer depends on its own chunk alone, wherever a run began
        answers = self._ranked(requests) if self.inputs.task.ranked else self._generated(requests)
        return [_row(request, answer) for request, answer in zip(requests, answers, strict=True)]

    def _generated(self, requests: Sequence[ScoringRequest]) -> list[dict[str, Any]]:
        found = self.session().generations(requests)
        return [{**_prompt(prompt), "raw": raw, "answer": answer} for prompt, raw, answer in found]

    def _ranked(self, requests: Sequence[ScoringRequest]) -> list[dict[str, Any]]:
        """The most probable choice of each query, with the log-probabilities of all."""
        session, task = self.session(), self.inputs.task.name
        assert session.model is not None
        ranked = rank_choices(session, requests)
        prompts = [replace(session.model.prompt(task, r.demonstrations, r.query), target="") for r in requests]
        answers = [best_choice(log_probs) for log_probs in ranked]
        return [
            {**_prompt(prompt), "raw": answer, "answer": answer, "log_probs": log_probs}
            for prompt, answer, log_probs in zip(prompts, answers, ranked, strict=True)
        ]

    def about(self) -> dict[str, Any]:
        """How this process answers: device, precision and generation as they were resolved, and what stands for weights,
        precision and prompt format. Without what is not known: what other machines have, where they answer."""
        if self._session is None or self._session.model is None:
            return {}
        model = self._session.model
        return {
            "device": str(device_of(model) or ""),
            "precision": str(getattr(model, "precision", getattr(model, "dtype", ""))).removeprefix("torch."),
            "weights": model.fingerprint(),
            "generation": asdict(self._session.generation),
        }

    def session(self) -> Session:
        """The session; its model is loaded when it is first asked for."""
        if self._session is None:
            config, task = self.inputs.config, self.inputs.task
            weights = {} if self.weights is None else {"path": str(self.weights)}
            self.progress.detail(f"loading {config.model}" + (f" with {self.weights}" if weights else ""))
            model = config.open_model(task, **weights)
            generation = generation_options(config.generation(), task, model)
            self._session = config.open_session(task, model, generation)
        return self._session


def shared_with(query: Example, demonstrations: Sequence[Example]) -> dict[str, int]:
    """How many demonstrations share the query's image, near-duplicate group, question, or whole text with its answer,
    whatever the leak guard keeps away; kinds with none are left out."""
    asked, contents = plain_text(asked_by(query)), set(content_codes(query))
    shared = {
        "image": sum(d.image_id == query.image_id for d in demonstrations),
        "group": sum(d.group == query.group for d in demonstrations) if query.group else 0,
        "question": sum(plain_text(asked_by(d)) == asked for d in demonstrations) if asked else 0,
        "text": sum(content_code(d, d.label) in contents for d in demonstrations),
    }
    return {kind: count for kind, count in shared.items() if count}


def copied_from(answer: str, demonstrations: Sequence[Example]) -> list[int]:
    """Ids of the demonstrations whose label the answer repeats, but for case, blanks and punctuation."""
    plain = plain_text(answer)
    return [d.id for d in demonstrations if plain and plain_text(d.label) == plain]


def _prompt(prompt: Prompt) -> dict[str, Any]:
    return {"prompt": prompt.text, "images": list(prompt.images)}


def _row(request: ScoringRequest, answer: dict[str, Any]) -> dict[str, Any]:
    query, demonstrations = request.query, request.demonstrations
    types = {"question_type": query.question_type, "answer_type": query.answer_type}
    return {
        "query_id": query.id,
        "group": query.group,
        "icd_ids": [d.id for d in demonstrations],
        **answer,
        "references": list(query.references),
        **({"raw_references": list(query.raw_references)} if query.raw_references else {}),
        "scores": {},
        **{name: value for name, value in types.items() if value},
        "shared": shared_with(query, demonstrations),
        "copied": copied_from(answer["answer"], demonstrations),
    }
