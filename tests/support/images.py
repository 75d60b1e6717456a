"""Small pictures, as files hold them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

__all__ = ["COLOURS", "file_bytes", "painted", "save_picture"]

COLOURS = {"red": (220, 30, 20), "green": (20, 200, 40), "blue": (30, 40, 230)}


def painted(colour: str, seed: int, *, size: tuple[int, int] = (20, 24)) -> np.ndarray:
    """[H, W, 3]: one colour under noise."""
    noise = np.random.default_rng(seed).integers(-20, 21, size=(*size, 3))
    return (np.asarray(COLOURS[colour]) + noise).clip(0, 255).astype(np.uint8)


def file_bytes(image: np.ndarray | Image.Image, *, kind: str = "PNG", **options: Any) -> bytes:
    """The image as a file of that kind."""
    made = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    written = io.BytesIO()
    made.save(written, kind, **options)
    return written.getvalue()


def save_picture(path: Path, colour: str, seed: int, *, size: tuple[int, int] = (20, 24)) -> None:
    """A file of one painted image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(file_bytes(painted(colour, seed, size=size)))
