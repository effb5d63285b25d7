"""Candidates of three kinds: similar by image, similar by text, and random."""

from __future__ import annotations

import math

import numpy as np
from pydantic import Field, model_validator

from icltool.components.retrievers.approximate import IndexOptions
from icltool.components.retrievers.rows import draw_rows, excluded_rows
from icltool.components.samplers.similarity import nearest_pools
from icltool.contracts import IndexSet, IntArray, QuerySet, keyed_generator
from icltool.errors import ConfigError


class MixOptions(IndexOptions):
    """The shares of a pool, which add up to 1, and how the nearest are searched."""

    random: float = Field(0.5, ge=0, le=1, description="share of the candidates drawn at random")
    text: float = Field(0.25, ge=0, le=1, description="share of the candidates nearest by text")
    image: float = Field(0.25, ge=0, le=1, description="share of the candidates nearest by image")

    @property
    def shares(self) -> dict[str, float]:
        """By kind, in the order in which rounding favours them."""
        return {"random": self.random, "text": self.text, "image": self.image}

    @model_validator(mode="after")
    def _check_sum(self) -> MixOptions:
        if not math.isclose(sum(self.shares.values()), 1.0, abs_tol=1e-6):
            shares_text = ", ".join(f"{name}={share:g}" for name, share in self.shares.items())
            raise ConfigError(f"the shares {shares_text} do not add up to 1", "set all three: random, text and image")
        return self


class MixSampler:
    """Shares of the `image-sim`, `text-sim` and `random` samplers in one pool.

    A pool lists first the nearest by image (most similar first), then the nearest by text that are not yet in it (most
    similar first), then random ones that are not yet in it, in the order of their draws. So a duplicate is replaced by
    the next nearest or by another draw, and the pool is always full.

    The numbers are rounded so that they add up to the pool's size, the largest remainders up; ties go to random, then text,
    then image.
    """

    options_model = MixOptions
    needs: frozenset[str]

    def __init__(self, options: MixOptions) -> None:
        self.options = options
        self.needs = frozenset(kind for kind in ("image", "text") if options.shares[kind] > 0)

    def numbers(self, size: int) -> dict[str, int]:
        """How many of a pool of `size` each kind gets; they add up to `size`."""
        exact = {name: share * size for name, share in self.options.shares.items()}
        numbers = {name: int(value + 1e-9) for name, value in exact.items()}
        by_remainder = sorted(exact, key=lambda name: round(numbers[name] - exact[name], 9))
        for name in by_remainder[: size - sum(numbers.values())]:
            numbers[name] += 1
        return numbers

    def sample(self, index: IndexSet, anchors: QuerySet, size: int, seed: int) -> IntArray:
        """Rows of `index` int64 [A, size]; see `icltool.contracts.Sampler`. DataError when too few rows are left."""
        leaking = [excluded_rows(index, anchors, position, size, "anchor") for position in range(len(anchors))]
        numbers = self.numbers(size)
        by_image, by_text, drawn = numbers["image"], numbers["text"], numbers["random"]
        pools = np.empty((len(anchors), size), dtype=np.int64)
        if by_image:
            pools[:, :by_image] = nearest_pools(index, anchors, "image", by_image, self.options)
        if by_text:
            # Even if every neighbour by image is among the neighbours by text, `by_text` new ones remain.
            nearest = nearest_pools(index, anchors, "text", by_image + by_text, self.options)
            for pool, rows in zip(pools, nearest, strict=True):
                pool[by_image : by_image + by_text] = rows[~np.isin(rows, pool[:by_image])][:by_text]
        if drawn:
            for position, pool in enumerate(pools):
                excluded = np.union1d(leaking[position], pool[: by_image + by_text])
                generator = keyed_generator(seed, "sampler.mix", int(anchors.ids[position]))
                pool[by_image + by_text :] = draw_rows(generator, len(index), excluded, drawn)
        return pools
