"""Metrics by the names that users and tasks give them: NAME, or NAME:OPTION=VALUE."""

from __future__ import annotations

from typing import Any

from icltool.config.fields import toml_value
from icltool.contracts import Metric
from icltool.errors import ConfigError
from icltool.plugin.manager import component


def registered_metric(text: str) -> str:
    """The registered name in "exact-match:norm=lmms"."""
    return text.partition(":")[0]


def named_metric(text: str) -> Metric:
    """The metric that "exact-match:norm=lmms" names. Raises PluginError for an unknown name, ConfigError for a wrong option."""
    name, *parts = text.split(":")
    options: dict[str, Any] = {}
    for part in parts:
        key, sign, value = part.partition("=")
        if not sign or not key:
            raise ConfigError(
                f"metric {text!r}: a metric's options are written NAME:OPTION=VALUE",
                "for example exact-match:norm=lmms",
            )
        options[key] = toml_value(value)
    metric: Metric = component("metrics", name, **options)
    return metric
