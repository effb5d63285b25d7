"""Settings of a loaded OFA besides its weights: images and styles. They are saved with fine-tuned weights."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

from icltool import ConfigError
from icltool_ofa.prompts import STYLE_PROMPT, OFAFormat
from icltool_ofa.resnet import STRIDE
from icltool_ofa.tokenizer import CODES

#: The environment variable that names the data set's folder.
ROOT = "PERSONALITY_CAPTIONS_PATH"
#: How images become squares: the middle of them, or all of it squeezed.
FITS = ("centre", "squeeze")
Channels = tuple[float, float, float]


@dataclass(frozen=True)
class Settings:
    """`image_size` and `shorter` in pixels: the shorter side of an image is resized to the latter, and a square of the
    former cut out of the middle (fit "centre"; with "squeeze" all of it is resized to the square). `image_mean` and
    `image_std` normalize the channels. For the others see OFAFormat.
    """

    image_size: int = 224
    shorter: int = 256
    fit: Literal["centre", "squeeze"] = "centre"
    image_mean: Channels = (0.5, 0.5, 0.5)
    image_std: Channels = (0.5, 0.5, 0.5)
    styles: tuple[str, ...] = ()
    style_prompt: str = STYLE_PROMPT
    tokenize_style: bool = False
    lower_case: bool = True

    def adapter(self) -> dict[str, Any]:
        """JSON values from which `settled` makes the same settings."""
        return asdict(self)

    def format(self) -> OFAFormat:
        """The prompt format."""
        return OFAFormat(self.style_prompt, self.styles, self.tokenize_style, self.lower_case)

    def resized(self, size: int) -> Settings:
        """For images of `size` pixels; `shorter` grows or shrinks alike."""
        return replace(self, image_size=size, shorter=max(size, round(self.shorter * size / self.image_size)))


class SettingsOptions(BaseModel):
    """The settings that users may set; None: not set."""

    image_size: int | None = Field(
        None,
        description="side of the square image that the model reads, in pixels; default: that of the weights, or 224",
    )
    shorter: int | None = Field(
        None,
        description="length in pixels to which the shorter side is resized first; default: that of the weights, or 256",
    )
    fit: Literal["centre", "squeeze"] | None = Field(
        None, description="make an image square: crop its centre, or squeeze all of it"
    )
    styles: str | tuple[str, ...] | None = Field(None, description="names of styles, or a file of them, one per line")
    style_prompt: str | None = Field(None, description="prompt for a caption in the style {}")
    tokenize_style: bool | None = Field(
        None, description="write a style as <code_i>, where i is its line, counted from 0"
    )
    lower_case: bool | None = Field(None, description="convert captions to lower case before training and scoring")


def settled(known: Mapping[str, Any], chosen_options: Mapping[str, Any], buckets: int) -> Settings:
    """`chosen_options` (None: not set) over `known`, from the weights, over the defaults. `styles` may be a file, too,
    and is the official list where styles are tokens and nothing else was said.

    Raises ConfigError for values that cannot be, `buckets` being the most positions of a side of an image.
    """
    own = {name: known[name] for name in (f.name for f in fields(Settings)) if known.get(name) is not None}
    own |= {name: tuple(own[name]) for name in ("image_mean", "image_std", "styles") if name in own}
    chosen = {name: value for name, value in chosen_options.items() if value is not None}
    if "styles" in chosen:
        chosen["styles"] = listed(chosen["styles"])
    settings = Settings(**own)
    size = chosen.pop("image_size", settings.image_size)
    check_size(size, buckets)
    settings = replace(settings.resized(size), **chosen)
    if settings.tokenize_style and not settings.styles and (file := official_styles()) is not None:
        settings = replace(settings, styles=listed(file))
    _check(settings)
    return settings


def official_styles() -> Path | None:
    """The list of PersonalityCaptions, if the environment names the data set's folder; else None."""
    root = os.environ.get(ROOT)
    places = [Path(root, *deeper, "personalities.txt") for deeper in (("personality_captions",), ())] if root else []
    return next((place for place in places if place.is_file()), None)


def check_size(size: object, buckets: int) -> None:
    """Raises ConfigError for an image size that the network cannot read."""
    if not isinstance(size, int) or not STRIDE <= size <= STRIDE * buckets:
        raise ConfigError(
            f"this OFA cannot read images of {size!r} pixels a side",
            f"use {STRIDE} to {STRIDE * buckets} pixels",
        )


def listed(styles: str | Path | Sequence[str]) -> tuple[str, ...]:
    """The styles of a file, one per line, or of a sequence. Raises ConfigError if it is unreadable, empty, or repeats one."""
    source = f"the list of styles {styles}" if isinstance(styles, (str, Path)) else "the list of styles"
    if isinstance(styles, (str, Path)):
        try:
            lines: Sequence[str] = Path(styles).expanduser().read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
            raise ConfigError(
                f"{source} cannot be read: {reason}", "name a text file with one style per line"
            ) from error
    else:
        lines = [str(style) for style in styles]
    names = tuple(line.strip() for line in lines if line.strip())
    twice = next((name for name in names if names.count(name) > 1), None)
    if not names or twice is not None or len(names) >= CODES:
        fault = f"has {twice!r} twice" if twice is not None else f"has {len(names)} styles"
        raise ConfigError(f"{source} {fault}", f"name 1 to {CODES - 1} styles, each once")
    return names


def _check(settings: Settings) -> None:
    if settings.fit not in FITS:
        raise ConfigError(f"unknown fit {settings.fit!r}", f"known: {', '.join(FITS)}")
    if not isinstance(settings.shorter, int) or settings.shorter < settings.image_size:
        raise ConfigError(
            f"shorter = {settings.shorter!r} leaves no square of {settings.image_size} pixels",
            "give the image size at least",
        )
    if settings.style_prompt.count("{}") != 1:
        raise ConfigError(
            f"the style prompt {settings.style_prompt!r} must contain {{}} once", "{} is replaced by the style"
        )
    for name in ("tokenize_style", "lower_case"):
        if not isinstance(getattr(settings, name), bool):
            raise ConfigError(f"{name} = {getattr(settings, name)!r} is neither true nor false")
    if settings.tokenize_style and not settings.styles:
        raise ConfigError(
            "tokenize_style needs the list of styles",
            f"--model-option styles=FILE, one style a line, or {ROOT} in the environment",
        )
