"""The models' names, and what their registrations bind."""

from __future__ import annotations

from icltool_openflamingo.model import OpenFlamingoModel, OpenFlamingoOptions
from icltool_openflamingo.plugin import icltool_models


def test_each_registration_fits_the_class() -> None:
    actual = {r.name: r for r in icltool_models()}
    assert list(actual) == ["openflamingo-3b", "openflamingo-9b", "openflamingo-9b-v1"]
    for name, registration in actual.items():
        assert registration.target == f"{OpenFlamingoModel.__module__}:{OpenFlamingoModel.__name__}"
        assert registration.options["name"] == name
        OpenFlamingoOptions(**registration.options)


def test_cross_attention_is_where_it_was_trained() -> None:
    intervals = {r.name: r.options["cross_attention_interval"] for r in icltool_models()}
    assert intervals == {"openflamingo-3b": 1, "openflamingo-9b": 4, "openflamingo-9b-v1": 4}
