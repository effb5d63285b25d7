"""The options of every component that comes with icltool: each is described, and nothing but them is taken."""

from __future__ import annotations

import pytest

from icltool.contracts.options import HasOptions, Option, options_of
from icltool.plugin.manager import load_registry
from icltool.plugin.registry import RegisteredComponent

#: Tasks and commands have no options of users.
OTHERS = ("tasks", "commands")
BUILT_IN = [item for item in load_registry().components if item.distribution == "icltool" and item.kind not in OTHERS]


@pytest.mark.parametrize("item", BUILT_IN, ids=lambda item: f"{item.kind}-{item.name}")
def test_every_option_has_a_type_and_a_description(item: RegisteredComponent) -> None:
    factory = load_registry().load(item.kind, item.name)
    for option in options_of(factory, item.registration.options):
        assert option.type
        assert option.description
        assert not option.description.endswith(".")
        assert option.description[0].islower() or not option.description[:2].islower()


def test_what_is_bound_by_a_name_is_its_default() -> None:
    registry = load_registry()
    result = options_of(registry.load("retrievers", "t2i"), registry.get("retrievers", "t2i").registration.options)
    assert {option.name: option.default for option in result}["query"] == "text"
    assert next(option for option in result if option.name == "probes") == Option(
        "probes", "positive integer", "32", "ivf, ivf-pq: number of lists to search per query"
    )


def test_classes_name_a_model_or_take_nothing() -> None:
    for item in BUILT_IN:
        factory = load_registry().load(item.kind, item.name)
        assert isinstance(factory, HasOptions) or options_of(factory) == [], item.name
