"""Finding a model's folder and reading it."""

from __future__ import annotations

import contextlib
import copy
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from icltool import ConfigError, MissingWeightsError, Weights, find_weights
from icltool_ofa.config import OFAConfig
from icltool_ofa.loading import load_config, load_network
from icltool_ofa.network import OFAForConditionalGeneration
from icltool_ofa.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

#: What of a hub repository is fetched.
_FILES = ["*.json", "*.safetensors", "pytorch_model*.bin", "merges.txt"]
#: The same checkpoints' names on ModelScope.
_ON_MODELSCOPE = {
    f"OFA-Sys/ofa-{size}": f"damo/ofa_pretrain_{size}_en" for size in ("tiny", "medium", "base", "large", "huge")
}
#: In config.json: without weights beside it they are drawn with this seed.
SEED = "initial_weights_seed"


def find_model(name: str, packaged: str | None, hub_id: str | None, path: str | None, on_hub: bool) -> Weights:
    """As `icltool.find_weights`. `packaged` is a folder of this package; for a model that is not `on_hub` the hint says how to
    get it. A folder of models may also have a checkpoint under its name on ModelScope."""
    folder = None if packaged is None else str(Path(__file__).parent / packaged)
    try:
        return find_weights(name, folder, hub_id, path)
    except MissingWeightsError as error:
        if path is None and hub_id in _ON_MODELSCOPE:
            with contextlib.suppress(ConfigError):
                return find_weights(name, None, _ON_MODELSCOPE[hub_id], None)
        if on_hub:
            raise
        raise ConfigError(
            f"{error.message}; {hub_id} is on ModelScope, not on the Hugging Face hub",
            f"run `modelscope download --model {hub_id} --local_dir DIR` and use --model-path DIR, or download it into "
            f"MODEL_CPK_DIR/{hub_id}",
        ) from error


def folder_of(weights: Weights) -> Path:
    """The local folder of the weights, downloading a hub repository. Raises ConfigError if that fails."""
    if Path(weights.source).is_dir():
        return Path(weights.source)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(weights.source, allow_patterns=_FILES, local_files_only=weights.local_only))
    except Exception as error:  # network, access rights, names: the hub's errors share no base class
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ConfigError(
            f"{weights.source} cannot be downloaded: {lines[0]}", "check name and connection, or use --model-path DIR"
        ) from error


def read_folder(folder: Path, dtype: torch.dtype) -> tuple[OFAForConditionalGeneration, PreTrainedTokenizerFast]:
    """(network in evaluation mode on the CPU, tokenizer). Raises what `load_network` and `load_tokenizer` do, and ConfigError
    if the two do not match."""
    config = load_config(folder)
    tokenizer = load_tokenizer(folder)
    if len(tokenizer) > config.vocab_size:
        raise ConfigError(
            f"the vocabulary in {folder} has {len(tokenizer)} tokens, the network {config.vocab_size}",
            "use the vocabulary that came with the checkpoint",
        )
    seed = config.__dict__.pop(SEED, None)
    if seed is not None and not any(file.suffix in (".safetensors", ".bin") for file in folder.iterdir()):
        network = drawn(config, int(seed))
    else:
        network = load_network(folder, config=config)
    return in_precision(network, dtype), tokenizer


def in_precision(network: OFAForConditionalGeneration, dtype: torch.dtype) -> OFAForConditionalGeneration:
    """The network in `dtype`, but its batch norms in float32: their statistics accumulate small changes, and torch normalizes
    half precision by parameters in either precision, but not by a mixture."""
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    states = [copy.deepcopy(norm.state_dict()) for norm in norms]
    network.to(dtype)
    for norm, state in zip(norms, states, strict=True):
        norm.float().load_state_dict(state)
    return network


def drawn(config: OFAConfig, seed: int) -> OFAForConditionalGeneration:
    """A network with weights drawn by `seed`, in evaluation mode on the CPU."""
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.manual_seed(seed)
        return OFAForConditionalGeneration(config).eval()
