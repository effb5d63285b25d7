"""A task: what is asked of a model, how its answer is made and cut, and how it is judged. Each is one TOML file."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, Field as DataclassField, dataclass, field, fields
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from icltool.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

#: What an example may hold beside its label: "image", "question", "text", "style", "choices", "rationale" (Example's own
#: fields), or any other name, which is one of Example.fields.
ExampleField = Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_]*$")]
#: Example's own fields among them.
OWN_FIELDS = ("image", "question", "text", "style", "choices", "rationale")
#: How an example's answers stand in a table: all captions of an image, over several rows; one caption a row; the answers
#: of several people to a question; the label of a class.
Answers = Literal["captions", "caption", "answers", "label"]

#: How the answer is chosen among an example's choices: the most probable text, or the most probable letter where the prompt
#: lists the choices as "A. …"; or the model writes a letter.
RankBy = Literal["text", "letter", "generate"]
#: How the log-probabilities of a choice's tokens are combined.
RankNorm = Literal["mean", "sum"]
#: What is taken from a continuation as the answer, beside a regular expression.
NamedExtract = Literal["first-line", "number", "yes-no", "letter"]
_NAMED_EXTRACTS: tuple[str, ...] = ("first-line", "number", "yes-no", "letter")

#: Fields that a representation names only if they are set.
_LATER = ("closing", "system", "demonstration", "answer", "separator", "after_image", "label_words")
_PLACEHOLDER = re.compile(r"\{(\w+)\}")


class Pattern(BaseModel):
    """A regular expression with one group, which is the answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    regex: str

    @model_validator(mode="after")
    def _compiles(self) -> Pattern:
        try:
            groups = re.compile(self.regex).groups
        except re.error as error:
            raise ValueError(f"{self.regex!r} is not a regular expression: {error}") from error
        if groups != 1:
            raise ValueError(f"the regular expression needs exactly one group, the answer; {self.regex!r} has {groups}")
        return self


def _extract(value: object) -> object:
    if value is None or isinstance(value, Pattern) or value in _NAMED_EXTRACTS:
        return value
    if isinstance(value, Mapping) and set(value) == {"regex"} and isinstance(value["regex"], str):
        return Pattern(regex=value["regex"])
    names = ", ".join(f'"{name}"' for name in _NAMED_EXTRACTS)
    raise ValueError(f'must be {names} or {{ regex = "…" }}, got {value!r}')


Extract = Annotated[NamedExtract | Pattern, BeforeValidator(_extract)]


@dataclass(frozen=True, repr=False)
class TaskFormat:
    """How one template asks for the answer of one task, and cuts it out of what a model writes.

    `query` is the text between the image and the label, with the name of a field in braces ({question}, {text}, {choices} …)
    where the example's own goes. `stop` are the words that begin the next example in a run-on answer; `cut_at_comma` drops
    everything from the first ", " on (VQA answers are short). `instruction` stands once, before the first image. `closing` is
    the text that follows each label, in demonstrations and in the target; what is left of it is dropped from the end of an
    answer.

    `demonstration` is the `query` of a demonstration, if it has another one. `answer` is how an answer is written, with
    {label} and {rationale}; `label_words` are the words that prompts write for labels. `separator` is the text after a
    demonstration (None: the model family's own), `after_image` that after each image before the `query`. `system` is the
    system turn of a conversation; a model that continues a text has none.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    query: str
    stop: tuple[str, ...] = ()
    instruction: str = ""
    cut_at_comma: bool = False
    closing: str = ""
    system: str = ""
    demonstration: str = ""
    answer: str = "{label}"
    separator: str | None = None
    after_image: str = ""
    label_words: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __repr__(self) -> str:
        return representation(self, later=_LATER)

    def word(self, label: str) -> str:
        """What a prompt writes for a label."""
        return self.label_words.get(label, label)

    def label(self, answer: str) -> str:
        """The label that an answer means: that of its word, else the answer itself."""
        return next((label for label, word in self.label_words.items() if word == answer), answer)


class Task(BaseModel):
    """What is asked of the model, and how its answers are made and judged.

    `prompts` are the ways to ask for an answer by the name of a template: "completion", which every task has and which is
    taken where a template has no way of its own; "lever-lm", "live"; "chat" (a user's turn); "captioner" (models that were
    made to describe one image: no demonstrations, no fallback).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", description="what --task takes")]
    fields: Annotated[tuple[ExampleField, ...], Field(description="what an example needs beside its label")] = (
        "image",
    )
    optional: Annotated[tuple[ExampleField, ...], Field(description="what it may have besides")] = ()
    answers: Annotated[Answers, Field(description="how the answers stand in a table")] = "label"
    names: Annotated[
        dict[str, str], Field(description="what fields and labels are called where that is not their own name")
    ] = {}
    sentences: Annotated[bool, Field(description="whether labels are sentences about an image, as captions are")] = (
        False
    )
    metrics: Annotated[tuple[str, ...], Field(min_length=1, description="what it is judged by, the main one first")]
    guard: Annotated[
        tuple[Literal["text", "question"], ...],
        Field(description="what no demonstration may share with its query beside its image"),
    ] = ()
    ranked: Annotated[
        bool, Field(description="the answer is the most probable of the example's choices, and nothing is written")
    ] = False
    max_new_tokens: Annotated[int, Field(ge=1, description="tokens of an answer at most")] = 20
    num_beams: Annotated[int, Field(ge=1, description="beams of the search for an answer")] = 3
    length_penalty: Annotated[float, Field(description="exponent of the length in a beam's score")] = 0.0
    prompts: Annotated[dict[str, TaskFormat], Field(description="how each template asks, by its name")] = {}
    extract: Annotated[Extract | None, Field(description="what is taken from a continuation as the answer")] = None
    rank_by: Annotated[RankBy, Field(description="how the answer is chosen among the choices")] = "text"
    rank_norm: Annotated[RankNorm, Field(description="how the log-probabilities of a choice's tokens are combined")] = (
        "mean"
    )
    letter_rule: Annotated[str, Field(description="how a letter is read in a written answer")] = "strict"
    letter_prompts: Annotated[
        dict[str, TaskFormat],
        Field(description="how each template asks where {choices} are listed and the answer is a letter"),
    ] = {}
    image_prompts: Annotated[
        dict[str, TaskFormat], Field(description="how each template asks in data sets without the texts of `fields`")
    ] = {}

    @model_validator(mode="after")
    def _fits(self) -> Task:
        held = {*self.fields, *self.optional}
        tables = {"prompts": self.prompts, "letter_prompts": self.letter_prompts, "image_prompts": self.image_prompts}
        for table, prompts in tables.items():
            if prompts and "completion" not in prompts:
                raise ValueError(f'{table} need one for "completion"')
            for template, prompt in prompts.items():
                missing = sorted(set(_PLACEHOLDER.findall(prompt.query)) - held)
                if missing:
                    raise ValueError(f"the prompt for {template} asks for {{{missing[0]}}}, which is not a field")
        if self.letter_prompts:
            _list_choices("letter_prompts", self.letter_prompts)
        if self.rank_by != "text" and not self.ranked:
            raise ValueError(f'rank_by = "{self.rank_by}" is for tasks with ranked = true')
        if self.ranked and self.extract is not None:
            raise ValueError("extract is for answers that the model writes, and ranked = true ranks choices")
        if (self.rank_by != "text" and not self.letter_prompts) or self.extract == "letter":
            _list_choices("prompts", self.prompts)
        return self

    @property
    def metric(self) -> str:
        """The metric it is judged by first."""
        return self.metrics[0]

    @cached_property
    def asked_field(self) -> Literal["", "question", "text", "style"]:
        """The field that says what is asked about the image, as pages and exports show it; "" where only the image is."""
        for one in ("question", "text", "style"):
            if one in self.fields:
                return one
        return ""

    @property
    def own_text(self) -> bool:
        """Whether the text by which examples are compared is the very one that is to be written."""
        return self.answers in ("captions", "caption") and not {"question", "text"} & set(self.fields)

    @property
    def textless(self) -> bool:
        """Whether an example needs a label, and no text that it is the label of. The text of a demonstration is then its label,
        and that of a query is empty."""
        return self.answers == "label" and not {"question", "text"} & set(self.fields)

    @property
    def lettered(self) -> bool:
        """Whether prompts show the letter of an example's label."""
        return self.rank_by != "text" or self.extract == "letter"

    @property
    def has_choices(self) -> bool:
        """Whether an answer is one of the example's choices."""
        return self.ranked or self.extract == "letter"

    def ranked_by(self, how: RankBy | None, norm: RankNorm | None = None, rule: str | None = None) -> Task:
        """The task with its answers chosen among the choices in this way; None stands for the task's own.

        Raises ConfigError for a task that does not rank choices, or has no prompts that list them.
        """
        if not self.ranked:
            if self.extract == "letter" and rule and not how and not norm:
                return self.model_copy(update={"letter_rule": rule})
            option = next(
                (o for o, v in (("--rank-by", how), ("--rank-norm", norm), ("--letter-rule", rule)) if v), None
            )
            if option is not None:
                raise ConfigError(
                    f"{option}: the answers of task {self.name!r} are not ranked choices",
                    f"leave out {option}, or prepare the data set for --task multiple-choice",
                )
            return self
        how = how or self.rank_by
        update: dict[str, Any] = {"rank_by": how, "rank_norm": norm or self.rank_norm}
        update["letter_rule"] = rule or self.letter_rule
        if how != "text":
            update["prompts"] = self.letter_prompts or self.prompts
            if not all("{choices}" in prompt.query for prompt in update["prompts"].values()):
                raise ConfigError(
                    f"--rank-by {how}: the prompts of task {self.name!r} do not list the choices",
                    "--rank-by text, or a task file whose letter_prompts contain {choices}",
                )
        if how == "generate":
            update |= {"ranked": False, "extract": "letter"}
        return self.model_copy(update=update)

    def without_text(self) -> Task:
        """The task for a data set whose examples have images and labels, and no texts."""
        return self.model_copy(
            update={"fields": ("image",), "optional": (), "prompts": self.image_prompts, "image_prompts": {}}
        )

    def definition(self) -> dict[str, Any]:
        """Its keys, as the manifest of a data set holds them: those of LATER_KEYS only if they are set, so that fingerprints
        of tasks that were there before these keys stay as they were."""
        values = self.model_dump(mode="json")
        for table in ("prompts", "letter_prompts", "image_prompts"):
            for template, prompt in getattr(self, table).items():
                unset = {one.name for one in fields(TaskFormat) if getattr(prompt, one.name) == _default(one)}
                content = values[table][template]
                values[table][template] = {k: v for k, v in content.items() if k not in unset & LATER_FORMAT_KEYS}
        unset = {key for key in LATER_KEYS if getattr(self, key) == type(self).model_fields[key].default}
        return {key: value for key, value in values.items() if key not in unset}

    def called(self, one: str) -> str:
        """What a field is called in tables and on pages: "clue" for the question of an inference."""
        return self.names.get(one, one)

    def prompt(self, templates: Iterable[str]) -> TaskFormat:
        """How it is asked by the first of these templates that it knows. ConfigError where it knows none."""
        names = list(templates)
        for template in names:
            if template in self.prompts:
                return self.prompts[template]
        raise ConfigError(
            f"task {self.name!r} has no prompt for the template {names[0]!r}",
            f"its prompts: {', '.join(self.prompts)}",
        )


#: Keys of tasks, and of their prompts, that were added after manifests had been written.
LATER_FORMAT_KEYS = frozenset(("system", "demonstration", "answer", "separator", "after_image", "label_words"))
LATER_KEYS = ("extract", "rank_by", "rank_norm", "letter_rule", "letter_prompts", "image_prompts")


def _list_choices(table: str, prompts: Mapping[str, TaskFormat]) -> None:
    """Raises ValueError for a prompt that does not list the choices whose letter is the answer."""
    without = [template for template, prompt in prompts.items() if "{choices}" not in prompt.query]
    if without or not prompts:
        raise ValueError(f"{'.'.join([table, *without[:1]])} must contain {{choices}}: the answer is the letter of one")


def task_name(task: Task | str) -> str:
    """The name of a task that is given by name or as it is."""
    return task if isinstance(task, str) else task.name


def read_task(path: Path) -> Task:
    """The task in a TOML file. ConfigError, one line with the file and the key, for one that is malformed."""
    try:
        return _parsed(path.read_text("utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no UTF-8 text"
        raise ConfigError(f"task file {path} cannot be read: {reason}", "name a TOML file") from error


def packaged_task(package: str, file: str) -> Task:
    """The task in a TOML file of an installed package: what a Registration of a task names as its target."""
    return _parsed((files(package) / file).read_text("utf-8"), f"{package}/{file}")


def task_from(content: Mapping[str, Any], where: str) -> Task:
    """The task of a mapping, as a data set's manifest holds it. ConfigError for one that is malformed."""
    try:
        return Task(**content)
    except ValidationError as error:
        errors = error.errors()
        unknown = [one for one in errors if one["type"] in ("extra_forbidden", "unexpected_keyword_argument")]
        first = (unknown or errors)[0]
        key = ".".join(str(part) for part in first["loc"])
        reason = "no such key" if unknown else first["msg"].removeprefix("Value error, ")
        hint = _known_keys(first["loc"]) if unknown else "correct it"
        raise ConfigError(f"{where}: {key}: {reason}" if key else f"{where}: {reason}", hint) from error


def _known_keys(location: Sequence[int | str]) -> str:
    """The hint for an unknown key: the nearest key, and all that there are."""
    of_prompt = len(location) > 1 and str(location[0]).endswith("prompts")
    keys = [one.name for one in fields(TaskFormat)] if of_prompt else list(Task.model_fields)
    close = difflib.get_close_matches(str(location[-1]), keys, n=1)
    return (f"did you mean {close[0]!r}? " if close else "") + f"the keys there: {', '.join(keys)}"


def _parsed(text: str, where: str) -> Task:
    try:
        return task_from(tomllib.loads(text), where)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where} is not valid TOML: {error}", "correct it") from error


def representation(form: Any, later: tuple[str, ...], hidden: tuple[str, ...] = ()) -> str:
    """A dataclass's usual text, but fields in `later` are named only where they differ from their default: fingerprints are
    made of it, and those of formats that were there before these fields stay as they were. `hidden` ones are never named."""
    known = [f for f in fields(form) if f.name not in hidden]
    visible = [f for f in known if f.name not in later or getattr(form, f.name) != _default(f)]
    return f"{type(form).__name__}({', '.join(f'{f.name}={getattr(form, f.name)!r}' for f in visible)})"


def _default(one: DataclassField[Any]) -> Any:
    return one.default if one.default_factory is MISSING else one.default_factory()
