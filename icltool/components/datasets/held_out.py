"""Validation queries held out of a table that names none: a share of its images, drawn by image."""

from __future__ import annotations

from collections.abc import Sequence

from icltool.components.datasets.official import counted
from icltool.contracts import Example, group_code, keyed_generator
from icltool.errors import ConfigError, DataError

SplitOrShare = str | float

#: The share of the images that is held out if no split holds queries.
SHARE = 0.1
#: Values of a split column, and the split that each means.
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "val", "valid", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}


def query_names(split: str) -> tuple[str, ...]:
    """The names that a split may have in a source: "validation" is also val, valid or dev."""
    return (split, *(name for name, meaning in SPLIT_NAMES.items() if meaning == split and name != split))


def test_remark(where: str) -> str:
    """The remark if the test split holds the queries because there is no validation split."""
    return (
        f"{where}: there is no validation split, so the test split holds the queries "
        f"(--option validation={SHARE} holds out a share of train instead)"
    )


def held_out_remark(where: str, queries: Sequence[Example]) -> str:
    """The remark if a share of train is held out as queries."""
    return f"{where}: {counted(len(queries), 'example')} held out as queries"


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

    Images of one near-duplicate group, and the images of one example, stay together. The draw for an image depends only on
    the seed and on its id or group. Raises DataError for fewer than two images.
    """
    group_of: dict[int, str] = {}
    for e in examples:
        if e.group:
            group_of[e.image_id] = min(e.group, group_of.get(e.image_id, e.group))
    cluster_of = {e.image_id: e.image_id for e in examples}
    cluster_of |= {image_id: group_code(group) for image_id, group in group_of.items()}
    if any(e.more_image_ids for e in examples):
        cluster_of = _joined_by_images(examples, cluster_of)
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


def _joined_by_images(examples: Sequence[Example], cluster_of: dict[int, int]) -> dict[int, int]:
    """The clusters by the examples' first images, those that examples with several images connect being one."""
    above: dict[int, int] = {}

    def top(cluster: int) -> int:
        while above.get(cluster, cluster) != cluster:
            cluster = above[cluster]
        return cluster

    for e in examples:
        clusters = sorted({top(cluster_of.get(image_id, image_id)) for image_id in e.image_ids})
        above.update(dict.fromkeys(clusters[1:], clusters[0]))
    return {image_id: top(cluster) for image_id, cluster in cluster_of.items()}
