"""The public names, and where each is: type checkers read this file, and `icltool` itself does when a name is first used."""

from __future__ import annotations

from icltool.components.interventions.files import (
    check_base as check_base,
    read_intervention as read_intervention,
    save_intervention as save_intervention,
)
from icltool.components.interventions.hooks import (
    changed_inputs as changed_inputs,
    changed_outputs as changed_outputs,
)
from icltool.components.interventions.stored import (
    expect_method as expect_method,
)
from icltool.components.learners.interventions.activations import (
    last_states as last_states,
)
from icltool.components.learners.interventions.answers import (
    answer_batches as answer_batches,
    features_of as features_of,
    hooked_model as hooked_model,
    target_log_probs as target_log_probs,
)
from icltool.components.learners.interventions.card import (
    about_intervention as about_intervention,
    write_intervention as write_intervention,
)
from icltool.components.learners.interventions.draws import (
    Draws as Draws,
    held_out as held_out,
)
from icltool.components.models.shared.adapter import (
    Adapter as Adapter,
    EncodesImages as EncodesImages,
)
from icltool.components.models.shared.augmentation import (
    ImageReader as ImageReader,
)
from icltool.components.models.shared.captioner_format import (
    CaptionerFormat as CaptionerFormat,
    clean_caption as clean_caption,
)
from icltool.components.models.shared.cross_attention_prefix_cache import (
    CrossAttentionPrefixCache as CrossAttentionPrefixCache,
)
from icltool.components.models.shared.decoder_hooks import (
    answers_at as answers_at,
    attention_heads as attention_heads,
    template_hash as template_hash,
)
from icltool.components.models.shared.fine_tuned import (
    apply_fine_tuned as apply_fine_tuned,
    read_fine_tuned as read_fine_tuned,
    save_fine_tuned as save_fine_tuned,
    tensor_names as tensor_names,
)
from icltool.components.models.shared.fine_tuning import (
    evaluating as evaluating,
    read_card as read_card,
    trained_search as trained_search,
    until_end as until_end,
    write_card as write_card,
)
from icltool.components.models.shared.images import (
    read_image as read_image,
)
from icltool.components.models.shared.options import (
    LoadOptions as LoadOptions,
)
from icltool.components.models.shared.prefix_cache import (
    PaddedSpans as PaddedSpans,
    PredictingPositions as PredictingPositions,
)
from icltool.components.models.shared.prompt_format import (
    PromptFormat as PromptFormat,
    own_prompt as own_prompt,
    segments as segments,
)
from icltool.components.models.shared.scoring import (
    beam_options as beam_options,
    target_scores as target_scores,
)
from icltool.components.models.shared.tokenizer_file import (
    as_in_file as as_in_file,
)
from icltool.components.models.shared.tokens import (
    PaddedRows as PaddedRows,
    TokenizedPrompt as TokenizedPrompt,
    batches_by_length as batches_by_length,
    in_batches as in_batches,
    padded_rows as padded_rows,
    predicting as predicting,
    tokenize as tokenize,
)
from icltool.components.models.shared.weights import (
    Weights as Weights,
    find_weights as find_weights,
    fingerprint as fingerprint,
    weights_hash as weights_hash,
)
from icltool.contracts import (
    AnchorScores as AnchorScores,
    AnswerBatch as AnswerBatch,
    AttentionHeads as AttentionHeads,
    Augmentation as Augmentation,
    BeamSample as BeamSample,
    ChoosingSession as ChoosingSession,
    CorpusMetric as CorpusMetric,
    CountsTokens as CountsTokens,
    DatasetReader as DatasetReader,
    Encoder as Encoder,
    EndsWork as EndsWork,
    EvaluationLearner as EvaluationLearner,
    EvaluationSet as EvaluationSet,
    Example as Example,
    Examples as Examples,
    Executor as Executor,
    FailedUnitsError as FailedUnitsError,
    Features as Features,
    FineTuningLearner as FineTuningLearner,
    FineTuningSet as FineTuningSet,
    Float64Array as Float64Array,
    FloatArray as FloatArray,
    GeneratesFromPrefix as GeneratesFromPrefix,
    GenerationOptions as GenerationOptions,
    HasGenerationDefaults as HasGenerationDefaults,
    HoldsConversations as HoldsConversations,
    ImageReference as ImageReference,
    IndexSet as IndexSet,
    IntArray as IntArray,
    Intervention as Intervention,
    InterventionLearner as InterventionLearner,
    InterventionSet as InterventionSet,
    Judgement as Judgement,
    KeysValues as KeysValues,
    Learner as Learner,
    LimitsTokens as LimitsTokens,
    LooksAhead as LooksAhead,
    Metric as Metric,
    Model as Model,
    ModelIdentity as ModelIdentity,
    Options as Options,
    PixelReader as PixelReader,
    PrefixExtension as PrefixExtension,
    PreparedSplit as PreparedSplit,
    PreparesImages as PreparesImages,
    Progress as Progress,
    Prompt as Prompt,
    PromptFile as PromptFile,
    PromptRenderer as PromptRenderer,
    PromptTokens as PromptTokens,
    QueryResult as QueryResult,
    QuerySet as QuerySet,
    ReadReport as ReadReport,
    Region as Region,
    RendersPrompts as RendersPrompts,
    ReportsNotes as ReportsNotes,
    ReportsStatus as ReportsStatus,
    RetrievalExamples as RetrievalExamples,
    Retriever as Retriever,
    Sampler as Sampler,
    Scorer as Scorer,
    ScoringRequest as ScoringRequest,
    ScoringSession as ScoringSession,
    SequenceFigures as SequenceFigures,
    Span as Span,
    StageReport as StageReport,
    SupportsDecoderHooks as SupportsDecoderHooks,
    SupportsFineTuning as SupportsFineTuning,
    SupportsImageCache as SupportsImageCache,
    SupportsPrefixCache as SupportsPrefixCache,
    TargetScore as TargetScore,
    Task as Task,
    TaskFormat as TaskFormat,
    TasksDependOnFiles as TasksDependOnFiles,
    TrainableEncoder as TrainableEncoder,
    TrainingOutcome as TrainingOutcome,
    TrainingSet as TrainingSet,
    UnitFailure as UnitFailure,
    Valuation as Valuation,
    file_exists as file_exists,
    image_file as image_file,
    image_reference as image_reference,
    keyed_generator as keyed_generator,
    open_file as open_file,
    open_image as open_image,
    packaged_task as packaged_task,
    read_task as read_task,
    task_name as task_name,
    with_regions as with_regions,
)
from icltool.errors import (
    ConfigError as ConfigError,
    DataError as DataError,
    IclError as IclError,
    IclWarning as IclWarning,
    MissingWeightsError as MissingWeightsError,
    PluginError as PluginError,
    StoreError as StoreError,
)
from icltool.plugin import (
    Registration as Registration,
    hookimpl as hookimpl,
)
from icltool.releases import __version__ as __version__
from icltool.store.subsets import Subset as Subset, read_subset as read_subset, write_subset as write_subset
