"""Where artefacts say they come from."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from importlib.metadata import version

from icltool.releases import __version__
from icltool.store.makers import Makers
from icltool.store.provenance import Provenance, learned, moment, releases

MAKERS = Makers({"models/a": "icltool 1"}, {"models/a": "0123"})


def test_makers_come_back_from_a_provenance() -> None:
    provenance = Provenance.by(MAKERS, {"shots": 2}, "abcd", 3, embeddings_fingerprint="ef")
    assert provenance == Provenance(
        {"shots": 2},
        "abcd",
        3,
        {"models/a": "icltool 1"},
        {"embeddings_fingerprint": "ef", "weights": {"models/a": "0123"}},
    )
    assert provenance.makers == MAKERS
    assert Provenance.by(Makers(), {}, "abcd").extra == {}


def test_a_training_tells_its_identity_but_for_options_and_seed() -> None:
    identity = {"learner": "live", "options": {"lr": 1}, "seed": 4}
    assert learned(identity, MAKERS, sequences="s.h5") == {
        "learner": "live",
        "sequences": "s.h5",
        "icltool": __version__,
        "plugins": {"models/a": "icltool 1"},
        "weights": {"models/a": "0123"},
    }


def test_the_moment_is_utc_to_the_second() -> None:
    parsed = datetime.fromisoformat(moment())
    assert parsed.utcoffset() == timedelta(0)
    assert parsed.microsecond == 0
    assert abs(datetime.now(timezone.utc) - parsed) < timedelta(minutes=1)


def test_libraries_that_are_not_installed_are_left_out() -> None:
    assert releases("numpy", "no-such-library") == {"icltool": __version__, "numpy": version("numpy")}
