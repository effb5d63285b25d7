"""Options of `icltool evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from icltool.config.executor import ExecutorConfig
from icltool.config.generation import GenerationConfig

_HIDDEN: dict[str, Any] = {"hidden_in_artefact": True}


class EvaluateConfig(GenerationConfig, ExecutorConfig):
    """Answer the queries with the demonstrations that each method chooses, and score the answers.

    Reads the prepared data set, its embeddings and the trained selector (as far as the methods need them), writes
    predictions, exact prompts, chosen demonstrations and results. Shows figures with 95 % intervals, paired differences
    between the methods, and what lies behind them: copied answers, gains over zero-shot, leaks, the effect of order.

        icltool evaluate --method random --method i2i --shots 1,2,4

        icltool evaluate --method zero-shot,random,i2i --seed 0,1,2 --permutations 4

        icltool evaluate --plan i2i-plan.json --model idefics-9b-instruct

    Interventions (live, from `icltool train live`) are compared with demonstrations, and what each costs per query:

        icltool evaluate --method zero-shot,random,live --shots 1,4,8
    """

    dataset: str | None = Field(
        default=None,
        description="prepared data set; none: the only one there is",
        json_schema_extra={"complete": "datasets"},
    )
    task: str | None = Field(
        default=None, description="caption, vqa or classification; none: the data set's first task"
    )
    methods: tuple[str, ...] = Field(
        default=("random",),
        description="retrieval methods to compare; what stands in for demonstrations (live …) and the model as `icltool train "
        "captioner` fine-tuned it (finetuned), without shots. Options of one stand behind its name (mmr:pool=50), a label "
        "before it (A=lever-lm:checkpoint=DIR). i2i+mmr: mmr chooses among what i2i chose",
        json_schema_extra={"flag": "--method", "complete": "retrievers,interventions", "hidden_in_artefact": True},
    )
    vectors: tuple[Path, ...] = Field(
        default=(),
        description="files, or checkpoint folders, of the methods that stand in for demonstrations; each says whose it is, and "
        "without --method those are evaluated. None: the newest that `icltool train` made for the data set and the model",
        json_schema_extra=_HIDDEN,
    )
    plans: tuple[Path, ...] = Field(
        default=(),
        description="plan files to replay, each a method named after its file; without --method and --shots these alone, "
        "at their own number of shots",
        json_schema_extra={"flag": "--plan", "hidden_in_artefact": True},
    )
    shots: tuple[int, ...] = Field(default=(4,), description="demonstrations per prompt", json_schema_extra=_HIDDEN)
    seeds: tuple[int, ...] = Field(
        default=(0,),
        description="seeds of methods that draw; the table shows the mean over them (a method that gives every seed the "
        "same demonstrations is answered once)",
        json_schema_extra={"flag": "--seed", "hidden_in_artefact": True},
    )
    permutations: int = Field(
        default=1,
        ge=1,
        description="orders of each query's demonstrations that are answered, the method's own among them; the others are "
        "drawn by seed. Tells how much the answers depend on the order",
        json_schema_extra=_HIDDEN,
    )
    leak_guard: tuple[Literal["image", "question", "text"], ...] | None = Field(
        default=None,
        description="demonstrations that no query is shown: of its image or near-duplicates (image, always), with its "
        "question (question), or whose whole text is its question with its answer (text; captions: one of its captions). "
        "None: image,text for captions, else image: equal questions about other images are ordinary demonstrations, and "
        "text would look at the answer",
        json_schema_extra={"hidden_in_artefact": True},
    )
    metrics: tuple[str, ...] = Field(
        default=(),
        description="metrics; none: the task's own (classification: accuracy, macro-f1, and auc with two labels)",
        json_schema_extra={"flag": "--metric", "complete": "metrics"},
    )
    encoder: str | None = Field(
        default=None,
        description="whose embeddings the methods use; none: the only ones there are",
        json_schema_extra={"complete": "encoders", "hidden_in_artefact": True},
    )
    checkpoint: Path | None = Field(
        default=None,
        description="folder of a trained selector or a fine-tuned captioner, or one file of its weights; none: the newest",
        json_schema_extra=_HIDDEN,
    )
    checkpoint_choice: Literal["min_vl", "min_tl", "last"] = Field(
        default="min_vl",
        description="weights of the lowest validation loss, the lowest training loss, or the last",
        json_schema_extra=_HIDDEN,
    )
    method_options: dict[str, Any] = Field(
        default_factory=dict,
        description="options of a method, as METHOD.NAME=VALUE, of one in A+B, too",
        json_schema_extra={"flag": "--method-option", "hidden_in_artefact": True},
    )
    cost: bool | None = Field(
        default=None,
        description="measure prompt tokens, FLOPs and seconds per query, on a few queries answered alone; none: where a method "
        "stands in for demonstrations",
        json_schema_extra=_HIDDEN,
    )
    csv: Path | None = Field(
        default=None,
        description="table that the results are appended to, a row for each setting with all that it depends on",
        json_schema_extra=_HIDDEN,
    )
    reversed_order: bool = Field(
        default=True,
        description="similarity methods: the most similar demonstration stands last, next to the query",
        json_schema_extra=_HIDDEN,
    )
    index_size: int = Field(
        default=-1, ge=-1, description="examples of the index set to choose from, drawn by seed; -1 all"
    )
    index_subset: Path | None = Field(
        default=None,
        description="file of the ids that the index set is restricted to: what a learner of subsets wrote, "
        "or a list, one id a line. One that was learned from validation queries is refused",
        json_schema_extra=_HIDDEN,
    )
    queries: Literal["train", "validation"] = Field(
        default="validation",
        description="split that is asked: train, to learn from the answers, which asks --query-size examples of the index set "
        "and demonstrates with the others",
        json_schema_extra=_HIDDEN,
    )
    query_size: int | None = Field(
        default=None, ge=1, description="queries of --queries train, drawn by example id", json_schema_extra=_HIDDEN
    )
    test_size: int = Field(default=-1, ge=-1, description="queries of the validation split, drawn by seed; -1 all")
    overwrite: bool = Field(default=False, description="evaluate finished settings again", json_schema_extra=_HIDDEN)
