"""Images as rows hold them: a file's path or bytes, or pixels; checked when they are read.

A row keeps what it was given (a path stays a path), so that images fill no memory before a client
works on them.
"""

from __future__ import annotations

import base64
import binascii
import functools
import io
import struct
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from atoll.data.pixels import eight_bits, laid_out, listed_pixels
from atoll.errors import DataError

__all__ = ["Stored", "open_image", "placed_image"]

Stored = str | bytes | np.ndarray
"""A path, a file's bytes, or pixels of 8 bits, [H, W] or [H, W, C]."""

CHECKED = 1 << 20  # files whose check is remembered
SHOWN = 60
_BROKEN = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, ArithmeticError,
    struct.error, zlib.error,
)  # fmt: skip


def placed_image(row: dict[str, Any], folder: Path | None) -> dict[str, Any]:
    """The row with its image as it is kept; relative paths are meant from `folder`.

    Raises:
        DataError: for an image that is not there or cannot be read, without the row's place.
    """
    if row.get("image") is None:
        return row
    image = _stored(row["image"], folder)
    fault = _fault(image)
    if fault is not None:
        named = f" {image}" if isinstance(image, str) else ""
        raise DataError(f"`image`{named} {fault}")
    return {**row, "image": image}


def open_image(value: Stored) -> Any:
    """A Pillow image of 8 bits, grey (L) or in colours (RGB), upright, on white where transparent.

    Raises:
        OSError, ValueError and others that Pillow raises for a file that is no whole image.
    """
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if isinstance(value, np.ndarray):
            return _plain(Image.fromarray(value))
        with Image.open(value if isinstance(value, str) else io.BytesIO(value)) as opened:
            return _plain(opened)


def _stored(value: Any, folder: Path | None) -> Stored:
    """What is kept of a path, bytes, base64 (alone or as a data: URI), pixels, or a mapping.

    A mapping of bytes and path is how Hugging Face data sets write an image.
    """
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return value
    if isinstance(value, list):
        return listed_pixels(value)
    if isinstance(value, np.ndarray):
        return laid_out(eight_bits(value))
    if not isinstance(value, str) or not value:
        raise DataError(f"`image` is {type(value).__name__}; give a path, bytes, base64 or pixels.")
    if value.startswith("data:"):
        return _decoded(value.partition(",")[2])
    path = Path(value) if folder is None else folder / value
    if _is_file(path):
        return str(path)
    found = _unmarked(value)
    if found is None:
        shown = str(path) if len(value) <= SHOWN else f"{value[:SHOWN]}..."
        raise DataError(f"{shown}: this image is named in the rows but is not there.")
    return found


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise DataError(f"`image` is a data: URI that is not base64 ({error}).") from error


def _unmarked(text: str) -> bytes | None:
    """The bytes behind plain base64; None for text that is none, or no image."""
    try:
        found = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return found if _fault(found) is None else None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long, or holds a zero
        return False


def _fault(value: Stored) -> str | None:
    """Why an image cannot be read, in words; None where it can. A file is looked at once."""
    if isinstance(value, str):
        stated = Path(value).stat()
        return _file_fault(value, stated.st_size, stated.st_mtime_ns)
    return _looked_at(value)


@functools.lru_cache(maxsize=CHECKED)
def _file_fault(path: str, size: int, changed: int) -> str | None:
    return _looked_at(path)


def _looked_at(value: Stored) -> str | None:
    from PIL import Image, UnidentifiedImageError

    try:
        open_image(value)
    except UnidentifiedImageError:
        return "is no image; replace the file or remove the row."
    except Image.DecompressionBombError as error:
        return f"is too large ({error}); scale it down."
    except _BROKEN as error:
        return f"cannot be read as an image ({error}); replace the file or remove the row."
    return None


def _plain(image: Any) -> Any:
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        # Pillow's own conversion would cut every value above 255.
        return Image.fromarray(np.rint(np.asarray(image) * (255 / 65535)).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of 32 bits, mode {image.mode}: save it with 8 or 16")
    if image.has_transparency_data:
        clear = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear).convert("RGB")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")
