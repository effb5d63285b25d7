"""Makes Typer parameters from the fields of a configuration model: options are written there only."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from enum import Enum
from typing import Optional

import typer
from pydantic.fields import FieldInfo

from icltool.cli.completion import Completer, complete_choices, complete_components
from icltool.config.base import StageConfig
from icltool.config.fields import Extras, Shape, extras, flag_of, shape_of


def parameters_of(model: type[StageConfig]) -> list[inspect.Parameter]:
    """One parameter per field: arguments, the stage's own options, then what all stages share (the workspace).

    Every default is None, "not given", so that profiles can fill in.
    """
    made = [_parameter(name, field) for name, field in model.model_fields.items()]
    shared = StageConfig.model_fields
    return sorted(made, key=lambda p: 0 if isinstance(p.default, typer.models.ArgumentInfo) else 1 + (p.name in shared))


def plain_parameter(
    name: str,
    annotation: object,
    *flags: str,
    help: str,
    default: bool | None = None,
    metavar: str | None = None,
    autocompletion: Completer | None = None,
) -> inspect.Parameter:
    """A parameter that stands for no field (--profile, --json …)."""
    option = typer.Option(
        default, *flags, help=help, show_default=False, metavar=metavar, autocompletion=autocompletion
    )
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=annotation)


QUIET = plain_parameter("given_quiet", bool, "--quiet", "-q", default=False, help="no progress, no remarks")
AS_JSON = plain_parameter(
    "given_json", bool, "--json", default=False, help="print the result as JSON, and nothing else"
)


def sign(command: Callable[..., None], model: type[StageConfig], *more: inspect.Parameter) -> None:
    """Gives a command the options of a configuration model, then `more`, and the model's docstring as its help."""
    parameters = [*parameters_of(model), *more]
    command.__doc__ = inspect.cleandoc(model.__doc__ or "")
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}


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
    completer, description = _completer(shape, extra), help_of(field, shape)
    annotation: object = Optional[list[str] if shape.many or shape.keyed else str]  # noqa: UP045 (Typer reads it)
    if extra.get("argument"):
        metavar = _argument_metavar(name, field, shape, extra)
        info = typer.Argument(None, help=description, show_default=False, metavar=metavar, autocompletion=completer)
        return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=info, annotation=annotation)
    flags = _flags(name, field, shape)
    if shape.flag_like:
        return plain_parameter(name, Optional[bool], *flags, help=description)  # noqa: UP045
    metavar = extra.get("metavar") or shape.metavar
    return plain_parameter(name, annotation, *flags, help=description, metavar=metavar, autocompletion=completer)


def _flags(name: str, field: FieldInfo, shape: Shape) -> list[str]:
    flag, short = flag_of(name, field), extras(field).get("short")
    if not shape.flag_like:
        return [flag, *([short] if short else [])]
    opposite = "--no-" + flag.removeprefix("--")
    return [f"{flag}/{opposite}", *([short] if short else [])]


def _argument_metavar(name: str, field: FieldInfo, shape: Shape, extra: Extras) -> str:
    label = (extra.get("metavar") or name.upper().replace("_", "-")) + ("…" if shape.many else "")
    return label if field.is_required() else f"[{label}]"


def _completer(shape: Shape, extra: Extras) -> Completer | None:
    if kinds := extra.get("complete"):
        return complete_components(kinds, many=shape.many)
    if shape.choices:
        return complete_choices([str(choice) for choice in shape.choices], many=shape.many)
    return None
