"""The session that serves scorers: it owns the model, the batches and the caches, and is independent of beam search."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING

from icltool.contracts import (
    Example,
    FloatArray,
    GeneratesFromPrefix,
    GenerationOptions,
    Intervention,
    Model,
    Prompt,
    ScoringRequest,
    SupportsPrefixCache,
    TargetScore,
    Task,
)
from icltool.engine.batching import LARGEST_ON_CPU, LARGEST_ON_GPU, Batches, BatchSize
from icltool.engine.devices import device_type
from icltool.engine.extraction import ReadsLetter, extracted
from icltool.engine.image_cache import ImageFeatureCache
from icltool.engine.work import Work

if TYPE_CHECKING:
    from torch import Tensor

    from icltool.engine.prefix_engine import PrefixEngine

FeatureSource = Callable[[str, Sequence[Example]], FloatArray]
#: The default size of the prefix cache (on the CPU only used memory is allocated), and its share of a GPU's free memory.
PREFIX_BYTES, PREFIX_SHARE = 1 << 30, 1 / 8


class Session:
    """A ScoringSession over one model and one task.

    If the model is SupportsPrefixCache and `prefix_bytes` is positive, a shared prefix of several prompts is computed once;
    otherwise each prompt is computed whole.

    `letter` reads the letter of a choice in an answer, for tasks that extract one (see `icltool.engine.extraction`).
    `lookup(kind, examples)` returns stored embeddings, `corpus()` the references of the index set; both may be omitted if no
    scorer needs them. `model` is None for scorers without a model. `batch_size` "auto" finds the largest size that fits; any
    size is halved when memory runs out. `notes` are lines for the user about it.
    """

    def __init__(
        self,
        task: Task | str,
        model: Model | None,
        generation: GenerationOptions,
        batch_size: BatchSize,
        cache: ImageFeatureCache | None = None,
        lookup: FeatureSource | None = None,
        corpus: Callable[[], Iterable[tuple[str, ...]]] | None = None,
        prefix_bytes: int = 0,
        remarks: Sequence[str] = (),
        letter: ReadsLetter | None = None,
    ) -> None:
        self.task = task
        self.model = model
        self.generation = generation
        self._batches = Batches(batch_size, _largest(model))
        self._requested_batch = _largest(model) if batch_size == "auto" else batch_size
        self._prefixes = _prefix_engine(model, self._batches, prefix_bytes)
        self.cache = cache
        self._lookup = lookup
        self._corpus = corpus
        self._remarks = tuple(remarks)
        self._letter = letter
        self.prompts_scored = 0
        #: Whether later prompts may share what precedes the query of a scored prompt. A search sets it.
        self.keeps_prefixes = False

    @property
    def batch_size(self) -> int:
        """The current batch size."""
        return self._batches.size

    @property
    def largest_batch(self) -> int:
        """The requested batch size; with "auto" the largest that is tried. It does not change."""
        return self._requested_batch

    @property
    def notes(self) -> list[str]:
        """Notes for the user: caches switched off, memory that ran out, and the notes of the image cache."""
        return [*self._remarks, *self._batches.notes, *(self.cache.notes if self.cache is not None else ())]

    @property
    def done(self) -> Work:
        """The work of the model so far."""
        scored, computed, padded = self.tokens_scored or 0, self.tokens_computed or 0, self.tokens_padded or 0
        encoded, stored = (0, 0) if self.cache is None else (self.cache.encoded, self.cache.from_disk)
        return Work(self.prompts_scored, scored, computed, padded, encoded, stored)

    @property
    def work(self) -> list[str]:
        """One line on the work of the model, compared with the work without sharing."""
        return self.done.lines

    @property
    def tokens_scored(self) -> int | None:
        """Tokens of all prompts so far, as if each were computed whole; None without a prefix cache."""
        return None if self._prefixes is None else self._prefixes.counts.scored

    @property
    def tokens_computed(self) -> int | None:
        """Tokens that the model computed so far; None without a prefix cache."""
        return None if self._prefixes is None else self._prefixes.counts.computed

    @property
    def tokens_padded(self) -> int | None:
        """Tokens that the model computed so far, with the padding of their batches; None without a prefix cache."""
        return None if self._prefixes is None else self._prefixes.counts.padded

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(finished=error is None)

    def close(self, finished: bool = True) -> None:
        """Closes the processes that prepare images, and the store of their features."""
        if self.cache is not None:
            self.cache.close(finished)

    def expect(self, examples: Iterable[Example]) -> None:
        """Announces examples in the order in which they will be needed: their images can be read ahead."""
        if self.cache is not None:
            self.cache.expect(image for example in examples for image in example.images)

    def reset(self) -> None:
        """Drops the prefix cache and the batch size that "auto" chose, so that later results do not depend on earlier prompts,
        even by rounding."""
        self._batches.reset()
        if self._prefixes is not None:
            self._prefixes.forget()

    @contextmanager
    def applying(self, intervention: Intervention) -> Iterator[None]:
        """A context in which the model answers and scores under the intervention. The prefix cache is emptied before and after;
        image features are reused, since interventions change the decoder only.

        There is no prefix cache if the intervention treats a token by its context. Raises ConfigError for another model than
        the one that the intervention was trained for.
        """
        prefixes = self._prefixes
        with intervention.applied(self._needed_model()):
            self.reset()
            if not intervention.everywhere:
                self._prefixes = None
            try:
                yield
            finally:
                self._prefixes = prefixes
                self.reset()

    def plain(self) -> Session:
        """The same session with every prompt computed whole and alone: no cache, no padding, one prompt per batch.

        Its scores depend on the prompt alone, so they decide ties up to rounding.
        """
        return Session(self.task, self.model, self.generation, 1, None, self._lookup, self._corpus, letter=self._letter)

    def target_scores(self, requests: Sequence[ScoringRequest]) -> list[TargetScore]:
        prompts = self._prompts(requests)
        self.prompts_scored += len(prompts)
        model, features = self._needed_model(), self._features(prompts)
        if self._prefixes is not None:
            return self._prefixes.scores(prompts, features, self.keeps_prefixes)
        return self._batches.run(prompts, lambda part, size: model.score(part, size, features))

    def answers(self, requests: Sequence[ScoringRequest]) -> list[str]:
        return [text for _, _, text in self.generations(requests)]

    def generations(self, requests: Sequence[ScoringRequest]) -> list[tuple[Prompt, str, str]]:
        """(exact prompt, raw continuation, cleaned answer) of each request."""
        model = self._needed_model()
        queries = [r.query.id if self.generation.temperature > 0 else 0 for r in requests]
        prompts = [replace(p, target="", draw=q) for p, q in zip(self._prompts(requests), queries, strict=True)]
        self.prompts_scored += len(prompts)
        features = self._features(prompts)
        if self._prefixes is not None and isinstance(model, GeneratesFromPrefix):
            raw = self._prefixes.answers(prompts, self.generation, features)
        else:
            raw = self._batches.run(prompts, lambda part, size: model.generate(part, self.generation, size, features))
        answers = [self._answer(r.query, text) for r, text in zip(requests, raw, strict=True)]
        return list(zip(prompts, raw, answers, strict=True))

    def prompt(self, request: ScoringRequest) -> Prompt:
        """The prompt of the request, without a target."""
        return replace(self._prompts([request])[0], target="")

    def features(self, kind: str, examples: Sequence[Example]) -> FloatArray:
        if self._lookup is None:
            raise ValueError("this session was opened without embeddings; the scorer must name them in `needs`")
        return self._lookup(kind, examples)

    def reference_corpus(self) -> Iterable[tuple[str, ...]]:
        if self._corpus is None:
            raise ValueError("this session was opened without a reference corpus")
        return self._corpus()

    def _prompts(self, requests: Sequence[ScoringRequest]) -> list[Prompt]:
        model = self._needed_model()
        return [model.prompt(self.task, r.demonstrations, r.query) for r in requests]

    def _answer(self, query: Example, raw: str) -> str:
        model = self._needed_model()
        if not isinstance(self.task, Task):
            return model.clean(self.task, raw)
        return extracted(self.task, query, raw, partial(model.clean, self.task), self._letter)

    def _features(self, prompts: Sequence[Prompt]) -> dict[str, Tensor] | None:
        if self.cache is None:
            return None
        return self.cache.features([path for p in prompts for path in p.images])

    def _needed_model(self) -> Model:
        if self.model is None:
            raise ValueError("this session was opened without a model; the scorer must name it in `needs`")
        return self.model


def _prefix_engine(model: Model | None, batches: Batches, prefix_bytes: int) -> PrefixEngine | None:
    if prefix_bytes <= 0 or not isinstance(model, SupportsPrefixCache):
        return None
    from icltool.engine.prefix_engine import PrefixEngine

    return PrefixEngine(model, batches, prefix_bytes)


def _largest(model: Model | None) -> int:
    """The largest batch that "auto" tries."""
    return LARGEST_ON_CPU if device_type(model) == "cpu" else LARGEST_ON_GPU
