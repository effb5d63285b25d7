"""The conformance suite of encoders."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from icltool.contracts import Encoder, FloatArray
from icltool.contracts.encoder import modalities_of
from icltool.errors import ConfigError, DataError
from icltool.testing.examples import make_examples
from icltool.testing.expectations import built, expect, expect_equal, expect_error

_TEXTS = ("a red bar", "a blue frame", "what is it", "a long sentence about a green block and a yellow bar", "")


def check_encoder(encoder: Encoder | Callable[[], Encoder], folder: Path, *, tolerance: float = 1e-4) -> None:
    """Checks an encoder, or a class or factory that makes one, against `icltool.Encoder`.

    Images are written to `folder`. An encoder with HasModalities is checked on those; its other method must raise ConfigError.

    Checks `name`, `dim` and a stable `fingerprint`; vectors (float32 [n, dim], finite, an empty array for no inputs); that a
    vector does not depend on the batch or its order (within `tolerance` of the largest value); that different inputs get
    different vectors; that images of every colour mode are read; DataError naming an image that is missing or truncated.
    Raises AssertionError with a description of the fault.
    """
    model = built(encoder, "encode_images")
    expect(isinstance(model, Encoder), f"{type(model).__name__} lacks a part of the contract `icltool.Encoder`")
    expect(isinstance(model.name, str) and model.name, "`name` must be a non-empty string")
    expect(isinstance(model.dim, int) and model.dim > 0, f"`dim` must be a positive integer, not {model.dim!r}")
    mark = model.fingerprint()
    expect(isinstance(mark, str) and mark, "`fingerprint()` must be a non-empty string")
    expect(model.fingerprint() == mark, "`fingerprint()` must not change between two calls")

    paths = [e.image for e in make_examples(folder, 6, size=40)] + _colour_modes(folder)
    modalities = modalities_of(model)
    expect(
        modalities and modalities <= {"image", "text"},
        f"`modalities` must be of 'image' and 'text', not {sorted(modalities)}",
    )
    for modality, encode, inputs in (("image", model.encode_images, paths), ("text", model.encode_texts, list(_TEXTS))):
        if modality in modalities:
            _check_field(encode, inputs, model.dim, f"{modality}s", tolerance)
        else:
            expect_error(
                ConfigError, partial(encode, inputs), f"encoding {modality}s is a ConfigError, see HasModalities"
            )
    if "image" not in modalities:
        return
    for broken in (folder / "no-such-image.png", _cut(Path(paths[0]), folder / "cut.png")):
        error = expect_error(
            DataError,
            partial(model.encode_images, [str(broken)]),
            f"an image that cannot be read ({broken.name}) is a DataError",
        )
        expect(broken.name in error.message, f"the DataError must name the file {broken.name}: {error.message!r}")


def _check_field(
    encode: Callable[[list[str]], FloatArray], inputs: list[str], dim: int, what: str, tolerance: float
) -> None:
    def vectors(some: list[str]) -> FloatArray:
        actual = encode(some)
        expect(isinstance(actual, np.ndarray), f"{what}: the result must be a numpy array, not {type(actual).__name__}")
        expected = (len(some), dim)
        expect(
            actual.shape == expected, f"vectors of {len(some)} {what} must have shape {expected}, not {actual.shape}"
        )
        expect(actual.dtype == np.float32, f"vectors of {what} must be float32, not {actual.dtype}")
        expect(np.isfinite(actual).all(), f"vectors of {what} must be finite")
        return actual

    whole = vectors(inputs)
    margin = tolerance * float(np.abs(whole).max())
    vectors([])
    expect_equal(vectors(inputs), whole, f"encoding the same {what} twice gives different vectors", margin)
    backwards = vectors(inputs[::-1])
    expect_equal(backwards[::-1], whole, f"the vectors of {what} depend on their order", margin)
    for i in range(len(inputs)):
        expect_equal(vectors(inputs[i : i + 1])[0], whole[i], f"one of the {what} alone has another vector", margin)
    for i in range(len(inputs)):
        for j in range(i):
            apart = float(np.abs(whole[i] - whole[j]).max())
            expect(apart > margin, f"different {what} have the same vector: {inputs[j]!r} and {inputs[i]!r}")


def _colour_modes(folder: Path) -> list[str]:
    """Paths of images that are grey, have a palette, and have transparency."""
    from PIL import Image

    paths = []
    ramp = np.arange(48 * 32, dtype=np.uint32).reshape(48, 32) % 251
    for mode in ("L", "P", "RGBA"):
        path = folder / f"mode-{mode}.png"
        image = Image.fromarray(np.stack([ramp, ramp[::-1], 250 - ramp], axis=-1).astype(np.uint8)).convert(mode)
        if mode == "RGBA":
            image = image.rotate(90)
        image.save(path)
        paths.append(str(path))
    return paths


def _cut(whole: Path, path: Path) -> Path:
    """A copy of an image file that ends half-way."""
    content = whole.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path
