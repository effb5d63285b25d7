"""Plugins that are broken in every way, as real distributions: each is reported, none disturbs the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from icltool.plugin.manager import load_registry
from tests.plugin.distributions import SURVEY, ask, distribution, registering, select

BUILTINS = len([f for f in load_registry().components if f.distribution == "icltool"])

BROKEN = {
    "raises-on-import": ("import no_such_package", "ModuleNotFoundError: No module named 'no_such_package'"),
    "exits-on-import": ("import sys; sys.exit(3)", "SystemExit: 3"),
    "does-not-parse": ("def hook(:", "SyntaxError"),
    "hook-raises": (
        "from icltool import hookimpl\n@hookimpl\ndef icltool_samplers():\n    raise RuntimeError('no licence\\nmore')",
        "RuntimeError: no licence",
    ),
    "hook-exits": (
        "from icltool import hookimpl\n@hookimpl\ndef icltool_samplers():\n    raise SystemExit('bye')",
        "SystemExit: bye",
    ),
    "hook-returns-nothing": (
        "from icltool import hookimpl\n@hookimpl\ndef icltool_samplers():\n    pass",
        "must return a list of Registration objects, got NoneType",
    ),
    "hook-returns-junk": (
        "from icltool import hookimpl\n@hookimpl\ndef icltool_samplers():\n    return ['random', 3]",
        "must return a list of Registration objects, got one with str",
    ),
    "hook-of-bad-name": (
        "from icltool import Registration, hookimpl\n@hookimpl\ndef icltool_samplers():\n"
        "    return [Registration('My Sampler', 'a:B', '')]",
        "component name 'My Sampler'",
    ),
    "hook-takes-arguments": (
        "from icltool import hookimpl\n@hookimpl\ndef icltool_samplers(registry):\n    return []",
        "PluginValidationError",
    ),
    "unknown-hook": (
        "from icltool import hookimpl\n@hookimpl\ndef icltool_sampler():\n    return []",
        "no hook 'icltool_sampler'; did you mean 'icltool_samplers'?",
    ),
    "forgot-the-mark": ("def icltool_samplers():\n    return []", "implements no hook"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_plugin_is_reported_and_isolated(case: str, tmp_path: Path) -> None:
    source, message = BROKEN[case]
    bad = distribution(tmp_path, case, source, version="0.3")
    good = distribution(tmp_path, "good-one", registering("good"), version="2.0")
    survey = ask(SURVEY, bad, good)
    ((name, owner, version, _, error),) = survey["broken"]
    assert (name, owner, version) == (case.replace("-", "_"), case, "0.3")
    assert message in error
    assert "\n" not in error
    assert survey["found"] == [["samplers", "good", "good-one", "2.0"]]
    assert survey["builtins"] == BUILTINS
    assert survey["random"] == "RandomSampler"


def test_one_hook_of_a_plugin_may_fail_alone(tmp_path: Path) -> None:
    source = registering("good") + "\n@hookimpl\ndef icltool_scorers():\n    raise ValueError('half')\n"
    survey = ask(SURVEY, distribution(tmp_path, "half-broken", source))
    assert survey["found"] == [["samplers", "good", "half-broken", "1.0"]]
    assert survey["broken"] == [["half_broken", "half-broken", "1.0", "scorers", "ValueError: half"]]


def test_a_missing_target_is_told_when_it_is_selected(tmp_path: Path) -> None:
    source = registering("no-module", target="no_such_package.x:Y") + registering(
        "no-class", target="icltool.components.samplers.random:Missing"
    ).replace("icltool_samplers", "icltool_scorers")
    path = distribution(tmp_path, "no-target", source)
    survey = ask(SURVEY, path)
    assert survey["broken"] == []
    assert [f[:2] for f in survey["found"]] == [["samplers", "no-module"], ["scorers", "no-class"]]
    kind, message, hint = select("no-module", path)
    assert kind == "PluginError"
    assert "'no-module' of no-target 1.0 cannot be loaded: ModuleNotFoundError" in message
    assert "plugins list" in hint


def test_a_target_that_exits_on_import_is_no_exit(tmp_path: Path) -> None:
    path = distribution(tmp_path, "quits", registering("quits", target="quits_now:Sampler"))
    (path / "quits_now.py").write_text("raise SystemExit(0)")
    kind, message, _ = select("quits", path)
    assert (kind, "SystemExit" in message) == ("PluginError", True)


def test_two_distributions_with_one_name_are_both_named(tmp_path: Path) -> None:
    first = distribution(tmp_path, "first-pack", registering("shared", "own"), version="1.2")
    second = distribution(tmp_path, "second-pack", registering("shared"), version="3.4")
    kind, message, hint = select("shared", first, second)
    assert kind == "PluginError"
    assert "first-pack 1.2" in message
    assert "second-pack 3.4" in message
    assert "uninstall" in hint
    assert select("own", first, second) is None


def test_a_third_party_cannot_take_a_built_in_name_unnoticed(tmp_path: Path) -> None:
    path = distribution(tmp_path, "takes-random", registering("random"))
    _, message, _ = select("random", path)
    assert "sampler 'random' is registered by icltool" in message
    assert "takes-random 1.0" in message
    assert select("mix", path) is None


def test_one_distribution_that_registers_a_name_twice_is_told_so(tmp_path: Path) -> None:
    _, message, _ = select("same", distribution(tmp_path, "twice", registering("same", "same")))
    assert message == "sampler 'same' is registered twice by twice 1.0"


def test_a_distribution_found_twice_counts_once(tmp_path: Path) -> None:
    new = distribution(tmp_path, "shadowed", registering("only"), version="2.0")
    old = distribution(tmp_path, "shadowed", registering("only"), version="1.0")
    survey = ask(SURVEY, new, old)
    assert survey["found"] == [["samplers", "only", "shadowed", "2.0"]]
    assert survey["broken"] == []


def test_two_entry_points_to_one_module_are_reported(tmp_path: Path) -> None:
    entries = {"one": "double", "two": "double"}
    survey = ask(SURVEY, distribution(tmp_path, "double", registering("only"), entries=entries))
    assert survey["found"] == [["samplers", "only", "double", "1.0"]]
    assert survey["broken"] == [["two", "double", "1.0", "", "its plugin is already registered by double"]]


def test_unreadable_metadata_is_reported(tmp_path: Path) -> None:
    path = distribution(tmp_path, "mangled", registering("good"))
    (path / "mangled-1.0.dist-info" / "entry_points.txt").write_text("[icltool]\nno equals sign\n")
    survey = ask(SURVEY, path)
    assert survey["found"] == []
    assert survey["builtins"] == BUILTINS


def test_a_distribution_without_a_name_is_no_crash(tmp_path: Path) -> None:
    path = distribution(tmp_path, "nameless", registering("good"))
    (path / "nameless-1.0.dist-info" / "METADATA").unlink()
    survey = ask(SURVEY, path)
    assert survey["builtins"] == BUILTINS
    assert [b for b in survey["broken"] if "nameless" in b[0]] or [f for f in survey["found"] if f[1] == "good"]
