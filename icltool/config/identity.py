"""What determines an artefact besides its options: the versions of components, and weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from icltool.components.models.shared.weights import weights_mark
from icltool.plugin.manager import load_registry
from icltool.plugin.registry import RegisteredComponent
from icltool.store.makers import Makers


def makers(chosen: Iterable[tuple[str, str]], paths: Mapping[str, str | None]) -> Makers:
    """What determines an artefact: the distributions of the `chosen` components (kind, name), and the weights of the kinds in
    `paths` ("models", "encoders"), each at the user's path, if any. Raises PluginError as Registry.get."""
    items = [(kind, load_registry().get(kind, name)) for kind, name in chosen]
    plugins = {f"{kind}/{item.name}": f"{item.distribution} {item.version}" for kind, item in items}
    weights = {f"{kind}/{item.name}": _weights(item, paths[kind]) for kind, item in items if kind in paths}
    return Makers(plugins, {name: mark for name, mark in weights.items() if mark})


def _weights(item: RegisteredComponent, path: str | None) -> str:
    """The identity of the weights of a model or an encoder; see `weights_mark`."""
    return weights_mark(item.name, item.registration.options, path)
