"""The options of components: what is coerced, what is refused in which words, and what is listed."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field, ValidationError, create_model, field_validator, model_validator

from icltool.config.base import StageConfig
from icltool.contracts import Options
from icltool.contracts.options import Option, build, options_from, options_of
from icltool.errors import ConfigError


class KitchenOptions(Options):
    """One field of each kind."""

    file: Path = Field(description="a recipe")
    cooks: int = Field(2, ge=1, description="how many cook")
    salt: float = Field(0.5, gt=0, le=1, description="how much of it")
    heat: Literal["low", "high"] | None = Field(None, description="how hot")
    steps: tuple[Literal["wash", "cut", "fry"], ...] = Field(("wash", "fry"), description="what is done")
    open: bool = Field(False, description="whether guests may come")
    title: str = Field("soup", description="what it is")
    extras: dict[str, Any] = Field(default_factory=dict, description="what else")

    @field_validator("title")
    @classmethod
    def _refuse_tea(cls, title: str) -> str:
        if title == "tea":
            raise ValueError("tea is drunk")
        return title

    @model_validator(mode="after")
    def _check_cooks(self) -> KitchenOptions:
        if self.cooks > 5:
            raise ConfigError("too many cooks", "send some home")
        if self.cooks == 5 and self.open:
            raise ValueError("five cooks need a closed kitchen")
        return self


class Kitchen:
    options_model = KitchenOptions

    def __init__(self, options: KitchenOptions) -> None:
        self.options = options


class Plain:
    def __init__(self, depth: int = 1, *, file: str) -> None:
        self.depth, self.file = depth, file


def kitchen(**values: object) -> KitchenOptions:
    return options_from("kitchen 'big'", KitchenOptions, {"file": "soup.txt", **values})


def test_texts_are_read_as_what_they_spell() -> None:
    result = kitchen(cooks="3", salt="0.25", open="true", title=7)
    assert (result.file, result.cooks, result.salt, result.open, result.title) == (Path("soup.txt"), 3, 0.25, True, "7")
    with pytest.raises(ValidationError, match="frozen"):
        result.cooks = 4


@pytest.mark.parametrize(
    ("values", "message", "hint"),
    [
        ({"cook": 3}, "kitchen 'big' has no option 'cook'", "did you mean 'cooks'? its options: cooks, extras, file, "),
        ({"cooks": 0}, "kitchen 'big': cooks must be a positive integer, got 0", "for example cooks=2"),
        ({"cooks": "two"}, "kitchen 'big': cooks must be a positive integer, got 'two'", "for example "),
        ({"cooks": True}, "kitchen 'big': cooks must be a positive integer, got True", "for example "),
        ({"salt": 0}, "kitchen 'big': salt must be a number above 0 and at most 1, got 0", "for example salt=0.5"),
        ({"salt": float("nan")}, "kitchen 'big': salt must be a number above 0 and at most 1, got nan", "for example "),
        (
            {"heat": "hihg"},
            "kitchen 'big': heat must be 'low' or 'high', got 'hihg'",
            "did you mean 'high'? heat: how hot",
        ),
        (
            {"steps": ["wash", "try"]},
            "kitchen 'big': steps must be a list of 'wash', 'cut' or 'fry', got ['wash', 'try']",
            "for example steps=wash,fry",
        ),
        ({"open": "perhaps"}, "kitchen 'big': open must be true or false, got 'perhaps'", "for example open=false"),
        ({"file": 3}, "kitchen 'big': file must be a path, got 3", "file: a recipe"),
        ({"extras": "salt"}, "kitchen 'big': extras must be a table of names and values, got 'salt'", "for example "),
        ({"title": "tea"}, "kitchen 'big': title: tea is drunk", "title: what it is (default soup)"),
        ({"cooks": 6}, "kitchen 'big': too many cooks", "send some home"),
        ({"cooks": 5, "open": True}, "kitchen 'big': five cooks need a closed kitchen", None),
    ],
)
def test_what_is_wrong_is_one_line(values: dict[str, object], message: str, hint: str | None) -> None:
    with pytest.raises(ConfigError) as caught:
        kitchen(**values)
    assert caught.value.message == message
    assert caught.value.hint == hint if hint is None else (caught.value.hint or "").startswith(hint)


@pytest.mark.parametrize("factory", [Kitchen, Plain])
def test_a_component_is_built_from_its_options(factory: type) -> None:
    with pytest.raises(ConfigError) as caught:
        build("kitchen 'big'", factory, {})
    assert caught.value.message == "kitchen 'big' needs the option 'file'"
    with pytest.raises(ConfigError) as caught:
        build("kitchen 'big'", factory, {"fil": "x"}, {"fil": "--fil"})
    assert caught.value.message == "kitchen 'big' has no option 'fil' (--fil)"
    assert str(caught.value.hint).startswith("leave --fil out; its options: ")
    assert isinstance(build("kitchen 'big'", factory, {"file": "x"}), factory)


def test_a_factory_that_takes_any_keyword_is_given_all() -> None:
    assert build("model 'any'", dict, {"a": 1}) == {"a": 1}  # a compiled one tells no signature
    assert build("model 'any'", lambda depth, **others: (depth, others), {"depth": 2, "a": 1}, {}) == (2, {"a": 1})
    with pytest.raises(ConfigError, match="model 'any' needs the option 'depth'"):
        build("model 'any'", lambda depth, **others: depth, {"a": 1})


def test_options_are_listed_with_type_default_and_meaning() -> None:
    listed = {option.name: option for option in options_of(Kitchen, {"salt": 0.75, "file": "bound.txt"})}
    assert list(listed) == list(KitchenOptions.model_fields)
    assert listed["file"] == Option("file", "path", "bound.txt", "a recipe")
    assert listed["salt"] == Option("salt", "number above 0 and at most 1", "0.75", "how much of it")
    assert listed["heat"] == Option("heat", "'low', 'high' or none", "none", "how hot")
    assert listed["steps"] == Option("steps", "list of 'wash', 'cut' or 'fry'", "wash,fry", "what is done")
    assert listed["open"] == Option("open", "true or false", "false", "whether guests may come")
    assert options_of(Kitchen)[0].default == ""
    assert options_of(Plain, {"depth": 2}) == [Option("depth", "int", "2", ""), Option("file", "str", "", "")]
    assert options_of(dict) == []


@pytest.mark.parametrize("base", [Options, StageConfig])
def test_names_that_pydantic_keeps_to_itself_are_no_reason_for_a_warning(base: type[BaseModel]) -> None:
    """Older releases keep "model_…", newer ones "model_dump…"."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made_up = create_model("MadeUp", __base__=base, model_path=(str, "a"), model_dump_file=(str, "b"))
    assert made_up().model_dump()["model_path"] == "a"
