"""The nouns of icltool: records, and one small protocol for each kind of component. Imports nothing else of icltool's."""

from icltool.contracts.arrays import Float64Array, FloatArray, IndexSet, IntArray, QuerySet, group_code
from icltool.contracts.dataset import (
    DatasetReader,
    MakesFiles,
    PreparedSplit,
    ReadReport,
    SupportsVerification,
    TasksDependOnFiles,
)
from icltool.contracts.encoder import Encoder, TrainableEncoder
from icltool.contracts.executor import Executor
from icltool.contracts.files import archive_and_member, archive_members, file_exists, open_file
from icltool.contracts.intervention import (
    AnswerBatch,
    AttentionHeads,
    Intervention,
    ModelIdentity,
    SupportsDecoderHooks,
)
from icltool.contracts.learner import (
    Examples,
    Learner,
    SteeringLearner,
    SteeringSet,
    TrainingOutcome,
    TrainingSet,
)
from icltool.contracts.metric import CorpusMetric, Judgement, Metric
from icltool.contracts.model import (
    ContinuesFromPrefix,
    CountsTokens,
    Extension,
    GenerationOptions,
    HasGenerationDefaults,
    KeysValues,
    Model,
    PreparesImages,
    Prompt,
    PromptTokens,
    Span,
    SupportsImageCache,
    SupportsPrefixCache,
    TargetScore,
)
from icltool.contracts.pictures import (
    SHOW_MODES,
    PictureReference,
    Region,
    picture_file,
    picture_reference,
    with_regions,
)
from icltool.contracts.progress import Progress, Ticker
from icltool.contracts.randomness import keyed_generator
from icltool.contracts.records import CAPTION_TASKS, TASKS, Example, QueryResult, Task, task_named
from icltool.contracts.report import StageReport
from icltool.contracts.retriever import Retriever
from icltool.contracts.sampler import Sampler
from icltool.contracts.scorer import Scorer, ScoringRequest, ScoringSession, Valuation
from icltool.contracts.tuning import (
    Augmentation,
    BeamSample,
    PixelReader,
    SupportsTuning,
    TuningLearner,
    TuningSet,
)

__all__ = [
    "CAPTION_TASKS",
    "SHOW_MODES",
    "TASKS",
    "AnswerBatch",
    "AttentionHeads",
    "Augmentation",
    "BeamSample",
    "ContinuesFromPrefix",
    "CorpusMetric",
    "CountsTokens",
    "DatasetReader",
    "Encoder",
    "Example",
    "Examples",
    "Executor",
    "Extension",
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
    "MakesFiles",
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
    "SupportsVerification",
    "TargetScore",
    "Task",
    "TasksDependOnFiles",
    "Ticker",
    "TrainableEncoder",
    "TrainingOutcome",
    "TrainingSet",
    "TuningLearner",
    "TuningSet",
    "Valuation",
    "archive_and_member",
    "archive_members",
    "file_exists",
    "group_code",
    "keyed_generator",
    "open_file",
    "picture_file",
    "picture_reference",
    "task_named",
    "with_regions",
]
