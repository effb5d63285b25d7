"""The hooks that a plugin implements. Each returns the registrations of one kind.

A plugin is a module (or object) named by an entry point of the group `icltool`; its functions are marked with
`icltool.hookimpl`. Hooks must be cheap: they name components, they do not import them.
"""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from icltool.plugin.registration import Registration

hookspec = pluggy.HookspecMarker("icltool")


@hookspec
def icltool_models() -> Iterable[Registration]:  # type: ignore[empty-body]
    """LVLM adapters (`icltool.contracts.Model`)."""


@hookspec
def icltool_datasets() -> Iterable[Registration]:  # type: ignore[empty-body]
    """Dataset readers (`icltool.contracts.DatasetReader`)."""


@hookspec
def icltool_tasks() -> Iterable[Registration]:  # type: ignore[empty-body]
    """Tasks (`icltool.contracts.Task`), each a TOML file: the target is `icltool.contracts:packaged_task`, its options are
    `package` and `file`."""


@hookspec
def icltool_encoders() -> Iterable[Registration]:  # type: ignore[empty-body]
    """Image and text encoders (`icltool.contracts.Encoder`)."""


@hookspec
def icltool_samplers() -> Iterable[Registration]:  # type: ignore[empty-body]
    """Candidate samplers (`icltool.contracts.Sampler`)."""


@hookspec
def icltool_scorers() -> Iterable[Registration]:  # type: ignore[empty-body]
    """Sequence scorers (`icltool.contracts.Scorer`)."""


@hookspec
def icltool_retrievers() -> Iterable[Registration]:  # type: ignore[empty-body]
    """Retrievers (`icltool.contracts.Retriever`)."""


@hookspec
def icltool_metrics() -> Iterable[Registration]:  # type: ignore[empty-body]
    """Metrics (`icltool.contracts.Metric`)."""


@hookspec
def icltool_learners() -> Iterable[Registration]:  # type: ignore[empty-body]
    """Learners (`Learner`, `InterventionLearner`, `FineTuningLearner` and `EvaluationLearner` of `icltool.contracts`)."""


@hookspec
def icltool_interventions() -> Iterable[Registration]:  # type: ignore[empty-body]
    """Interventions: learned state in place of demonstrations (`icltool.contracts.Intervention`)."""


@hookspec
def icltool_executors() -> Iterable[Registration]:  # type: ignore[empty-body]
    """Executors (`icltool.contracts.Executor`)."""


@hookspec
def icltool_commands() -> Iterable[Registration]:  # type: ignore[empty-body]
    """Commands of `icltool`: a function whose annotated parameters Typer reads, or a `typer.Typer` of several. Its docstring is
    the help, the summary its line in the overview."""
