"""Profiles: TOML files that hold the options of a whole pipeline run.

A profile has a line `summary`, a table `[common]` with options of several commands, and one table per command
(`[prepare]` … `[export]`). Keys are names of options, with underscores; mappings are nested tables.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from icltool.config.base import StageConfig
from icltool.config.fields import shape_of
from icltool.config.problems import explain
from icltool.errors import ConfigError, suggestion
from icltool.plugin.commands import stage_models

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

COMMON = "common"


@dataclass(frozen=True)
class Profile:
    """A profile that was read and checked: its keys and types match the commands' options."""

    path: Path
    summary: str
    tables: Mapping[str, Mapping[str, object]]

    def values(self, stage: str, model: type[StageConfig]) -> dict[str, object]:
        """The options that this profile sets for a command: those in [common] that the command has, then its own table."""
        common = {k: v for k, v in self.tables.get(COMMON, {}).items() if k in model.model_fields}
        return {**common, **self.tables.get(stage, {})}

    def origin(self, stage: str, key: str) -> str:
        """The origin of a value, for messages: "FILE, table [generate], key 'anchors'"."""
        table = stage if key in self.tables.get(stage, {}) else COMMON
        return _place(self.path, table, key)


class ProfileFolders:
    """The folders that are searched for profiles: ./profiles, then those that come with icltool."""

    @cached_property
    def folders(self) -> tuple[Path, ...]:
        package = Path(__file__).resolve().parents[1]
        shipped = package / "_profiles"
        return (Path("profiles"), shipped if shipped.is_dir() else package.parent / "profiles")

    def names(self) -> list[str]:
        """All names that `--profile` accepts."""
        return sorted({path.stem for folder in self.folders if folder.is_dir() for path in folder.glob("*.toml")})

    def find(self, name_or_path: str) -> Path:
        """The file of a profile. Raises ConfigError, with a suggestion, if there is none."""
        for folder in self.folders:
            if (path := folder / f"{name_or_path}.toml").is_file():
                return path
        path = Path(name_or_path).expanduser()
        if path.is_file():
            return path
        if path.suffix == ".toml" or len(path.parts) > 1:
            raise ConfigError(f"profile {path} does not exist", f"known profiles: {', '.join(self.names())}")
        raise ConfigError(f"unknown profile {name_or_path!r}", suggestion(name_or_path, self.names()))


def load_profile(name_or_path: str) -> Profile:
    """Finds, reads and checks a profile. Raises ConfigError, with the file and the problem."""
    return read_profile(ProfileFolders().find(name_or_path))


def read_profile(path: Path) -> Profile:
    """Reads and checks the profile in a file."""
    content = parse_toml(path, "a profile is a TOML file in UTF-8")
    summary = content.pop("summary", "")
    if not isinstance(summary, str):
        raise ConfigError(f"{path}: summary must be a string, got {summary!r}")
    models = stage_models()
    tables: dict[str, dict[str, object]] = {}
    for table, entries in content.items():
        if table != COMMON and table not in models:
            kind = "table" if isinstance(entries, dict) else "key"
            raise ConfigError(f"{path}: unknown {kind} {table!r}", suggestion(table, ("summary", COMMON, *models)))
        if not isinstance(entries, dict):
            raise ConfigError(f"{path}: {table!r} must be a table, got {entries!r}", f"write it as [{table}]")
        check_table(path, table, entries, models)
        tables[table] = entries
    return Profile(path, summary, tables)


def parse_toml(path: Path, hint: str) -> dict[str, object]:
    """The content of a file of options. Raises ConfigError, with the hint if it cannot be read."""
    try:
        with path.open("rb") as file:
            content: dict[str, object] = tomllib.load(file)
            return content
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            f"{path}: not valid TOML: {error}", "strings need quotes; tables are written [name]"
        ) from error
    except RecursionError as error:
        raise ConfigError(f"{path}: tables and arrays are nested too deeply", "it has tables of options") from error
    except (OSError, UnicodeDecodeError, MemoryError) as error:
        reason = str(error) or "it is too large"
        raise ConfigError(f"{path} cannot be read: {reason}", hint) from error


def check_table(path: Path, table: str, entries: Mapping[str, object], models: Mapping[str, type[StageConfig]]) -> None:
    """Raises ConfigError for a key of the table that is not an option of its command, and for a value of another type."""
    chosen = models if table == COMMON else {table: models[table]}
    known = {name for model in chosen.values() for name in model.model_fields}
    for key, value in entries.items():
        if key not in known:
            raise ConfigError(f"{path}: unknown key {key!r} in table [{table}]", suggestion(key, sorted(known)))
        for model in chosen.values():
            if key in model.model_fields:
                _check_type(_place(path, table, key), model.model_fields[key], value)


def _check_type(place: str, field: FieldInfo, value: object) -> None:
    """Types in a profile are taken literally: "5" is not a number, and a number is not a string."""
    annotation: Any = field.annotation
    for constraint in field.metadata:
        annotation = Annotated[annotation, constraint]
    try:
        TypeAdapter(annotation).validate_json(json.dumps(value, default=str), strict=True)
    except ValidationError as error:
        raise ConfigError(explain(place, error.errors()[0], shape_of(field))) from error


def _place(path: Path, table: str, key: str) -> str:
    return f"{path}, table [{table}], key {key!r}"
