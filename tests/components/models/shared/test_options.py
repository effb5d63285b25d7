"""Options of adapters: what they say of themselves, and what they refuse."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from icltool.components.models.idefics.options import IdeficsOptions
from icltool.components.models.shared.options import LoadOptions, TransformersOptions
from icltool.errors import ConfigError
from icltool.plugin import Registration
from icltool.plugin.manager import component, load_registry
from icltool.plugin.registry import RegisteredComponent, Registry


class Named:
    """Stands for an adapter that tells its name."""

    options_model = LoadOptions

    def __init__(self, options: LoadOptions) -> None:
        self.name = options.name


@pytest.mark.parametrize("name", load_registry().names("models"))
def test_every_model_is_built_from_options_that_are_described_and_fit_its_registration(name: str) -> None:
    registry = load_registry()
    model = registry.load("models", name).options_model
    assert issubclass(model, LoadOptions)
    assert all(field.description for field in model.model_fields.values())
    options = registry.get("models", name).registration.options
    assert options.keys() <= model.model_fields.keys()
    built = model(**options)
    assert {field: getattr(built, field) for field in options} == dict(options)


def test_a_model_has_the_name_that_it_is_registered_under() -> None:
    target = f"{__name__}:Named"
    plain, renamed = Registration("plain", target, ""), Registration("renamed", target, "", {"name": "another"})
    registry = Registry(
        [RegisteredComponent("models", plain, "x", "1"), RegisteredComponent("models", renamed, "x", "1")], []
    )
    assert registry.create("models", "plain").name == "plain"
    assert registry.create("models", "renamed").name == "another"
    assert registry.create("models", "renamed", name="mine").name == "mine"


def test_what_an_option_does_not_know_is_one_line_with_what_it_knows() -> None:
    with pytest.raises(ConfigError, match="unknown prompt template 'flamingo'") as caught:
        IdeficsOptions(template="flamingo")
    assert caught.value.hint == "known: lever-lm, live"
    with pytest.raises(ConfigError, match="model 'tiny-blip2': image_size must be an integer, got 'large'"):
        component("models", "tiny-blip2", image_size="large")
    with pytest.raises(ConfigError, match=r"model 'text-llm' has no option 'template' \(--prompt-template\)"):
        component("models", "text-llm", template="live")


def test_options_do_not_change() -> None:
    options = TransformersOptions(device="cpu", quantization=None)
    with pytest.raises(ValidationError, match="frozen"):
        options.device = "cuda"
    assert options.precision() == "float32"
    assert TransformersOptions(device="cpu", dtype="float16").precision() == "float16"
