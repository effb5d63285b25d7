"""OFA (Wang et al. 2022, arXiv:2202.03052) for transformers: loading, saving, generation, gradient checkpointing."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import EncoderDecoderCache, GenerationMixin, PreTrainedModel, initialization as init
from transformers.cache_utils import DynamicCache
from transformers.modeling_outputs import Seq2SeqLMOutput

from icltool_ofa.config import OFAConfig
from icltool_ofa.decoder import OFADecoder
from icltool_ofa.encoder import OFAEncoder, OFAEncoderOutput
from icltool_ofa.layers import OFAAttention
from icltool_ofa.positions import token_buckets

#: The field of an output that generation takes the cache from, by the release of transformers.
_CACHE = "cache" if "cache" in Seq2SeqLMOutput.__dataclass_fields__ else "past_key_values"
_EMBEDDING = "encoder.embed_tokens.weight"


class OFAForConditionalGeneration(PreTrainedModel, GenerationMixin):
    """An encoder-decoder that reads an image and a text and writes a text.

    `from_pretrained` takes a folder in the layout of the public checkpoints (config.json and pytorch_model.bin, or
    model.safetensors); `icltool_ofa.loading.load_network` does the same and says in one line what is wrong with one.
    Positions in use are computed, so that a checkpoint may have those buffers or not.
    """

    config_class = OFAConfig
    config: OFAConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _no_split_modules: ClassVar[list[str]] = ["OFAEncoderLayer", "OFADecoderLayer", "Bottleneck"]
    _tied_weights_keys: ClassVar[dict[str, str]] = {
        "decoder.embed_tokens.weight": _EMBEDDING,
        "decoder.output_projection.weight": _EMBEDDING,
    }
    _keys_to_ignore_on_load_unexpected: ClassVar[list[str]] = [
        r"token_rp_bucket$",
        r"image_rp_bucket$",
        r"image_position_idx$",
        r"(encoder|decoder)\.version$",
    ]
    _keys_to_ignore_on_load_missing: ClassVar[list[str]] = [r"num_batches_tracked$"]

    def __init__(self, config: OFAConfig) -> None:
        super().__init__(config)
        self.encoder = OFAEncoder(config)
        self.decoder = OFADecoder(config)
        if not config.share_decoder_input_output_embed:
            self._tied_weights_keys = {"decoder.embed_tokens.weight": _EMBEDDING}
        self.post_init()

    @classmethod
    def from_pretrained(cls, *args: Any, **options: Any) -> Any:
        loaded = super().from_pretrained(*args, **options)
        network = loaded[0] if isinstance(loaded, tuple) else loaded
        network.decoder.freeze_image_generation()  # loading gives every weight a gradient again
        return loaded

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        patch_images: Tensor | None = None,
        patch_masks: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: OFAEncoderOutput | None = None,
        cache: EncoderDecoderCache | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        return_dict: bool | None = None,
        past_key_values: EncoderDecoderCache | None = None,
    ) -> Seq2SeqLMOutput:
        """Logits after each decoder token.

        Parameters
        ----------
        input_ids : int64 [B, T], the prompt; not needed with `encoder_outputs`.
        attention_mask : bool or int [B, T], false at padding; by default what is the padding token is hidden.
        patch_images : float [B, 3, H, W], any H and W up to 16 * image_bucket_size; None for text alone.
        patch_masks : bool [B], False hides the image of a row.
        decoder_input_ids : int64 [B, L], the beginning-of-text token and the target; made from `labels` where left out.
        decoder_attention_mask : bool or int [B, L] (cached tokens included), as `attention_mask`.
        encoder_outputs : what `get_encoder()` gave for the same rows.
        cache : that of earlier tokens, extended in place.
        labels : int64 [B, L], -100 where nothing counts.
        use_cache : begin a cache if there is none.
        return_dict : taken and not read: the answer always has named fields.
        past_key_values : the name of `cache` in transformers until 5.23.

        Returns
        -------
        Seq2SeqLMOutput
            `logits` float [B, L, vocabulary], `loss` (mean cross-entropy over the labels that count), the cache, and
            the encoder's `last_hidden_state` float [B, S, d].
        """
        cache = past_key_values if cache is None else cache
        if encoder_outputs is None:
            if input_ids is None:
                raise ValueError("OFA needs input_ids or encoder_outputs")
            encoder_outputs = self.encoder(input_ids, attention_mask, patch_images, patch_masks)
        if decoder_input_ids is None:
            if labels is None:
                raise ValueError("OFA needs decoder_input_ids or labels")
            decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
        if self.training and self.decoder.layers[0].gradient_checkpointing:
            cache = None  # a layer that is run again for its gradients would extend the cache twice
        elif cache is None and use_cache:
            cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        logits = self.decoder(decoder_input_ids, encoder_outputs, decoder_attention_mask, cache)
        loss = None
        if labels is not None:
            loss = functional.cross_entropy(logits.flatten(0, 1).float(), labels.flatten())
        return Seq2SeqLMOutput(
            loss=loss,
            logits=logits,
            **{_CACHE: cache},
            encoder_last_hidden_state=encoder_outputs.last_hidden_state,
        )

    @torch.no_grad()
    def generate(
        self,
        inputs: Tensor | None = None,
        *args: Any,
        patch_images: Tensor | None = None,
        patch_masks: Tensor | None = None,
        **options: Any,
    ) -> Any:
        """`GenerationMixin.generate` with the inputs of `forward`; `icltool_ofa.beam.beam_search` is the published search.

        The images are encoded before the search begins, so that their pixels are not expanded over the beams.
        """
        input_ids = options.pop("input_ids", inputs)
        encoded = options.pop("encoder_outputs", None)
        if encoded is None:
            encoded = self.encoder(input_ids, options.get("attention_mask"), patch_images, patch_masks)
        options.pop("attention_mask", None)  # what the encoder gave has its own, which counts the image
        # A copy: the search expands it in place.
        return super().generate(input_ids, *args, encoder_outputs=OFAEncoderOutput(**encoded), **options)

    def prepare_decoder_input_ids_from_labels(self, labels: Tensor) -> Tensor:
        """int64 [B, L]: the labels one place to the right behind the beginning-of-text token, -100 as padding."""
        start = labels.new_full((len(labels), 1), self.config.decoder_start_token_id)
        shifted = torch.cat([start, labels[:, :-1]], dim=1)
        return shifted.masked_fill(shifted == -100, self.config.pad_token_id)

    def freeze_resnet(self) -> None:
        """Stop training the ResNet, BatchNorm's statistics included; a later `train()` leaves it in evaluation mode."""
        self.encoder.embed_images.freeze()

    def freeze_embeddings(self) -> None:
        """Stop training the token embeddings, which are the output projection as well (where the two are shared)."""
        self.encoder.embed_tokens.requires_grad_(False)

    def get_encoder(self, modality: str | None = None) -> OFAEncoder:
        return self.encoder

    def get_input_embeddings(self) -> nn.Embedding:
        return self.encoder.embed_tokens

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.encoder.embed_tokens = value
        self.decoder.embed_tokens = value

    def get_output_embeddings(self) -> nn.Linear:
        return self.decoder.output_projection

    def set_output_embeddings(self, value: nn.Linear) -> None:
        self.decoder.output_projection = value

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, OFAAttention):
            init.ones_(module.c_attn)
        elif isinstance(module, OFAEncoder | OFADecoder):
            for table in (*module.token_rel_pos_table_list, *module.image_rel_pos_table_list):
                init.zeros_(table.weight)
            init.copy_(module.token_rp_bucket, token_buckets(self.config.token_bucket_size))
