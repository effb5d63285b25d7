"""The network of data/ofa_tiny.json: its configuration, its weights by a rule, its inputs and what is expected of it."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from icltool_ofa.config import OFAConfig
from icltool_ofa.network import OFAForConditionalGeneration
from torch import Tensor

DATA = Path(__file__).parent / "data"
RECORD: dict[str, Any] = json.loads((DATA / "ofa_tiny.json").read_text())
_ARRAYS = np.load(DATA / "ofa_tiny.npz")


def array(name: str) -> Tensor:
    """An input or an expected output, as `input/input_ids`."""
    return torch.from_numpy(_ARRAYS[name])


def build(seed: int = RECORD["seed"], **changes: Any) -> OFAForConditionalGeneration:
    """The network in evaluation mode, with weights drawn by name."""
    network = OFAForConditionalGeneration(OFAConfig(**(RECORD["config"] | changes))).eval()
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.from_numpy(_drawn(name, tuple(tensor.shape), seed)))
    return network


def _drawn(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    x = np.random.RandomState((zlib.crc32(name.encode()) + seed) % 2**32).standard_normal(shape)
    if name.endswith("running_var"):
        return 0.5 + np.abs(x)
    if x.ndim == 1 and name.endswith(("weight", "c_attn")):
        return 1 + 0.1 * x
    return 0.12 * x
