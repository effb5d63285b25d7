"""Options of encoders that transformers reads."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from icltool.contracts import Options


class EncoderOptions(Options):
    """Which weights to load, and how to run them."""

    name: str = Field("encoder", description="name of the encoder in messages")
    hub_id: str | None = Field(None, description="OWNER/NAME of the published weights on the Hugging Face hub")
    path: str | None = Field(
        None, description="folder of the weights, or OWNER/NAME to download them from the Hugging Face hub"
    )
    device: str = Field("auto", description="device to run on: cpu, cuda, cuda:1 …; auto uses a GPU if there is one")
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="precision of the weights")


class ImageTextOptions(EncoderOptions):
    """Options of encoders of images and texts."""

    max_length: int | None = Field(
        None, ge=1, description="tokens of a text at most, the rest is left out; default: the model's own limit"
    )


class ImageOptions(EncoderOptions):
    """Options of encoders of images."""

    pooling: Literal["auto", "cls", "mean"] = Field(
        "auto",
        description="how an image becomes one vector: its class token (cls), the mean of its patches, or auto: as the model "
        "pools",
    )


class TextOptions(EncoderOptions):
    """Options of encoders of texts."""

    pooling: Literal["auto", "cls", "mean", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"] = Field(
        "auto",
        description="how the tokens' vectors become one; auto: as the folder's modules.json describes, else mean",
    )
    normalize: bool | None = Field(
        None, description="scale each vector to length 1; default: as the folder's modules.json describes, else false"
    )
    prefix: str | None = Field(
        None, description="text in front of each text, such as 'query: '; default: the model's default prompt"
    )
    prompt: str | None = Field(None, description="name of one of the model's own prompts, in place of prefix")
    max_length: int | None = Field(
        None, ge=1, description="tokens of a text at most, the rest is left out; default: the model's own limit"
    )
