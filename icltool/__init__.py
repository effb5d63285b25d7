"""icltool configures in-context demonstrations for large vision-language models.

The public API, for plugin authors: `hookimpl`, `Registration`, the contracts, and what adapters of models share (prompt
formats, token arithmetic, reading images, finding weights) and what makes and applies interventions (files, hooks, draws of
examples). Names are imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from icltool.releases import __version__

_CONTRACTS = (
    "AnswerBatch",
    "AttentionHeads",
    "Augmentation",
    "BeamSample",
    "ContinuesFromPrefix",
    "CorpusMetric",
    "CountsTokens",
    "DatasetReader",
    "Encoder",
    "EndsWork",
    "Example",
    "Examples",
    "Executor",
    "Extension",
    "FailedUnitsError",
    "Float64Array",
    "FloatArray",
    "GenerationOptions",
    "HasGenerationDefaults",
    "IndexSet",
    "IntArray",
    "Intervention",
    "Judgement",
    "KeysValues",
    "Learner",
    "LooksAhead",
    "Metric",
    "Model",
    "ModelIdentity",
    "PictureReference",
    "PixelReader",
    "PreparedSplit",
    "PreparesImages",
    "Progress",
    "Prompt",
    "PromptTokens",
    "QueryResult",
    "QuerySet",
    "ReadReport",
    "Region",
    "ReportsNotes",
    "ReportsStatus",
    "Retriever",
    "Sampler",
    "Scorer",
    "ScoringRequest",
    "ScoringSession",
    "Span",
    "StageReport",
    "SteeringLearner",
    "SteeringSet",
    "SupportsDecoderHooks",
    "SupportsImageCache",
    "SupportsPrefixCache",
    "SupportsTuning",
    "TargetScore",
    "Task",
    "TasksDependOnFiles",
    "TrainableEncoder",
    "TrainingOutcome",
    "TrainingSet",
    "TuningLearner",
    "TuningSet",
    "UnitFailure",
    "Valuation",
    "file_exists",
    "keyed_generator",
    "open_file",
    "open_picture",
    "picture_file",
    "picture_reference",
    "with_regions",
)
_ERRORS = ("ConfigError", "DataError", "IclError", "IclWarning", "PluginError", "StoreError")
_PLUGIN = ("Registration", "hookimpl")
#: What adapters share, and where each is.
_ADAPTERS = {
    "CaptionerFormat": "captioner_format",
    "LoadOptions": "loading",
    "PictureReader": "augmentation",
    "PromptFormat": "prompt_format",
    "TaskFormat": "prompt_format",
    "TokenizedPrompt": "tokens",
    "Weights": "weights",
    "answers_at": "decoder_hooks",
    "apply_tuned": "tuned",
    "as_in_file": "tokenizer_file",
    "attention_heads": "decoder_hooks",
    "batches_by_length": "tokens",
    "clean_caption": "captioner_format",
    "evaluating": "tuning",
    "find_weights": "weights",
    "fingerprint": "weights",
    "read_card": "tuning",
    "read_image": "images",
    "read_tuned": "tuned",
    "save_tuned": "tuned",
    "target_scores": "scoring",
    "template_hash": "decoder_hooks",
    "tensor_names": "tuned",
    "tokenize": "tokens",
    "until_end": "tuning",
    "trained_search": "tuning",
    "weights_hash": "weights",
    "write_card": "tuning",
}
#: What interventions and the learners that make them share, and where each is.
_STEERING = {
    "Draws": "learners.steering.draws",
    "about_steering": "learners.steering.card",
    "answer_batches": "learners.steering.answers",
    "changed_inputs": "interventions.hooks",
    "changed_outputs": "interventions.hooks",
    "check_base": "interventions.files",
    "expect_method": "interventions.stored",
    "features_of": "learners.steering.answers",
    "held_out": "learners.steering.draws",
    "hooked_model": "learners.steering.answers",
    "last_states": "learners.steering.activations",
    "read_intervention": "interventions.files",
    "save_intervention": "interventions.files",
    "target_log_probs": "learners.steering.answers",
    "write_intervention": "learners.steering.card",
}
_HOME = {
    **dict.fromkeys(_CONTRACTS, "icltool.contracts"),
    **dict.fromkeys(_ERRORS, "icltool.errors"),
    **dict.fromkeys(_PLUGIN, "icltool.plugin"),
    **{name: f"icltool.components.models.shared.{module}" for name, module in _ADAPTERS.items()},
    **{name: f"icltool.components.{module}" for name, module in _STEERING.items()},
}

__all__ = ["__version__", *sorted(_HOME)]

if TYPE_CHECKING:
    from icltool.components.interventions.files import check_base as check_base
    from icltool.components.interventions.files import read_intervention as read_intervention
    from icltool.components.interventions.files import save_intervention as save_intervention
    from icltool.components.interventions.hooks import changed_inputs as changed_inputs
    from icltool.components.interventions.hooks import changed_outputs as changed_outputs
    from icltool.components.interventions.stored import expect_method as expect_method
    from icltool.components.learners.steering.activations import last_states as last_states
    from icltool.components.learners.steering.answers import answer_batches as answer_batches
    from icltool.components.learners.steering.answers import features_of as features_of
    from icltool.components.learners.steering.answers import hooked_model as hooked_model
    from icltool.components.learners.steering.answers import target_log_probs as target_log_probs
    from icltool.components.learners.steering.card import about_steering as about_steering
    from icltool.components.learners.steering.card import write_intervention as write_intervention
    from icltool.components.learners.steering.draws import Draws as Draws
    from icltool.components.learners.steering.draws import held_out as held_out
    from icltool.components.models.shared.augmentation import PictureReader as PictureReader
    from icltool.components.models.shared.captioner_format import CaptionerFormat as CaptionerFormat
    from icltool.components.models.shared.captioner_format import clean_caption as clean_caption
    from icltool.components.models.shared.decoder_hooks import answers_at as answers_at
    from icltool.components.models.shared.decoder_hooks import attention_heads as attention_heads
    from icltool.components.models.shared.decoder_hooks import template_hash as template_hash
    from icltool.components.models.shared.images import read_image as read_image
    from icltool.components.models.shared.loading import LoadOptions as LoadOptions
    from icltool.components.models.shared.prompt_format import PromptFormat as PromptFormat
    from icltool.components.models.shared.prompt_format import TaskFormat as TaskFormat
    from icltool.components.models.shared.scoring import target_scores as target_scores
    from icltool.components.models.shared.tokenizer_file import as_in_file as as_in_file
    from icltool.components.models.shared.tokens import TokenizedPrompt as TokenizedPrompt
    from icltool.components.models.shared.tokens import batches_by_length as batches_by_length
    from icltool.components.models.shared.tokens import tokenize as tokenize
    from icltool.components.models.shared.tuned import apply_tuned as apply_tuned
    from icltool.components.models.shared.tuned import read_tuned as read_tuned
    from icltool.components.models.shared.tuned import save_tuned as save_tuned
    from icltool.components.models.shared.tuned import tensor_names as tensor_names
    from icltool.components.models.shared.tuning import evaluating as evaluating
    from icltool.components.models.shared.tuning import read_card as read_card
    from icltool.components.models.shared.tuning import trained_search as trained_search
    from icltool.components.models.shared.tuning import until_end as until_end
    from icltool.components.models.shared.tuning import write_card as write_card
    from icltool.components.models.shared.weights import Weights as Weights
    from icltool.components.models.shared.weights import find_weights as find_weights
    from icltool.components.models.shared.weights import fingerprint as fingerprint
    from icltool.components.models.shared.weights import weights_hash as weights_hash
    from icltool.contracts import *  # noqa: F403
    from icltool.errors import ConfigError as ConfigError
    from icltool.errors import DataError as DataError
    from icltool.errors import IclError as IclError
    from icltool.errors import IclWarning as IclWarning
    from icltool.errors import PluginError as PluginError
    from icltool.errors import StoreError as StoreError
    from icltool.plugin import Registration as Registration
    from icltool.plugin import hookimpl as hookimpl


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'icltool' has no attribute {name!r}")
