"""Conformance suites for components, and helpers for tests of plugins.

Each `check_…` function tests one component against every sentence of its contract in `icltool.contracts`, on its own test
data, and raises AssertionError that describes the fault. No test framework is needed:

    from icltool.testing import check_sampler

    def test_my_sampler():
        check_sampler(MySampler)

icltool's own components pass the same suites.
"""

from icltool.testing.arrays import make_anchors, make_index, make_queries
from icltool.testing.datasets import check_dataset
from icltool.testing.encoders import check_encoder
from icltool.testing.examples import make_examples
from icltool.testing.executors import check_executor
from icltool.testing.fine_tuning import check_fine_tuning
from icltool.testing.intervention_learners import check_intervention_learner, make_intervention_set
from icltool.testing.interventions import check_intervention
from icltool.testing.learners import check_learner, make_evaluation_set, make_training_set
from icltool.testing.metrics import check_metric
from icltool.testing.models import check_model
from icltool.testing.plain import PlainTwin, torch_twin, torch_twin_apart
from icltool.testing.progress import QuietProgress
from icltool.testing.prompts import check_prompt_renderer
from icltool.testing.retrievers import check_retriever
from icltool.testing.samplers import check_sampler
from icltool.testing.scorers import check_scorer
from icltool.testing.sessions import InMemoryChoosingSession, InMemoryExamples, InMemorySession
from icltool.testing.tasks import check_task
from icltool.testing.trainable_encoders import check_trainable_encoder
from icltool.testing.tuners import check_fine_tuning_learner, make_fine_tuning_set

__all__ = [
    "InMemoryChoosingSession",
    "InMemoryExamples",
    "InMemorySession",
    "PlainTwin",
    "QuietProgress",
    "check_dataset",
    "check_encoder",
    "check_executor",
    "check_fine_tuning",
    "check_fine_tuning_learner",
    "check_intervention",
    "check_intervention_learner",
    "check_learner",
    "check_metric",
    "check_model",
    "check_prompt_renderer",
    "check_retriever",
    "check_sampler",
    "check_scorer",
    "check_task",
    "check_trainable_encoder",
    "make_anchors",
    "make_evaluation_set",
    "make_examples",
    "make_fine_tuning_set",
    "make_index",
    "make_intervention_set",
    "make_queries",
    "make_training_set",
    "torch_twin",
    "torch_twin_apart",
]
