"""Prompts of the user's own: a TOML file that says how a model is asked, on top of the prompts of a task."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from icltool.contracts.task import Extract, TaskFormat
from icltool.errors import ConfigError, closest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

#: The text of a template before its first field.
_START = re.compile(r"[^{]*")
_FIELD = re.compile(r"\{(\w+)\}")


class PromptRules(BaseModel):
    """What a prompt changes; None leaves what the task has. The fields are those of TaskFormat."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    system: Annotated[str | None, Field(description="chat models: the text of the system turn")] = None
    instruction: Annotated[str | None, Field(description="text that stands once, before the first example")] = None
    query: Annotated[
        str | None, Field(description="the request: the text between an example's images and its answer")
    ] = None
    demonstration: Annotated[
        str | None, Field(description="the request of a demonstration; default: that of the query")
    ] = None
    answer: Annotated[
        str | None, Field(description="how an answer is written, with {label} and perhaps {rationale}")
    ] = None
    closing: Annotated[str | None, Field(description="text that follows each answer")] = None
    separator: Annotated[str | None, Field(description="text after each demonstration; not in the turns of a chat")] = (
        None
    )
    after_image: Annotated[str | None, Field(description="text after each image that stands before the request")] = None
    stop: Annotated[
        tuple[str, ...] | None, Field(description="words that begin the next example in a run-on answer")
    ] = None
    cut_at_comma: Annotated[bool | None, Field(description='whether an answer ends at its first ", "')] = None
    label_words: Annotated[dict[str, str] | None, Field(description="the word that a prompt writes for each label")] = (
        None
    )

    def changed(self) -> dict[str, Any]:
        """The fields that are set."""
        return {name: value for name in PromptRules.model_fields if (value := getattr(self, name)) is not None}


class FamilyRules(PromptRules):
    """Rules of one family of models, or of all; those of a task come first."""

    tasks: dict[str, PromptRules] = {}

    def rules(self, task: str) -> dict[str, Any]:
        """The fields that are set for a task."""
        return {**self.changed(), **(self.tasks[task].changed() if task in self.tasks else {})}


class PromptFile(FamilyRules):
    """A prompt. Its own rules are for all models; `families` are more special: "completion" (models that continue a text),
    "chat" (models with a chat template), or one family such as "idefics". The most special rule counts."""

    description: str = ""
    style: Annotated[
        Literal["turns", "flat"] | None,
        Field(description="chat models: demonstrations as turns of the conversation, or all in one turn"),
    ] = None
    extract: Annotated[
        Extract | None,
        Field(
            description='what is taken from a continuation: "first-line", "number", "yes-no", "letter" or { regex = "…" }'
        ),
    ] = None
    families: dict[str, FamilyRules] = {}

    def applied(self, base: TaskFormat, families: Sequence[str], task: str) -> TaskFormat:
        """The form of a task for a model of these families, the most special one last, where the task's own is `base`.

        Without `stop` of its own, a prompt that changes the request has the beginning of its request as `stop`, or the end of
        the line if the request begins with a field and answers have one line.
        """
        rules = self.rules(task)
        for family in families:
            if family in self.families:
                rules.update(self.families[family].rules(task))
        request = rules.get("demonstration", rules.get("query"))
        if request is not None and "stop" not in rules:
            start = _START.match(request)
            begin = start.group().strip() if start else ""
            line = () if "\n" in rules.get("answer", base.answer).strip() else ("\n",)
            rules["stop"] = (begin,) if begin else line
        return replace(base, **rules)

    def identity(self) -> dict[str, Any]:
        """What decides the prompts, JSON-ready: all that is set but the description."""
        return self.model_dump(mode="json", exclude_defaults=True, exclude={"description"})


def read_prompt(path: Path) -> PromptFile:
    """The prompt in a TOML file. ConfigError, one line with the file and the key, if it is malformed."""
    try:
        return _parsed(path.read_text("utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"prompt file {path} cannot be read: {reason}", "name a TOML file") from error


def packaged_prompt(package: str, file: str) -> PromptFile:
    """The prompt in a TOML file of an installed package."""
    return _parsed((files(package) / file).read_text("utf-8"), f"{package}/{file}")


def _parsed(text: str, where: str) -> PromptFile:
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where} is not valid TOML: {error}", "correct it") from error
    try:
        prompt = PromptFile(**content)
    except ValidationError as error:
        raise _fault(where, error) from error
    for key, rules in _all_rules(prompt):
        if rules.answer is not None and "{label}" not in rules.answer:
            raise ConfigError(f"{where}: {key}answer has no {{label}}", 'for example answer = " {label}"')
        if rules.answer is not None and (fault := _answer_fault(rules.answer)):
            raise ConfigError(
                f"{where}: {key}answer {fault}", 'for example answer = " {rationale} So the answer is {label}"'
            )
        if rules.stop is not None and not all(rules.stop):
            raise ConfigError(f"{where}: {key}stop has an empty word", "leave it out")
        if rules.label_words and len(set(rules.label_words.values())) < len(rules.label_words):
            raise ConfigError(f"{where}: {key}label_words has one word for two labels", "give each label its own word")
    return prompt


def _answer_fault(answer: str) -> str:
    """The problem with a form of answers, "" if there is none."""
    names = _FIELD.findall(answer)
    if strange := [name for name in names if name not in ("label", "rationale")]:
        return f"has {{{strange[0]}}}; it may have {{label}} and {{rationale}}"
    if any(names.count(name) > 1 for name in names):
        return "has a field twice"
    between = re.search(r"\{(?:label|rationale)\}(.*?)\{(?:label|rationale)\}", answer, re.DOTALL)
    if between is not None and not between[1].strip():
        return "has no words between {rationale} and {label}, so that the label cannot be read from an answer"
    return ""


def _all_rules(prompt: PromptFile) -> list[tuple[str, PromptRules]]:
    """All rules of a prompt, each with the beginning of its keys."""
    groups: list[tuple[str, FamilyRules]] = [("", prompt)]
    groups += [(f"families.{name}.", rules) for name, rules in prompt.families.items()]
    rules_by_key: list[tuple[str, PromptRules]] = []
    for key, group in groups:
        rules_by_key.append((key, group))
        rules_by_key += [(f"{key}tasks.{task}.", rules) for task, rules in group.tasks.items()]
    return rules_by_key


def _fault(where: str, error: ValidationError) -> ConfigError:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] != "extra_forbidden":
        return ConfigError(f"{where}: {key}: {first['msg'].removeprefix('Value error, ')}", "correct it")
    known = list(PromptRules.model_fields)
    if "tasks" not in first["loc"]:
        top = ["tasks", "description", "style", "extract", "families"]
        known += ["tasks"] if "families" in first["loc"] else top
    close = closest(str(first["loc"][-1]), known)
    return ConfigError(
        f"{where}: unknown key {key}", f"did you mean {close!r}?" if close else f"known: {', '.join(known)}"
    )
