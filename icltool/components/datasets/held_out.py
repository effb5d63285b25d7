"""Validation queries held out of a table that names none: a share of its images, drawn by image."""

from __future__ import annotations

from collections.abc import Sequence

from icltool.contracts import Example, group_code, keyed_generator
from icltool.errors import ConfigError, DataError

SplitOrShare = str | float


def share_of(validation: SplitOrShare) -> float | None:
    """The share in `validation=`, None if it names a split. Raises ConfigError for a share outside (0, 1)."""
    try:
        share = float(validation)
    except ValueError:
        return None
    if isinstance(validation, bool) or not 0 < share < 1:
        raise ConfigError(f"validation is {validation!r}", "give a share between 0 and 1, or the name of a split")
    return share


def held_out(examples: Sequence[Example], share: float, seed: int, where: str) -> tuple[list[Example], list[Example]]:
    """(train, validation): `share` of the images, at least one, goes to validation with all their examples.

    Images of one near-duplicate group stay together. The draw for an image depends only on the seed and on its id or
    group. Raises DataError for fewer than two images.
    """
    group_of: dict[int, str] = {}
    for e in examples:
        if e.group:
            group_of[e.image_id] = min(e.group, group_of.get(e.image_id, e.group))
    cluster_of = {e.image_id: e.image_id for e in examples}
    cluster_of |= {image_id: group_code(group) for image_id, group in group_of.items()}
    clusters = sorted(set(cluster_of.values()))
    if len(clusters) < 2:
        raise DataError(f"{where} has one image, and validation queries need another", "add images, or name a split")
    drawn = sorted(
        clusters, key=lambda cluster: (keyed_generator(seed, "datasets.held-out", cluster).random(), cluster)
    )
    count = min(max(1, round(share * len(clusters))), len(clusters) - 1)
    chosen = set(drawn[:count])
    train = [e for e in examples if cluster_of[e.image_id] not in chosen]
    return train, [e for e in examples if cluster_of[e.image_id] in chosen]
