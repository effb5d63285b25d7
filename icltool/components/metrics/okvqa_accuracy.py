"""VQA accuracy on OK-VQA, whose annotators' answers are published stemmed and as they were typed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from icltool.components.metrics.okvqa_stemming import Stemmer
from icltool.components.metrics.vqa_accuracy import VQAAccuracy
from icltool.contracts.arrays import Float64Array


class OKVQAAccuracy:
    """VQA accuracy of the stemmed answer against the stemmed answers of the annotators: the usual figure on OK-VQA.

    Only the answer is stemmed here: the references are used as `okvqa` reads them. Needs the packages of
    the extra `okvqa` and NLTK's data.
    """

    name = "okvqa-accuracy"
    scale = 100.0
    #: The tasks that this metric is meant for; on others a remark says so.
    tasks = ("vqa",)
    #: See Metric.
    instead = "vqa-accuracy-raw"

    def __init__(self) -> None:
        self._accuracy = VQAAccuracy()
        self._stemmer = Stemmer()

    def fit(self, corpus: Iterable[Sequence[str]]) -> None:
        """Nothing: the accuracy has no corpus statistics."""

    def check(self) -> None:
        """Raises ConfigError that names the packages or the data of NLTK that are missing, and how to get them."""
        self._stemmer.check()

    def score(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Float64Array:
        """float64 [n] in [0, 1]; 0 for an answer without references. ConfigError as `check`."""
        return self._accuracy.score([self._stemmer.stem(answer) for answer in predictions], references)


class RawVQAAccuracy(VQAAccuracy):
    """VQA accuracy against what the annotators typed, where a data set's references are a normalised form of it. Nothing is
    stemmed: "dogs" and "dog" are two answers."""

    name = "vqa-accuracy-raw"
    #: See Metric.
    reads = "raw_references"
