"""Names, suggestions, options and laziness of the registry."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from icltool.components.samplers.mix import MixSampler
from icltool.errors import ConfigError, PluginError, closest
from icltool.plugin import KINDS, Registration
from icltool.plugin.manager import component, load_registry
from icltool.plugin.registry import Broken, RegisteredComponent, Registry
from tests.plugin.distributions import SURVEY, ask, distribution, registering, select


def test_all_kinds_have_built_ins_and_a_hook() -> None:
    registry = load_registry()
    assert {item.kind for item in registry.components} == set(KINDS)
    assert {"random", "image-sim", "text-sim", "mix"} <= set(registry.names("samplers"))


def test_every_built_in_target_can_be_imported() -> None:
    registry = load_registry()
    for item in registry.components:
        assert callable(registry.load(item.kind, item.name)), item


def test_listing_imports_neither_torch_nor_components() -> None:
    code = (
        "import sys, json\n"
        "from icltool.plugin.manager import load_registry\n"
        "registry = load_registry()\n"
        "assert len(registry.components) > 20 and registry.names('models')\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = set(json.loads(done.stdout))
    heavy = {"torch", "transformers", "lightning", "h5py", "faiss", "datasets", "open_clip", "matplotlib", "PIL"}
    assert not heavy & modules
    components = {item.registration.target.partition(":")[0] for item in load_registry().components}
    assert not components & modules


def test_a_plugin_is_listed_without_importing_its_component(tmp_path: Path) -> None:
    path = distribution(tmp_path, "lazy-pack", registering("lazy", target="lazy_component:Lazy"))
    (path / "lazy_component.py").write_text("class Lazy:\n    pass\n")
    code = (
        "registry = load_registry()\n"
        "before = 'lazy_component' in sys.modules\n"
        "built = type(registry.create('samplers', 'lazy')).__name__\n"
        "answer = [before, built, 'lazy_component' in sys.modules]"
    )
    assert ask(code, path) == [False, "Lazy", True]


def test_entry_points_of_other_groups_are_left_alone(tmp_path: Path) -> None:
    path = distribution(tmp_path, "other-group", "raise RuntimeError('must not be imported')")
    (path / "other_group-1.0.dist-info" / "entry_points.txt").write_text("[pytest11]\nx = other_group\n")
    survey = ask(SURVEY, path)
    assert (survey["found"], survey["broken"]) == ([], [])


@pytest.mark.parametrize(
    ("kind", "name", "meant"),
    [
        ("samplers", "randon", "random"),
        ("samplers", "imagesim", "image-sim"),
        ("models", "idefics_9b", "idefics-9b"),
        ("retrievers", "lever_lm", "lever-lm"),
    ],
)
def test_a_wrong_name_gets_a_suggestion(kind: str, name: str, meant: str) -> None:
    with pytest.raises(PluginError) as caught:
        component(kind, name)
    assert f"{name!r}" in caught.value.message
    assert f"did you mean {meant!r}?" in (caught.value.hint or "")


def test_a_name_like_no_other_gets_the_list() -> None:
    with pytest.raises(PluginError, match="unknown retriever 'zzz'") as caught:
        component("retrievers", "zzz")
    assert "did you mean" not in (caught.value.hint or "")
    listed = (caught.value.hint or "").partition("known: ")[2].split(", ")
    assert {"i2i", "i2t", "random", "zero-shot"} <= set(listed)


def test_a_wrong_name_tells_of_broken_plugins(tmp_path: Path) -> None:
    path = distribution(tmp_path, "sad-pack", "import no_such_package")
    kind, message, hint = select("sad", path)
    assert (kind, message) == ("PluginError", "unknown sampler 'sad'")
    assert "sad_pack of sad-pack 1.0: ModuleNotFoundError" in hint


def test_options_of_the_registration_come_before_the_users() -> None:
    target = "icltool.components.samplers.mix:MixSampler"
    options = {"random": 0.0, "text": 0.5, "image": 0.5}
    registry = Registry([RegisteredComponent("samplers", Registration("texty", target, "", options), "x", "1")], [])
    assert registry.create("samplers", "texty").options.shares == options
    assert registry.create("samplers", "texty", text=0.25, image=0.75).options.shares == {
        "random": 0.0,
        "text": 0.25,
        "image": 0.75,
    }


def test_an_option_may_have_any_name() -> None:
    """`prepare hub --option name=default`, and what somebody may try elsewhere."""
    assert component("datasets", "hub", path="owner/set", name="default").options.name == "default"
    with pytest.raises(ConfigError, match="no option 'kind'"):
        component("datasets", "hub", path="owner/set", kind="x")
    with pytest.raises(ConfigError, match="no option 'name'"):
        component("datasets", "folder", name="mine")


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("instruction", None),
        ("atention", "attention"),
        ("qwen", "qwen2-vl-7b"),
        ("device-map", "device_map"),
        ("y", None),
    ],
)
def test_a_suggestion_is_close(wrong: str, meant: str | None) -> None:
    assert closest(wrong, ["attention", "device_map", "dtype", "name", "path", "qwen2-vl-7b", "xx"]) == meant


def test_an_unknown_option_is_a_config_error_with_a_suggestion() -> None:
    with pytest.raises(ConfigError, match="sampler 'mix' has no option 'imag'") as caught:
        component("samplers", "mix", imag=0.5)
    assert caught.value.hint == "did you mean 'image'? its options: ef, image, index, probes, random, text"
    with pytest.raises(ConfigError, match="sampler 'random' has no option 'share'") as caught:
        component("samplers", "random", share=0.5)
    assert caught.value.hint == "it has no options"


def test_an_option_that_a_model_does_not_take_has_the_name_that_users_call_it_by() -> None:
    with pytest.raises(ConfigError) as caught:
        component("models", "text-llm", template="live")
    assert caught.value.message == "model 'text-llm' has no option 'template' (--prompt-template)"
    assert (caught.value.hint or "").startswith("leave --prompt-template out; its options: ")


def test_a_missing_option_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="retriever 'oracle' needs the option 'file'") as caught:
        component("retrievers", "oracle", by="values")
    assert caught.value.hint == "file: file of generated sequences"


def test_a_type_error_inside_the_component_is_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "buggy_component.py").write_text("class Buggy:\n    def __init__(self):\n        len(3)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    registration = Registration("buggy", "buggy_component:Buggy", "")
    registry = Registry([RegisteredComponent("samplers", registration, "x", "1")], [])
    with pytest.raises(TypeError, match="has no len"):
        registry.create("samplers", "buggy")


def test_errors_of_the_component_pass_unchanged() -> None:
    with pytest.raises(ConfigError, match="do not add up to 1"):
        component("samplers", "mix", random=0.9)
    assert isinstance(component("samplers", "mix"), MixSampler)


@pytest.mark.parametrize("name", ["", "Upper", "with blank", "-x", "x/y", "x\n"])
def test_malformed_component_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="component name"):
        Registration(name, "a.b:C", "")


@pytest.mark.parametrize("target", ["a.b.C", "a.b:", ":C", "a b:C", "a:b.c", "a:C\n"])
def test_malformed_targets_are_refused(target: str) -> None:
    with pytest.raises(ValueError, match="target"):
        Registration("x", target, "")


def test_problem_tells_of_a_name_that_two_claim() -> None:
    one, two = (RegisteredComponent("samplers", Registration("same", "a:B", ""), d, "1") for d in ("left", "right"))
    single = RegisteredComponent("samplers", Registration("single", "a:B", ""), "left", "1")
    registry = Registry([one, two, single], [Broken("x", "sad", "1", "E: e")])
    assert registry.problem(one) == "sampler 'same' is registered by left 1 and right 1"
    assert registry.problem(single) == ""
