"""The conformance suite of models that prepare images separately from encoding them."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from icltool.contracts import Example, PreparesImages
from icltool.errors import IclError
from icltool.testing.expectations import expect, expect_equal, expect_error

#: An image reader is sent to every worker process; with weights it would be larger than this.
_MOST_BYTES = 2**20


def check_prepared_images(
    model: Any, examples: Sequence[Example], *, batch_size: int = 3, tolerance: float = 1e-4
) -> None:
    """Checks an LVLM adapter against `icltool.PreparesImages`; raises AssertionError with a description of the fault.

    `examples` have at least four different images, preferably of several sizes. `tolerance` is that of single features: 1e-4
    suits float32. Checks `image_reader` (it reads the same after pickling; it is small, so it contains no weights; it returns
    a numpy array or a mapping of arrays; a missing image is an IclError that names it) and `encode_images` (a batch of any
    size gives the same as `image_features` for each path alone).
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
        for path, actual, expected in zip(paths, encoded, alone, strict=True):
            expect(
                (actual.dtype, actual.device) == (expected.dtype, expected.device),
                f"`encode_images` gives {actual.dtype} on {actual.device}, "
                f"`image_features` {expected.dtype} on {expected.device}",
            )
            sentence = f"`encode_images` in batches of {size} differs from `image_features` for {path}"
            expect_equal(actual.float().cpu().numpy(), expected.float().cpu().numpy(), sentence, tolerance)


def _arrays(prepared: Any) -> dict[str, Any]:
    arrays = dict(prepared) if isinstance(prepared, Mapping) else {"": prepared}
    for name, array in arrays.items():
        place = f" under {name!r}" if name else ""
        expect(
            isinstance(array, np.ndarray),
            f"`image_reader()` must give a numpy array or a mapping of such, not {type(array).__name__}{place}",
        )
    return arrays


def _check_same(actual: Mapping[str, Any], expected: Mapping[str, Any], path: str) -> None:
    sentence = f"`image_reader()`, pickled and back, reads {path} differently"
    expect(actual.keys() == expected.keys(), sentence)
    for name, array in actual.items():
        expect(array.dtype == expected[name].dtype, sentence)
        expect_equal(array, expected[name], sentence)
