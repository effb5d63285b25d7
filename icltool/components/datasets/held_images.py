"""Writes images that a data set embeds in its files to files of their own, unchanged and named by their content."""

from __future__ import annotations

import hashlib
import io
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from icltool.contracts import image_error, open_image, read_whole
from icltool.errors import ConfigError, DataError
from icltool.store.atomic import writing

#: In place of a path, for an embedded image.
_ITSELF = "of the data set"
_SUFFIXES = {"JPEG": ".jpg", "MPO": ".jpg", "TIFF": ".tif"}


class HeldImages:
    """Gives each image of a data set a file and an image id; equal images share both.

    Bytes go to FOLDER/ab/abcdef….jpg, "abcdef…" being the hash of the content and ".jpg" the format that they are
    encoded in; a complete file that exists is left as it is. An image that the data set names by its path is
    used in place (relative paths: below `base`). If `folder` is None, nothing is written and paths are made up.
    """

    def __init__(self, folder: Path | None, base: Path | None) -> None:
        self.folder = folder
        self.base = base
        self._known: dict[bytes, tuple[str, int]] = {}

    def place(self, value: object, where: str, decode: bool = False) -> tuple[str, int]:
        """(absolute path, image id) of an image: {"bytes", "path"} as `datasets` stores it, bytes, or a path.

        `decode` decodes it fully; else only its header is read. Raises DataError, which names `where`, if it is not an image.
        """
        content, path = self._content(value, where)
        digest = hashlib.blake2b(content, digest_size=16).digest()
        if digest not in self._known or decode:
            kind = _format(content, where, decode)
            if path is None:
                path = self._write(digest.hex(), _SUFFIXES.get(kind, f".{kind.lower()}"), content)
            self._known.setdefault(digest, (path, int.from_bytes(digest[:8], "big") >> 1))
        return self._known[digest]

    def _content(self, value: object, where: str) -> tuple[bytes, str | None]:
        """The encoded image, and its path if it is a file of its own."""
        encoded = value.get("bytes") if isinstance(value, Mapping) else value
        if isinstance(encoded, (bytes, bytearray, memoryview)):
            return bytes(encoded), None
        path_text = value.get("path") if isinstance(value, Mapping) else value
        if not isinstance(path_text, str) or not path_text:
            what = "no image" if path_text is None or path_text == "" else f"{type(path_text).__name__}, not an image"
            raise DataError(f"{where} holds {what}", "name the column of the images with --option image=COLUMN")
        if "://" in path_text:
            raise DataError(
                f"{where} names its image by the URL {path_text}", "download the images, then use the data set `folder`"
            )
        path = (self.base or Path.cwd()) / Path(path_text).expanduser()
        try:
            return read_whole(path), os.path.abspath(path)  # noqa: PTH100 (links stay as they are named)
        except OSError as error:
            raise DataError(
                f"{where}: image {path} cannot be read: {error.strerror or error}",
                "image paths must be absolute or relative to the data set's folder",
            ) from error

    def _write(self, name: str, suffix: str, content: bytes) -> str:
        """Writes the file unless a complete one exists; returns its path."""
        if self.folder is None:
            return f"{name}{suffix}"
        path = self.folder / name[:2] / f"{name}{suffix}"
        with writing(path):
            if path.is_file() and path.stat().st_size == len(content):
                return str(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{name}.{secrets.token_hex(4)}.tmp")
            try:
                temporary.write_bytes(content)
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
        return str(path)


def _format(content: bytes, where: str, decode: bool) -> str:
    """Pillow's name of the format that an image is encoded in."""
    from PIL import Image

    try:
        with open_image(io.BytesIO(content)) as image:
            if decode:
                image.load()
            return image.format or "image"
    except ConfigError:
        raise
    except Exception as error:  # decoders raise many kinds: OSError, SyntaxError, struct.error …
        fault = image_error(_ITSELF, error)
        reason = fault.message.removeprefix(f"image {_ITSELF} ").partition(" <_io")[0]
        hint = fault.hint if isinstance(error, Image.DecompressionBombError) else "the data set's file is damaged"
        raise DataError(f"{where}: its image {reason}", hint) from error
