"""Makes Typer parameters from the fields of a configuration model: options are written there only."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from enum import Enum
from typing import Optional

import typer
from pydantic.fields import FieldInfo

from icltool.cli.completion import Completer, complete_choices, complete_components
from icltool.cli.layout import NAMES, Heading
from icltool.config.base import StageConfig
from icltool.config.fields import Extras, Shape, extras, flag_of, shape_of
from icltool.config.groups import Group


def parameters_of(model: type[StageConfig]) -> list[inspect.Parameter]:
    """One parameter per field: arguments, the stage's own options, then what all stages share (the workspace).

    Every default is None, so that profiles can fill in the options that are not on the command line.
    """
    parameters = [
        _parameter(name, field, daily=name not in model.not_daily) for name, field in model.model_fields.items()
    ]
    shared = StageConfig.model_fields
    return sorted(
        parameters, key=lambda p: 0 if isinstance(p.default, typer.models.ArgumentInfo) else 1 + (p.name in shared)
    )


def plain_parameter(
    name: str,
    annotation: object,
    *flags: str,
    help: str,
    default: bool | None = None,
    metavar: str | None = None,
    autocompletion: Completer | None = None,
    heading: Heading | None = None,
) -> inspect.Parameter:
    """A parameter without a field (--profile, --json …), or an option of a field. The first long flag is the one that the
    help shows."""
    option = typer.Option(
        default,
        *flags,
        help=help,
        show_default=False,
        metavar=metavar,
        autocompletion=autocompletion,
        rich_help_panel=heading,
    )
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=annotation)


COMMON: Group = "Every command"
QUIET = plain_parameter(
    "common_quiet",
    bool,
    "--quiet",
    "-q",
    default=False,
    help="print neither progress nor notes",
    heading=Heading(COMMON, daily=False),
)
AS_JSON = plain_parameter(
    "common_json",
    bool,
    "--json",
    default=False,
    help="print the result as JSON and nothing else",
    heading=Heading(COMMON, daily=False),
)


def sign(command: Callable[..., None], model: type[StageConfig], *more: inspect.Parameter) -> None:
    """Gives a command the options of a configuration model, then `more`, and the model's docstring as its help."""
    parameters = [*parameters_of(model), *more]
    command.__doc__ = inspect.cleandoc(model.__doc__ or "")
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}


def help_of(field: FieldInfo, shape: Shape, metavar: str) -> str:
    """The description, then in parentheses the choices that the metavar does not name, the environment variable and the
    default."""
    remarks = []
    if shape.choices and metavar != shape.metavar:
        remarks.append(f"{'any' if shape.many else 'one'} of {', '.join(map(str, shape.choices))}")
    if variable := extras(field).get("env"):
        remarks.append(f"environment variable {variable}")
    if field.is_required():
        remarks.append("required")
    elif default := default_text(field, shape):
        remarks.append(f"default: {default}")
    description = (field.description or "").strip()
    return f"{description} ({'; '.join(remarks)})" if remarks else description


def default_text(field: FieldInfo, shape: Shape) -> str:
    """The default in words: `default` in the field's extras, or its value as it would be typed; "" where there is none."""
    if words := extras(field).get("default"):
        return words
    value = field.get_default(call_default_factory=True)
    if isinstance(value, Enum):
        value = value.value
    if value is None or value in ("", {}, (), []):
        return ""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, dict):
        return " ".join(f"{key}={item}" for key, item in value.items())
    if shape.many:
        return ",".join(str(item) for item in value)
    return str(value)


def _parameter(name: str, field: FieldInfo, daily: bool) -> inspect.Parameter:
    shape, extra = shape_of(field), extras(field)
    completer, metavar = _completer(shape, extra), _metavar(name, field, shape)
    description = help_of(field, shape, metavar)
    annotation: object = Optional[list[str] if shape.many or shape.keyed else str]  # noqa: UP045 (Typer reads it)
    if extra.get("argument"):
        info = typer.Argument(None, help=description, show_default=False, metavar=metavar, autocompletion=completer)
        return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=info, annotation=annotation)
    flags, heading = _flags(name, field, shape), _heading(extra, daily)
    if shape.flag_like:
        return plain_parameter(name, Optional[bool], *flags, help=description, heading=heading)  # noqa: UP045
    return plain_parameter(
        name, annotation, *flags, help=description, metavar=metavar, autocompletion=completer, heading=heading
    )


def _metavar(name: str, field: FieldInfo, shape: Shape) -> str:
    """An argument's name, or an option's value: choices that fit into its column, or NAME for those and for components."""
    extra = extras(field)
    if extra.get("argument"):
        label = (extra.get("metavar") or name.upper().replace("_", "-")) + ("…" if shape.many else "")
        return label if field.is_required() else f"[{label}]"
    metavar = extra.get("metavar") or shape.metavar
    too_long = bool(shape.choices) and len(f"{flag_of(name, field)} {metavar}") > NAMES
    if too_long or ("complete" in extra and metavar == shape.metavar and shape.item is str):
        return "NAME,…" if shape.many else "NAME"
    return metavar


def _heading(extra: Extras, daily: bool) -> Heading | None:
    group = extra.get("group")
    return Heading(group, daily=daily and extra.get("daily", False)) if group else None


def _flags(name: str, field: FieldInfo, shape: Shape) -> list[str]:
    """All flags of a field, its own first; each flag of a yes-or-no field with its opposite."""
    extra = extras(field)
    flags = [flag_of(name, field), *extra.get("aliases", [])]
    if shape.flag_like:
        flags = [f"{flag}/--no-{flag.removeprefix('--')}" for flag in flags]
    return [*flags, *([extra["short"]] if "short" in extra else [])]


def _completer(shape: Shape, extra: Extras) -> Completer | None:
    if kinds := extra.get("complete"):
        return complete_components(kinds, many=shape.many)
    if shape.choices:
        return complete_choices([str(choice) for choice in shape.choices], many=shape.many)
    return None
