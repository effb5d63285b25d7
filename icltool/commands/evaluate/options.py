"""Options of `icltool evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from icltool.config.base import HIDDEN
from icltool.config.choices import ChoiceConfig
from icltool.config.executor import ExecutorConfig
from icltool.config.generation import GenerationConfig
from icltool.contracts.json import Json

_DATA: dict[str, Any] = {**HIDDEN, "group": "Data"}
_SHOWN: dict[str, Any] = {**HIDDEN, "group": "Demonstrations"}
_OUTPUT: dict[str, Any] = {**HIDDEN, "group": "Output"}


class EvaluateConfig(GenerationConfig, ChoiceConfig, ExecutorConfig):
    """Answer queries with the demonstrations that each method chooses, and score the answers.

    Reads a prepared data set and, if a method needs them, embeddings and what `icltool train` wrote. Writes predictions,
    prompts, demonstrations and results to the workspace. Rerun an interrupted command to resume.

        icltool evaluate --model tiny-idefics --method random --shots 2
        icltool evaluate --method zero-shot,i2i,mmr --shots 1,2,4 --seed 0,1,2
        icltool evaluate --method random,live --test-size 200
        icltool evaluate --suite vl-icl --model idefics2-8b-base
    """

    dataset: str | None = Field(
        default=None,
        description="prepared data set of queries and demonstrations",
        json_schema_extra={
            "group": "Data",
            "daily": True,
            "complete": "datasets",
            "default": "the only prepared data set",
        },
    )
    suite: str | None = Field(
        default=None,
        description="evaluate all prepared data sets of a suite with its settings, in one table: open-flamingo, vl-icl, or the "
        "path of a TOML file; options on the command line win",
        json_schema_extra={**_DATA, "daily": True, "metavar": "NAME|FILE"},
    )
    task: str | None = Field(
        default=None,
        description="task, such as caption, vqa or classification",
        json_schema_extra={"group": "Data", "daily": True, "default": "the first task of the data set"},
    )
    index_dataset: str | None = Field(
        default=None,
        description="prepared data set to take the demonstrations from, of the same task; queries and prompts are those of "
        "--dataset",
        json_schema_extra={**_DATA, "complete": "datasets", "default": "the data set of the queries"},
    )
    methods: tuple[str, ...] = Field(
        default=("random",),
        description="methods to compare: zero-shot, retrievers (random, i2i, mmr …), selectors (lever-lm, pointer), "
        "interventions (live, function-vector, lora …) or finetuned (the result of `icltool train captioner`). "
        "NAME:OPTION=VALUE sets an option, LABEL=NAME a label; with A+B, B chooses among the demonstrations that A chose",
        json_schema_extra={
            **_SHOWN,
            "daily": True,
            "flag": "--method",
            "aliases": ["--methods"],
            "complete": "retrievers,interventions",
        },
    )
    vectors: tuple[Path, ...] = Field(
        default=(),
        description="files or checkpoint folders of trained interventions; without --method, only these are evaluated",
        json_schema_extra={**_SHOWN, "default": "the newest of the data set and the model"},
    )
    plans: tuple[Path, ...] = Field(
        default=(),
        description="plan files to replay, each as a method named after its file; without --method and --shots, only these are "
        "evaluated, with their own number of shots",
        json_schema_extra={**_SHOWN, "flag": "--plan"},
    )
    shots: tuple[int, ...] = Field(
        default=(4,),
        description="numbers of demonstrations per prompt, such as 1,2,4",
        json_schema_extra={**_SHOWN, "daily": True, "aliases": ["--num-fewshot"]},
    )
    zero_shot_text: int = Field(
        default=0,
        ge=0,
        description="demonstrations to show as text, without their images, in zero-shot prompts, drawn at random; "
        "OpenFlamingo's published zero-shot results have 2",
        json_schema_extra={"group": "Demonstrations"},
    )
    seeds: tuple[int, ...] = Field(
        default=(0,),
        description="random seeds of the methods, such as 0,1,2; the table shows the mean over them",
        json_schema_extra={**_SHOWN, "daily": True, "flag": "--seed", "aliases": ["--seeds"]},
    )
    permutations: int = Field(
        default=1,
        ge=1,
        description="orders of each query's demonstrations to try, which shows how much the answers depend on the order; the "
        "first is the method's own, the others are random",
        json_schema_extra=_SHOWN,
    )
    leak_guard: tuple[Literal["image", "question", "text"], ...] | None = Field(
        default=None,
        description="demonstrations to withhold from a query: those with its image or a near-duplicate (image, always on), "
        "with its question (question), or whose text is its question and answer or one of its captions (text)",
        json_schema_extra={**_SHOWN, "default": "that of the task: image,text for captions, else image"},
    )
    metrics: tuple[str, ...] = Field(
        default=(),
        description="metrics to compute, such as cider or vqa-accuracy",
        json_schema_extra={
            "group": "Output",
            "daily": True,
            "flag": "--metric",
            "aliases": ["--metrics"],
            "complete": "metrics",
            "default": "those of the task",
        },
    )
    encoder: str | None = Field(
        default=None,
        description="encoder whose embeddings the methods read",
        json_schema_extra={**_SHOWN, "complete": "encoders", "default": "the only encoder with embeddings"},
    )
    checkpoint: Path | None = Field(
        default=None,
        description="folder of a trained selector or a fine-tuned captioner, or one of its weights files",
        json_schema_extra={**_SHOWN, "daily": True, "default": "the newest"},
    )
    checkpoint_choice: Literal["min_vl", "min_tl", "last"] = Field(
        default="min_vl",
        description="weights of the selector: those with the lowest validation loss, the lowest training loss, or the last",
        json_schema_extra=_SHOWN,
    )
    method_options: dict[str, Any] = Field(
        default_factory=dict,
        description="option of a method, as METHOD.OPTION=VALUE; repeatable. `icltool plugins show retrievers METHOD` lists "
        "them",
        json_schema_extra={**_SHOWN, "flag": "--method-option"},
    )
    cost: bool | None = Field(
        default=None,
        description="measure prompt tokens, FLOPs and seconds per query, on a few queries answered one at a time",
        json_schema_extra={**_OUTPUT, "default": "on if an intervention is evaluated"},
    )
    csv: Path | None = Field(
        default=None,
        description="CSV file to append the results to, with one row per setting",
        json_schema_extra=_OUTPUT,
    )
    reversed_order: bool = Field(
        default=True,
        description="similarity methods: put the most similar demonstration last, next to the query",
        json_schema_extra=_SHOWN,
    )
    index_size: int = Field(
        default=-1,
        ge=-1,
        description="examples of the index set to choose demonstrations from, drawn at random; -1 for all",
        json_schema_extra={"group": "Demonstrations", "default": "all"},
    )
    index_per_label: int | None = Field(
        default=None,
        ge=1,
        description="number of examples of each label to choose demonstrations from, drawn at random",
        json_schema_extra={**_SHOWN, "default": "all"},
    )
    index_subset: Path | None = Field(
        default=None,
        description="file that restricts the index set: what a learner of subsets wrote, or one example id per line. A subset "
        "learned from validation queries is refused",
        json_schema_extra=_SHOWN,
    )
    queries: Literal["train", "validation"] = Field(
        default="validation",
        description="split that queries are drawn from; with train, for learning from the answers, --query-size examples of "
        "the index set are queries and the others are demonstrations",
        json_schema_extra=_DATA,
    )
    query_size: int | None = Field(
        default=None,
        ge=1,
        description="number of queries with --queries train, drawn at random",
        json_schema_extra=_DATA,
    )
    test_size: int = Field(
        default=-1,
        ge=-1,
        description="number of validation queries, drawn at random; -1 for all",
        json_schema_extra={"group": "Data", "daily": True, "aliases": ["--limit"], "default": "all"},
    )
    overwrite: bool = Field(
        default=False,
        description="repeat settings that were evaluated before",
        json_schema_extra={**_OUTPUT, "daily": True},
    )

    def identity(self) -> dict[str, Json]:
        """See StageConfig. What later releases added is left out if it is not set, so that results keep their identity."""
        values = super().identity()
        if not values["zero_shot_text"]:
            del values["zero_shot_text"]
        return values
