"""The conformance suite of models that prepare images apart from encoding them."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from icltool.contracts import Example, PreparesImages
from icltool.errors import IclError
from icltool.testing.expectations import expect, expect_equal, expect_error

#: An image reader goes to every worker process; with weights in it it would be larger.
_MOST_BYTES = 2**20


def check_prepared_images(
    model: Any, examples: Sequence[Example], *, batch_size: int = 3, tolerance: float = 1e-4
) -> None:
    """Checks an LVLM adapter against `icltool.PreparesImages`; AssertionError says what is wrong.

    `examples` have four different images at least, best of several sizes. `tolerance` is that of single features: 1e-4 suits
    float32. Checked are: `image_reader` (pickled and back it reads the same; it is small, so it holds no weights; it gives a
    numpy array or a mapping of such; a missing image is an IclError that names it) and `encode_images` (a batch of any size
    gives what `image_features` gives for each path alone).
    """
    expect(
        isinstance(model, PreparesImages),
        f"{type(model).__name__} lacks a part of the contract `icltool.PreparesImages`",
    )
    paths = list(dict.fromkeys(e.image for e in examples if e.image))
    expect(len(paths) >= 4, "give examples with four different images")
    reader = model.image_reader()
    pickled = pickle.dumps(reader)
    expect(len(pickled) < _MOST_BYTES, f"`image_reader()` pickles to {len(pickled):,} bytes: does it hold weights?")
    prepared = [reader(path) for path in paths]
    again = pickle.loads(pickled)
    for path, image in zip(paths, prepared, strict=True):
        _check_same(_arrays(image), _arrays(again(path)), path)
    error = expect_error(IclError, lambda: reader("/no/such/image.png"), "a missing image is an IclError")
    expect("image.png" in error.message, f"the error must name the image: {error.message!r}")
    alone = [model.image_features([path], 1)[0] for path in paths]
    for size in (1, batch_size, len(paths)):
        encoded: list[Any] = []
        for start in range(0, len(paths), size):
            part = model.encode_images(prepared[start : start + size])
            expect(
                len(part) == len(prepared[start : start + size]), "`encode_images` must give one tensor for each image"
            )
            encoded += part
        for path, found, wanted in zip(paths, encoded, alone, strict=True):
            expect(
                (found.dtype, found.device) == (wanted.dtype, wanted.device),
                f"`encode_images` gives {found.dtype} on {found.device}, `image_features` {wanted.dtype} on {wanted.device}",
            )
            sentence = f"`encode_images` in batches of {size} differs from `image_features` for {path}"
            expect_equal(found.float().cpu().numpy(), wanted.float().cpu().numpy(), sentence, tolerance)


def _arrays(prepared: Any) -> dict[str, Any]:
    arrays = dict(prepared) if isinstance(prepared, Mapping) else {"": prepared}
    for name, array in arrays.items():
        told = f" under {name!r}" if name else ""
        expect(
            isinstance(array, np.ndarray),
            f"`image_reader()` must give a numpy array or a mapping of such, not {type(array).__name__}{told}",
        )
    return arrays


def _check_same(found: Mapping[str, Any], wanted: Mapping[str, Any], path: str) -> None:
    sentence = f"`image_reader()`, pickled and back, reads {path} differently"
    expect(found.keys() == wanted.keys(), sentence)
    for name, array in found.items():
        expect(array.dtype == wanted[name].dtype, sentence)
        expect_equal(array, wanted[name], sentence)
