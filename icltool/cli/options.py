"""Makes Typer parameters from the fields of a configuration model: options are written there only."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from enum import Enum
from typing import Any, Optional

import typer
from pydantic.fields import FieldInfo

from icltool.cli.completion import complete_choices, complete_components
from icltool.config.base import StageConfig
from icltool.config.fields import Shape, extras, flag_of, shape_of


def parameters_of(model: type[StageConfig]) -> list[inspect.Parameter]:
    """One parameter per field: arguments, the stage's own options, then what all stages share (the workspace).

    Every default is None, "not given", so that profiles can fill in.
    """
    made = [_parameter(name, field) for name, field in model.model_fields.items()]
    shared = StageConfig.model_fields
    return sorted(made, key=lambda p: 0 if isinstance(p.default, typer.models.ArgumentInfo) else 1 + (p.name in shared))


def plain_parameter(name: str, annotation: Any, *flags: str, help: str, **more: Any) -> inspect.Parameter:
    """A parameter that stands for no field (--profile, --json …)."""
    default = more.pop("default", None)
    option = typer.Option(default, *flags, help=help, show_default=False, **more)
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=annotation)


def help_of(field: FieldInfo, shape: Shape) -> str:
    """Description, environment variable and default, as the help shows them."""
    parts = [(field.description or "").strip()]
    if variable := extras(field).get("env"):
        parts.append(f"[env: {variable}]")
    if field.is_required():
        parts.append("[required]")
    else:
        parts.append(f"[default: {default_text(field, shape)}]")
    return " ".join(part for part in parts if part)


def default_text(field: FieldInfo, shape: Shape) -> str:
    """A field's default as it would be typed."""
    value = field.get_default(call_default_factory=True)
    if isinstance(value, Enum):
        value = value.value
    if value is None or value in ("", {}, (), []):
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return " ".join(f"{key}={item}" for key, item in value.items())
    if shape.many:
        return ",".join(str(item) for item in value)
    return str(value)


def _parameter(name: str, field: FieldInfo) -> inspect.Parameter:
    shape, extra = shape_of(field), extras(field)
    common: dict[str, Any] = {"help": help_of(field, shape), "show_default": False}
    annotation: Any = Optional[list[str] if shape.many or shape.keyed else str]  # noqa: UP045 (Typer reads it)
    if shape.flag_like and not extra.get("argument"):
        annotation = Optional[bool]  # noqa: UP045
    else:
        common["metavar"] = str(extra.get("metavar") or shape.metavar)
        if completer := _completer(shape, extra):
            common["autocompletion"] = completer
    if extra.get("argument"):
        common["metavar"] = _argument_metavar(name, field, shape, extra)
        info: Any = typer.Argument(None, **common)
    else:
        info = typer.Option(None, *_flags(name, field, shape), **common)
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=info, annotation=annotation)


def _flags(name: str, field: FieldInfo, shape: Shape) -> list[str]:
    flag, short = flag_of(name, field), extras(field).get("short")
    if not shape.flag_like:
        return [flag, *([short] if short else [])]
    opposite = "--no-" + flag.removeprefix("--")
    return [f"{flag}/{opposite}", *([str(short)] if short else [])]


def _argument_metavar(name: str, field: FieldInfo, shape: Shape, extra: Any) -> str:
    label = str(extra.get("metavar") or name.upper().replace("_", "-")) + ("…" if shape.many else "")
    return label if field.is_required() else f"[{label}]"


def _completer(shape: Shape, extra: Any) -> Callable[[str], list[Any]] | None:
    if kinds := extra.get("complete"):
        return complete_components(str(kinds), many=shape.many)
    if shape.choices:
        return complete_choices([str(choice) for choice in shape.choices], many=shape.many)
    return None
