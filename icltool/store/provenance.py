"""Where an artefact comes from: what determined it, when it was created, and by which releases. Every writer uses this
module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone

from icltool.releases import __version__
from icltool.store.makers import Makers


@dataclass(frozen=True)
class Provenance:
    """Where an artefact comes from.

    `configuration` is the resolved configuration's identity; it, `dataset_fingerprint` and `seed` must be the same for a
    run to be resumed. Of `plugins` (component -> "distribution version") and the entry "weights" of `extra` (component ->
    content mark), entries that both runs have must be equal; see Makers. The rest of `extra` is informative. All must be
    JSON values.
    """

    configuration: Mapping[str, object]
    dataset_fingerprint: str
    seed: int = 0
    plugins: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, object] = field(default_factory=dict)

    @classmethod
    def by(
        cls,
        makers: Makers,
        configuration: Mapping[str, object],
        dataset_fingerprint: str,
        seed: int = 0,
        **extra: object,
    ) -> Provenance:
        """The provenance of what these makers create."""
        extra |= {"weights": dict(makers.weights)} if makers.weights else {}
        return cls(configuration, dataset_fingerprint, seed, dict(makers.plugins), extra)

    @property
    def makers(self) -> Makers:
        """Plugins and weights."""
        return Makers.of({"plugins": self.plugins, "weights": self.extra.get("weights")})


def learned(identity: Mapping[str, object], makers: Makers, **more: object) -> dict[str, object]:
    """The record of a training's result: its identity without options and seed, which have their own fields, and its
    makers."""
    configuration = {key: value for key, value in identity.items() if key not in ("options", "seed")}
    return {**configuration, **more, "icltool": __version__, **makers.record()}


def moment() -> str:
    """Now, as artefacts record it: UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def releases(*libraries: str) -> dict[str, str]:
    """The releases of icltool and of these libraries, by name; one that is not installed is left out."""
    from importlib.metadata import PackageNotFoundError, version

    versions = {"icltool": __version__}
    for library in libraries:
        try:
            versions[library] = version(library)
        except PackageNotFoundError:
            continue
    return versions
