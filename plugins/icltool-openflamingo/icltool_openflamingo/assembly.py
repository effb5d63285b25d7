"""Assembles CLIP, language model and checkpoint. The only module that imports open_flamingo."""

from __future__ import annotations

import inspect
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from open_flamingo.src.flamingo import Flamingo
from open_flamingo.src.flamingo_lm import FlamingoLMMixin
from open_flamingo.src.utils import extend_instance

from icltool import ConfigError
from icltool_openflamingo.mpt import RENAMED
from icltool_openflamingo.prompts import END_OF_CHUNK, IMAGE

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_LAYERS = {"mpt": "transformer.blocks", "llama": "model.layers"}


class ConditionedLanguageModel(FlamingoLMMixin):  # type: ignore[misc]
    """open_flamingo's mixin with the forward that transformers' generation calls.

    Generation drops a mask without padding, but the mixin requires one. It is passed on as None: ones of the input's shape
    would be wrong with cached keys, since a mask as short as one new token hides all but the first of them. `position_ids` is
    a parameter so that generation computes them from the attention mask: a token's position is that of the unpadded prompt.
    """

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        **kwargs: object,
    ) -> object:
        """See the language model's own forward. Raises TypeError for an unknown argument, which it would ignore silently."""
        known = inspect.signature(super(FlamingoLMMixin, self).forward).parameters
        if "cache" in known and "past_key_values" in kwargs:  # the one name that open_flamingo knows
            past = kwargs.pop("past_key_values")
            kwargs.setdefault("cache", past)
        unknown = sorted(kwargs.keys() - known.keys() - {"return_dict"})
        if unknown:
            raise TypeError(f"{type(self).__name__}.forward takes no {', '.join(unknown)}")
        return super().forward(input_ids, attention_mask, position_ids=position_ids, **kwargs)


def layers_of(language_model: PreTrainedModel, where: str) -> str:
    """The attribute with the decoder layers. Raises ConfigError for a family on which no OpenFlamingo is built."""
    kind = str(language_model.config.model_type)
    if kind not in _LAYERS:
        raise ConfigError(f"the language model in {where} is of type {kind!r}", f"known: {', '.join(sorted(_LAYERS))}")
    return _LAYERS[kind]


def embedding_rows(state: Mapping[str, torch.Tensor], language_model: PreTrainedModel, file: Path) -> int:
    """The number of token embeddings in the checkpoint. Raises ConfigError if it has none of this language model."""
    key = embedding_key(language_model)
    if key not in state:
        raise ConfigError(
            f"checkpoint {file} does not fit: {key} missing", "it was trained with a language model of another kind"
        )
    return int(state[key].shape[0])


def embedding_key(language_model: PreTrainedModel) -> str:
    """The name of the token embeddings in the checkpoint."""
    weight = language_model.get_input_embeddings().weight
    name: str = next(name for name, p in language_model.named_parameters() if p is weight)
    return f"lang_encoder.{name}"


def assemble(
    clip: torch.nn.Module,
    width: int,
    language_model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    interval: int,
    where: str,
) -> Flamingo:
    """An open_flamingo `Flamingo` with cross attention in every `interval`-th layer, its own parts still random."""
    extend_instance(language_model, ConditionedLanguageModel)
    language_model.set_decoder_layers_attr_name(layers_of(language_model, where))
    return Flamingo(
        clip,
        language_model,
        eoc_token_id=tokenizer.convert_tokens_to_ids(END_OF_CHUNK),
        media_token_id=tokenizer.convert_tokens_to_ids(IMAGE),
        vis_dim=width,
        cross_attn_every_n_layers=interval,
    )


def read_checkpoint(file: Path) -> dict[str, torch.Tensor]:
    """The state dict in a checkpoint: the file's own content, or its "model_state_dict", without "module." prefixes.

    Raises ConfigError for a file that is damaged, or contains anything but tensors.
    """
    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, ValueError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ConfigError(f"checkpoint {file} cannot be read: {lines[0]}", "download it again") from error
    if isinstance(content, Mapping):
        content = content.get("model_state_dict", content)
    if not isinstance(content, Mapping) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise ConfigError(f"checkpoint {file} contains no state dict", "use an OpenFlamingo checkpoint.pt")
    return {str(key).removeprefix("module."): value for key, value in content.items()}


def load_checkpoint(flamingo: Flamingo, state: Mapping[str, torch.Tensor], file: Path) -> None:
    """Copies the checkpoint into the model.

    Every key must be known and of the right shape; else raises ConfigError. The parts of the base models may be absent: the
    CLIP tower and the language model's own layers. Perceiver, cross attention and token embeddings must be there. (Rotary
    frequencies, which older releases of transformers stored, are computed and not read.)
    """
    names = {
        _canonical(key, flamingo): value for key, value in state.items() if not key.endswith("rotary_emb.inv_freq")
    }
    own = {key: value for key, value in flamingo.state_dict().items() if key == _canonical(key, flamingo)}
    unexpected = sorted(set(names) - set(own))
    misshapen = sorted(key for key in set(names) & set(own) if names[key].shape != own[key].shape)
    embeddings = embedding_key(flamingo.lang_encoder)
    missing = sorted(key for key in set(own) - set(names) if _is_trained(key, embeddings))
    for fault, keys in (("unexpected", unexpected), ("of another shape", misshapen), ("missing", missing)):
        if keys:
            more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            raise ConfigError(
                f"checkpoint {file} does not fit: {keys[0]}{more} {fault}",
                "check its language model, CLIP and cross-attention interval",
            )
    flamingo.load_state_dict(names, strict=False)


def _canonical(key: str, flamingo: Flamingo) -> str:
    """The canonical name of a weight: open_flamingo registers layers twice, and MPT used to have other names."""
    layers = f"lang_encoder.{flamingo.lang_encoder.decoder_layers_attr_name}"
    key = re.sub(r"^lang_encoder\.gated_cross_attn_layers\.(\d+)\.", rf"{layers}.\1.gated_cross_attn_layer.", key)
    key = re.sub(r"^lang_encoder\.old_decoder_blocks\.(\d+)\.", rf"{layers}.\1.decoder_layer.", key)
    for old, new in RENAMED.items():
        key = re.sub(old, new, key) if flamingo.lang_encoder.config.model_type == "mpt" else key
    return key


def _is_trained(key: str, embeddings: str) -> bool:
    return key.startswith("perceiver.") or ".gated_cross_attn_layer." in key or key == embeddings
