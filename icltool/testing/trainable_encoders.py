"""The conformance suite of encoders whose towers can be trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from icltool.contracts import FloatArray, TrainableEncoder
from icltool.contracts.encoder import TradesTimeForMemory
from icltool.testing.examples import make_examples
from icltool.testing.expectations import expect, expect_equal

_TEXTS = ("a red bar", "a blue frame", "what is it", "a long sentence about a green block and a yellow bar", "")


def check_trainable_encoder(build: Callable[..., TrainableEncoder], folder: Path, *, tolerance: float = 1e-4) -> None:
    """Checks an encoder against `icltool.TrainableEncoder`, in addition to `check_encoder`.

    `build(**options)` builds it on the CPU with these options. Images are written to `folder`. Checks that towers give the
    same features as `encode_images` and `encode_texts` (within `tolerance` of the largest value), have no parameters that
    their features do not depend on, do not require gradients initially, and share the encoder's weights; that preprocessors
    may be called by several threads; that `architecture` and `build_options` are JSON-ready, and that an encoder built with
    the latter accepts the trained weights and then gives the same features. Raises AssertionError with a description of the
    fault.
    """
    encoder = build()
    expect(
        isinstance(encoder, TrainableEncoder),
        f"{type(encoder).__name__} lacks a part of the contract `icltool.TrainableEncoder`",
    )
    architecture, options = encoder.architecture(), encoder.build_options()
    for name, answer in (("architecture", architecture), ("build_options", options)):
        expect(isinstance(answer, dict), f"`{name}()` must be a dict, not {type(answer).__name__}")
        expect(json.loads(json.dumps(answer)) == answer, f"`{name}()` must come back from JSON as it was")
    again = build(**options)
    expect(again.architecture() == architecture, "an encoder built with `build_options()` has another architecture")
    paths = [e.image for e in make_examples(folder, 5, size=40)]
    for modality, values, encode in (("image", paths, _images), ("text", list(_TEXTS), _texts)):
        expected = encode(encoder, values)
        margin = tolerance * float(abs(expected).max())
        actual = _features(encoder, modality, values)
        expect_equal(actual, expected, f"the {modality} tower gives other features than the encoder", margin)
        again.tower(modality).load_state_dict(encoder.tower(modality).state_dict(), strict=True)
        sentence = f"the {modality} tower of another instance with the same weights gives other features"
        expect_equal(_features(again, modality, values), expected, sentence, margin)
        expect_equal(
            encode(again, values), expected, f"the {modality} tower does not share the encoder's weights", margin
        )
        with ThreadPoolExecutor(4) as pool:
            parts = list(pool.map(lambda v, m=modality: encoder.preprocessor(m)([v]).numpy(), values * 4))
        for part, value in zip(parts, values * 4, strict=True):
            alone = encoder.preprocessor(modality)([value]).numpy()
            expect_equal(part, alone, f"the {modality} preprocessor gives threads something else")
        _check_gradients(encoder, modality, values)


def _images(encoder: TrainableEncoder, values: list[str]) -> FloatArray:
    return encoder.encode_images(values)


def _texts(encoder: TrainableEncoder, values: list[str]) -> FloatArray:
    return encoder.encode_texts(values)


def _features(encoder: TrainableEncoder, modality: str, values: list[str]) -> FloatArray:
    import torch

    with torch.no_grad():
        features: FloatArray = encoder.tower(modality).eval()(encoder.preprocessor(modality)(values)).float().numpy()
    return features


def _check_gradients(encoder: TrainableEncoder, modality: str, values: list[str]) -> None:
    """Runs last, because it leaves gradients behind."""
    tower = encoder.tower(modality)
    if isinstance(tower, TradesTimeForMemory):
        for enable in (True, False):
            tower.set_grad_checkpointing(enable)
    requiring = [name for name, p in tower.named_parameters() if p.requires_grad]
    expect(not requiring, f"parameters of the {modality} tower require gradients initially: {requiring[:3]}")
    tower.requires_grad_(True)
    tower(encoder.preprocessor(modality)(values)).square().sum().backward()
    idle = [name for name, p in tower.named_parameters() if p.grad is None]
    expect(not idle, f"the {modality} tower holds parameters that its features do not depend on: {idle[:3]}")
    tower.requires_grad_(False)
