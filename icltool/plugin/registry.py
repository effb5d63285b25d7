"""The registry lists the components and their distributions, and builds them."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from icltool.errors import ConfigError, IclError, PluginError, closest
from icltool.plugin.registration import KINDS, Registration

if TYPE_CHECKING:
    from icltool.contracts import PromptRenderer

SINGULAR = {kind: kind[:-1] for kind in KINDS}


@dataclass(frozen=True)
class RegisteredComponent:
    """A registered component and the distribution that it comes from."""

    kind: str
    registration: Registration
    distribution: str
    version: str

    @property
    def name(self) -> str:
        return self.registration.name


@dataclass(frozen=True)
class Broken:
    """A plugin, or one of its hooks, that failed to load; icltool runs without it.

    `name` is the entry point's; `kind` the hook's, "" where the whole plugin failed.
    """

    name: str
    distribution: str
    version: str
    error: str
    kind: str = ""

    def __str__(self) -> str:
        return f"{self.name} of {self.distribution} {self.version}: {self.error}"


class Registry:
    """Components by kind and name. Built by `icltool.plugin.manager.load_registry`."""

    def __init__(self, components: list[RegisteredComponent], broken: list[Broken]) -> None:
        self.broken = broken
        self.components = components
        self._by_name: dict[tuple[str, str], list[RegisteredComponent]] = {}
        for item in components:
            self._by_name.setdefault((item.kind, item.name), []).append(item)

    def names(self, kind: str) -> list[str]:
        return sorted(name for k, name in self._by_name if k == kind)

    def get(self, kind: str, name: str) -> RegisteredComponent:
        """The component of this name. Raises PluginError for an unknown name (with a suggestion) or an ambiguous one."""
        items = self._by_name.get((kind, name), [])
        if not items:
            raise PluginError(f"unknown {SINGULAR[kind]} {name!r}", self._suggestion(kind, name))
        if len(items) > 1:
            raise PluginError(self._claims(items), "uninstall all but one of them")
        return items[0]

    def problem(self, item: RegisteredComponent) -> str:
        """Why a listed component cannot be selected; "" if nothing is known to prevent it (nothing is imported)."""
        items = self._by_name[item.kind, item.name]
        return self._claims(items) if len(items) > 1 else ""

    def load(self, kind: str, name: str) -> Any:
        """Imports and returns the component's class or factory. PluginError when the import fails."""
        item = self.get(kind, name)
        module_name, _, attribute = item.registration.target.partition(":")
        try:
            return getattr(importlib.import_module(module_name), attribute)
        except IclError:
            raise
        except (Exception, SystemExit) as error:
            raise PluginError(
                f"{SINGULAR[kind]} {name!r} of {item.distribution} {item.version} cannot be loaded: "
                f"{type(error).__name__}: {error}",
                "reinstall or update that distribution; `icltool plugins list` shows all of them",
            ) from error

    def create(self, kind: str, name: str, /, **options: object) -> Any:
        """Builds the component: its registration's options, then `options` on top.

        Raises PluginError as `load` does, and ConfigError as `icltool.contracts.options.build`.
        """
        # Contracts bring numpy and pydantic, which listing does without.
        from icltool.contracts.options import HasOptions, build

        factory = self.load(kind, name)
        bound = {**self.get(kind, name).registration.options, **options}
        if kind == "models" and isinstance(factory, HasOptions):
            bound = {"name": name, **bound}
        return build(f"{SINGULAR[kind]} {name!r}", factory, bound, _MODEL_FLAGS if kind == "models" else {})

    def prompt_renderer(self, name: str, /, **options: object) -> PromptRenderer:
        """What writes the prompts of the model `name` with these options, without its weights.

        Raises PluginError as `load` does, ConfigError for wrong options and for a model that cannot do without its weights.
        """
        from icltool.contracts import RendersPrompts
        from icltool.contracts.options import HasOptions, options_from

        model_class = self.load("models", name)
        if not isinstance(model_class, RendersPrompts) or not isinstance(model_class, HasOptions):
            raise ConfigError(
                f"model {name} cannot write its prompts without its weights",
                "`icltool evaluate --test-size 3` loads them, and stores each prompt in predictions/*.jsonl",
            )
        bound = {"name": name, **self.get("models", name).registration.options, **options}
        return model_class.prompt_renderer(
            options_from(f"model {name!r}", model_class.options_model, bound, _MODEL_FLAGS)
        )

    def _claims(self, items: list[RegisteredComponent]) -> str:
        """One sentence that names the distributions which claim the same name."""
        what = f"{SINGULAR[items[0].kind]} {items[0].name!r}"
        owners = sorted({f"{i.distribution} {i.version}" for i in items})
        return f"{what} is registered {'twice ' if len(owners) == 1 else ''}by {' and '.join(owners)}"

    def _suggestion(self, kind: str, name: str) -> str:
        names = self.names(kind)
        close = closest(name, names)
        start = f"did you mean {close!r}? " if close else ""
        broken = f"; broken plugins: {', '.join(map(str, self.broken))}" if self.broken else ""
        if of_plugin := next((how for start, how in _PLUGINS.items() if name.startswith(start)), None):
            return f"it comes with a plugin: {of_plugin}{broken}"
        if len(names) > _LISTED:
            return f"{start}`icltool plugins list --kind {kind}` lists all {len(names)}{broken}"
        return f"{start}known: {', '.join(names)}{broken}"


#: The most names that an error lists; of a kind with more it names the command that lists them.
_LISTED = 20
#: Prefixes of the names that plugins in icltool's source tree register, and how to install those plugins.
_PLUGINS = {
    "openflamingo": "`pip install ./plugins/icltool-openflamingo`, then `pip install --no-deps open_flamingo==2.0.1`",
    "ofa-": "`pip install ./plugins/icltool-ofa`",
    "tiny-ofa": "`pip install ./plugins/icltool-ofa`",
}


#: Options of models that have another name on the command line; not every model has them.
_MODEL_FLAGS = {
    "path": "--model-path",
    "style": "--prompt-style",
    "template": "--prompt-template",
    "prompt": "--prompt or --prompt-template",
    "template_options": "--template-option",
    "trust_remote_code": "--trust-remote-code",
}
