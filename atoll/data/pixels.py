"""Arrays of pixels, brought to the one form that is kept: 8 bits, [H, W] or [H, W, C]."""

from __future__ import annotations

from typing import Any

import numpy as np

from atoll.errors import DataError

__all__ = ["eight_bits", "laid_out", "listed_pixels"]

_TOPS = {"i": (255, 65535), "u": (255, 65535), "f": (1, 255)}
"""What white may be, by kind of number."""
_DARK = 8
"""A whole set that is darker than white by this factor was scaled in another way: 12 bits, say."""


def eight_bits(array: np.ndarray, largest: float | None = None) -> np.ndarray:
    """Whole numbers from 0 to 255 of pixels in another number format.

    largest: the largest pixel of all images of a set, of which this is one: it tells what white is
        (255 or 65535 for whole numbers, 1 or 255 for others).

    Raises:
        DataError: for negative or infinite pixels, larger ones, and a set that would be all dark.
    """
    if not array.size:
        return array.astype(np.uint8)
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    numbers = (255,) if array.dtype == np.uint8 else _TOPS.get(array.dtype.kind, ())
    if not numbers:
        raise DataError(f"`image` holds {array.dtype}; pixels are numbers.")
    low, high = float(array.min()), max(float(array.max()), largest or 0.0)
    white = next((top for top in numbers if 0 <= low <= high <= top), None)
    if white is None:
        raise DataError(
            f"`image` holds pixels from {low:g} to {high:g} ({array.dtype}); write whole numbers "
            "from 0 to 255, or shares from 0 to 1."
        )
    if largest is not None and 0 < high * _DARK < white:
        raise DataError(
            f"the brightest pixel of all images is {high:g} ({array.dtype}, where {white} is "
            f"white): a model would see next to nothing. Scale them, as in x * (255 / {high:g})."
        )
    if array.dtype == np.uint8:
        return array
    return np.rint(array * (255 / white)).astype(np.uint8)


def listed_pixels(value: list[Any]) -> np.ndarray:
    """Pixels that were written out as lists of whole numbers."""
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise DataError("`image` has rows of pixels of different lengths; fill them up.") from error
    if array.dtype.kind not in "iu" or not array.size or array.min() < 0 or array.max() > 255:
        raise DataError("`image` is a list; its pixels must be whole numbers from 0 to 255.")
    return laid_out(array.astype(np.uint8))


def laid_out(array: np.ndarray) -> np.ndarray:
    """[H, W] or [H, W, C]; a single channel goes, and channels that come first move to the end."""
    if array.ndim == 3 and array.shape[-1] not in (1, 3, 4) and array.shape[0] in (1, 3, 4):
        array = np.moveaxis(array, 0, -1)
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or 0 in array.shape or array.shape[2:] not in ((), (3,), (4,)):
        raise DataError(
            f"`image` has the shape {tuple(array.shape)}; give [height, width], or that and 1, 3 "
            "or 4 channels."
        )
    return np.ascontiguousarray(array)
