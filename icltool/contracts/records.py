"""Records that pass between components: examples, and the sequences that beam search found for a query."""

from __future__ import annotations

from dataclasses import dataclass, replace

from icltool.contracts.arrays import Float64Array, IntArray


@dataclass(frozen=True, slots=True)
class Example:
    """One labelled example: a query, or an in-context demonstration (ICD).

    `id` is unique within its split. `image` is an absolute path, with the regions that the task is about as a fragment
    (see `icltool.contracts.images`), or "" for text-only data. `text` is what retrieval by text compares (captions: the first
    caption; vqa: the question; inference: the clue). `question` is what is asked, or the clue that an inference starts from;
    `style` the personality that a caption is written in. `references` are all captions or all ten
    answers; `raw_references` are what the annotators typed, one for each of them, where the references are a normalised
    form of it (OK-VQA's stemmed answers), else (). `choices` are the labels that a classification ranks, in the data
    set's order. `group` names near-duplicates of one another ("" for none); the leak guard keeps a query and its
    near-duplicates apart, and confidence intervals are clustered by it.
    """

    id: int
    image: str
    image_id: int
    text: str
    label: str
    references: tuple[str, ...]
    question: str = ""
    group: str = ""
    question_type: str = ""
    answer_type: str = ""
    choices: tuple[str, ...] = ()
    raw_references: tuple[str, ...] = ()
    style: str = ""


def blanked(query: Example) -> Example:
    """The query without all that tells its answer, as a retriever may see it: label "", no references, no type of
    answer; no text where that is the answer (of a caption). Its choices are kept."""
    answers = {query.label, *query.references, *query.raw_references}
    text = "" if query.text in answers else query.text
    return replace(query, label="", references=(), raw_references=(), answer_type="", text=text)


@dataclass(frozen=True, slots=True)
class QueryResult:
    """The beams that survived for one query, best first. B beams of K ICDs out of C candidates.

    `icd_ids` int64 [B, K] are in prompt order (the last stands next to the query). `step_scores` float64 [B, K] are the
    gains in the order in which the search added the ICDs, whatever the construct order. `scores` float64 [B] is what
    the beams were ranked by. `values` float64 [B] and `base_value` are the scorer's value f(S, x) of the finished
    sequence and of the empty one; `log_probs` float64 [B] and `base_log_prob` the target's summed log-probability in
    nats under each (NaN where the scorer computes none). `candidates` int64 [C] is the pool, in sampled order.
    """

    query_id: int
    candidates: IntArray
    icd_ids: IntArray
    scores: Float64Array
    step_scores: Float64Array
    values: Float64Array
    log_probs: Float64Array
    base_value: float
    base_log_prob: float
