"""What is recorded of an answer: the exact prompt, and what the demonstrations have to do with query and answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from icltool.contracts import Example, Prompt, ScoringRequest
from icltool.contracts.arrays import plain_text
from icltool.contracts.evaluation import Prediction
from icltool.store.arrays import content_code, content_codes, question_of


def predicted(
    request: ScoringRequest, prompt: Prompt, raw: str, answer: str, log_probs: Mapping[str, float] | None = None
) -> Prediction:
    """The prediction row of an answer, without scores; `log_probs` are those of all choices, where they were ranked."""
    query, demonstrations = request.query, request.demonstrations
    types = {"question_type": query.question_type, "answer_type": query.answer_type}
    row = {
        "query_id": query.id,
        "group": query.group,
        "icd_ids": list(dict.fromkeys(d.id for d in demonstrations)),  # one that follows another has its id
        "prompt": prompt.text,
        "images": list(prompt.images),
        "raw": raw,
        "answer": answer,
        **({} if log_probs is None else {"log_probs": dict(log_probs)}),
        "references": list(query.references),
        **({"raw_references": list(query.raw_references)} if query.raw_references else {}),
        "scores": {},
        **{name: value for name, value in types.items() if value},
        **({"aspects": dict(query.aspects)} if query.aspects else {}),
        "shared": shared_with(query, demonstrations),
        "copied": copied_from(answer, demonstrations),
    }
    return cast(Prediction, row)


def shared_with(query: Example, demonstrations: Sequence[Example]) -> dict[str, int]:
    """How many demonstrations share the query's image, near-duplicate group, question, or whole text with its answer,
    whatever the leak guard keeps away; kinds with none are left out. One that follows another has its id, and both count
    once."""
    question, contents = plain_text(question_of(query)), set(content_codes(query))
    shared = {
        "image": {d.id for d in demonstrations if d.shares_image(query)},
        "group": {d.id for d in demonstrations if query.group and d.group == query.group},
        "question": {d.id for d in demonstrations if question and plain_text(question_of(d)) == question},
        "text": {d.id for d in demonstrations if content_code(d, d.label) in contents},
    }
    return {kind: len(ids) for kind, ids in shared.items() if ids}


def copied_from(answer: str, demonstrations: Sequence[Example]) -> list[int]:
    """Ids of the demonstrations whose label the answer repeats, but for case, blanks and punctuation."""
    plain = plain_text(answer)
    return [d.id for d in demonstrations if plain and plain_text(d.label) == plain]
