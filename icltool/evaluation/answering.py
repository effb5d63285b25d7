"""Answers of the model to one setting after another. Finished chunks of queries outlive a kill."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from icltool.contracts import (
    Example,
    IntArray,
    Intervention,
    Model,
    Progress,
    Prompt,
    ScoringRequest,
)
from icltool.contracts.arrays import plain_text
from icltool.engine.generation import generation_options
from icltool.engine.session import Session, open_session, prefix_bytes
from icltool.evaluation.inputs import Inputs
from icltool.plugin.manager import component
from icltool.store.arrays import asked_by, content_code, content_codes
from icltool.store.evaluations import PartialAnswers

if TYPE_CHECKING:
    from icltool.evaluation.costs import Costs
    from icltool.evaluation.settings import Setting

#: Queries that are answered, and safe on disk, at a time, where the batch size is small, and where it is "auto"; else so
#: many batches, that prompts can be sorted by length and share what they have in common.
CHUNK, CHUNK_OF_AUTO = 64, 512
BATCHES = 4


class Answerer:
    """Answers queries; the model is loaded when the first answer is needed. `costs` are what its answers cost, once that
    was measured."""

    def __init__(self, inputs: Inputs, progress: Progress) -> None:
        self.inputs, self.progress = inputs, progress
        self.costs: Costs | None = None
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

    def _session_notes(self) -> list[str]:
        return [] if self._session is None else [*self._session.notes, *self._session.work]

    def __enter__(self) -> Answerer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            self._session.close(finished=error is None)

    def answer(
        self, title: str, chosen: IntArray, part: PartialAnswers, intervention: Intervention | None = None
    ) -> list[dict[str, Any]]:
        """One prediction row per query, without scores, for `chosen` int64 [Q, shots] rows of the index records in prompt
        order, answered under `intervention`. What `part` holds is not answered again; the rest is added to it chunk by
        chunk."""
        inputs = self.inputs
        size = inputs.config.batch_size
        chunk = CHUNK_OF_AUTO if size == "auto" else max(BATCHES * size, CHUNK)
        query_ids = inputs.queries.ids[inputs.query_rows].tolist()
        icd_ids = inputs.index.ids[chosen].tolist()
        rows = part.resume(list(zip(query_ids, icd_ids, strict=True)))
        with ExitStack() as stack:
            if len(rows) < len(chosen):
                self.session().expect(self._needed(chosen, len(rows)))
                if intervention is not None:
                    stack.enter_context(self.session().steered(intervention))
            ticker = stack.enter_context(self.progress.task(title, len(chosen), "queries", done=len(rows)))
            for low in range(len(rows), len(chosen), chunk):
                asked = slice(low, low + chunk)
                found = self._rows(inputs.query_rows[asked], chosen[asked])
                part.append(found)
                rows += found
                ticker.advance(len(found))
        return rows

    def _needed(self, chosen: IntArray, start: int) -> Iterator[Example]:
        """The examples of all prompts from `start` on, in their order."""
        for row, demonstrations in zip(self.inputs.query_rows[start:], chosen[start:], strict=True):
            yield from self.inputs.index.rows(demonstrations)
            yield self.inputs.queries[row]

    def _rows(self, query_rows: IntArray, chosen: IntArray) -> list[dict[str, Any]]:
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
        from icltool.engine.choices import best_choice, rank_choices

        session, task = self.session(), self.inputs.task.name
        assert session.model is not None
        ranked = rank_choices(session, requests)
        prompts = [replace(session.model.prompt(task, r.demonstrations, r.query), target="") for r in requests]
        answers = [best_choice(log_probs) for log_probs in ranked]
        return [
            {**_prompt(prompt), "raw": answer, "answer": answer, "log_probs": log_probs}
            for prompt, answer, log_probs in zip(prompts, answers, ranked, strict=True)
        ]

    def session(self) -> Session:
        """The session; its model is loaded when it is first asked for."""
        if self._session is None:
            config, task = self.inputs.config, self.inputs.task
            weights = {} if self.weights is None else {"path": str(self.weights)}
            self.progress.detail(f"loading {config.model}" + (f" with {self.weights}" if weights else ""))
            model: Model = component("models", config.model, **{**config.model_options(), **weights})
            generation = generation_options(config.generation(), task, model)
            store = None
            if config.image_cache_disk:
                from icltool.store.image_features import image_features_for

                store = image_features_for(model, config.model, config.workspace, config.image_cache_disk_mb)
            self._session = open_session(
                task.name,
                model,
                generation,
                config.batch_size,
                config.image_cache_mb * 2**20,
                prefix_bytes=prefix_bytes(config.prefix_cache_mb, model),
                image_workers=config.image_workers,
                image_store=store,
            )
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
