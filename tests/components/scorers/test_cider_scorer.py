"""The CIDEr scorer: the query's references, the index set's document frequencies, read once."""

from __future__ import annotations

import numpy as np

from icltool.components.metrics.cider import Cider
from icltool.components.metrics.ptb import PTBTokenizer
from icltool.components.scorers.cider import CiderScorer
from icltool.contracts import Scorer, ScoringRequest
from tests.components.scorers.sessions import CopyingSession, example

CORPUS = [
    ("A red dog runs on grass.", "A dog runs."),
    ("Two cats sleep at home.", "Cats sleeping."),
    ("A red bus stands still.", "The bus is red."),
    ("A man rides a bike.", "Man on a bike."),
]
QUERY = example(1, *CORPUS[0])
DOG, CATS, BUS = (example(10 + i, *texts) for i, texts in enumerate(CORPUS[:3]))


def test_value_is_the_cider_of_the_answer_against_the_querys_references() -> None:
    scorer = CiderScorer()
    assert isinstance(scorer, Scorer)
    assert scorer.needs == {"model"}
    assert scorer.tie_tolerance == 0
    session = CopyingSession("caption", CORPUS)
    requests = [ScoringRequest(QUERY, demonstrations) for demonstrations in ((), (DOG,), (DOG, CATS), (CATS, BUS))]
    valuation = scorer.evaluate(session, requests)
    metric = Cider()
    metric.fit(CORPUS)
    expected = metric.score(["", DOG.label, CATS.label, BUS.label], [QUERY.references] * 4)
    np.testing.assert_array_equal(valuation.values, expected)
    assert valuation.log_probs is None
    assert expected[0] == 0
    assert expected[1] > expected[3] > expected[2] == 0


def test_each_request_is_judged_by_its_own_query() -> None:
    other = example(2, *CORPUS[1])
    requests = [ScoringRequest(QUERY, (CATS,)), ScoringRequest(other, (CATS,))]
    values = CiderScorer().evaluate(CopyingSession("caption", CORPUS), requests).values
    assert values[0] == 0
    assert values[1] > 1


def test_the_corpus_is_read_once_per_session() -> None:
    scorer = CiderScorer()
    session = CopyingSession("caption", CORPUS)
    requests = [ScoringRequest(QUERY, (DOG,))]
    first = [scorer.evaluate(session, requests).values[0] for _ in range(3)]
    assert session.read == 1
    assert len(set(first)) == 1
    larger = CopyingSession("caption", CORPUS * 5 + [("A dog.",)] * 30)
    assert scorer.evaluate(larger, requests).values[0] != first[0]
    assert larger.read == 1


class _Recording(PTBTokenizer):
    """Notes every string that goes to the Java program."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[str] = []

    def _run(self, texts: list[str]) -> list[str]:
        self.sent += texts
        return super()._run(texts)


def test_no_string_is_tokenized_twice_in_a_run() -> None:
    """Neither references, of the index set and of queries, nor outputs that repeat."""
    tokenizer = _Recording()
    scorer, session = CiderScorer(Cider(tokenizer)), CopyingSession("caption", CORPUS)
    for query in (QUERY, example(2, *CORPUS[1]), QUERY):
        for sequences in (((),), ((DOG,), (CATS,), (BUS,), (DOG,)), ((CATS, BUS), (DOG, BUS), (BUS, DOG))):
            scorer.evaluate(session, [ScoringRequest(query, demonstrations) for demonstrations in sequences])
    tokenizer.close()
    assert sorted(tokenizer.sent) == sorted({*(text for texts in CORPUS for text in texts), ""})


def test_values_do_not_depend_on_the_batch() -> None:
    scorer, session = CiderScorer(), CopyingSession("caption", CORPUS)
    requests = [ScoringRequest(QUERY, demonstrations) for demonstrations in ((DOG,), (CATS,), (BUS,), (BUS, DOG))]
    together = scorer.evaluate(session, requests).values
    alone = [scorer.evaluate(session, [request]).values[0] for request in requests]
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-12)


def test_a_metric_can_be_handed_in() -> None:
    class Length:
        name, scale = "length", 1.0

        def fit(self, corpus) -> None:
            self.documents = len(list(corpus))

        def score(self, predictions, references):
            return np.array([float(len(p)) for p in predictions])

    length = Length()
    values = (
        CiderScorer(metric=length).evaluate(CopyingSession("caption", CORPUS), [ScoringRequest(QUERY, (DOG,))]).values
    )
    assert values.tolist() == [float(len(DOG.label))]
    assert length.documents == 4
