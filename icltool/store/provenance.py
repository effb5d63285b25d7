"""Where an artefact comes from: what decided it, and when and by which releases it was made. All that is written takes it from
here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone

from icltool.releases import __version__
from icltool.store.makers import Makers


@dataclass(frozen=True)
class Provenance:
    """Where an artefact comes from.

    `configuration` is the resolved configuration's identity; it, `dataset_fingerprint` and `seed` must be the same
    for a run to be resumed. Of `plugins` (component -> "distribution version") and the entry "weights" of `extra` (component ->
    content mark), what both runs tell of must be; see Makers. The rest of `extra` is for the record. All must be JSON values.
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
        """That of what these make."""
        extra |= {"weights": dict(makers.weights)} if makers.weights else {}
        return cls(configuration, dataset_fingerprint, seed, dict(makers.plugins), extra)

    @property
    def makers(self) -> Makers:
        """Plugins and weights."""
        return Makers.of({"plugins": self.plugins, "weights": self.extra.get("weights")})


def learned(identity: Mapping[str, object], makers: Makers, **more: object) -> dict[str, object]:
    """The record of what a training made: its identity but for options and seed, which have their own fields, and who made
    it."""
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
