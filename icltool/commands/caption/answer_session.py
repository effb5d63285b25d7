"""A model that answers queries batch by batch, each answer with its exact prompt."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import TracebackType

from icltool.config.generation import GenerationConfig
from icltool.contracts import Example, GenerationOptions, Model, Progress, Prompt, ScoringRequest, Task
from icltool.engine.generation import generation_options


class AnswerSession:
    """The loaded model of a configuration, and its answers in one task. Raises what loading raises."""

    def __init__(self, config: GenerationConfig, task: Task, progress: Progress) -> None:
        progress.detail(f"loading {config.model_name}")
        self.task = task
        self.model: Model = config.open_model(task)
        self.options: GenerationOptions = generation_options(config.generation(), task, self.model)
        self._session = config.open_session(task, self.model, self.options)

    def __enter__(self) -> AnswerSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session.close(finished=error is None)

    @property
    def notes(self) -> list[str]:
        """The notes of the session, about memory."""
        return self._session.notes

    def check(self, demonstrations: Sequence[Example], query: Example) -> None:
        """Raises ConfigError if the model's prompt format does not know the task."""
        self.model.prompt(self.task, demonstrations, query)

    def expect(self, examples: Iterable[Example]) -> None:
        """Announces examples in the order in which they will be needed, so that their images are read ahead."""
        self._session.expect(examples)

    def answers(self, requests: Sequence[tuple[Example, Sequence[Example]]]) -> list[tuple[Prompt, str, str]]:
        """(exact prompt, raw continuation, answer) for each (query, its demonstrations in prompt order). An answer does not
        depend on earlier calls."""
        self._session.reset()
        return self._session.generations([ScoringRequest(query, tuple(icds)) for query, icds in requests])
