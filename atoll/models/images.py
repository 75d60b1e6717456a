"""From a picture to what a model reads, through the model's own image processor.

The processor resizes once, when a row is encoded, and what is kept are 8 bits a pixel; its
arithmetic on numbers (scale, mean, deviation) follows in each batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from atoll.errors import DataError, ModelError
from atoll.models.locate import Source, find_file, load_auto

__all__ = ["Pixels", "Processor", "load_processor", "pixels_of"]

_FILES = ("preprocessor_config.json", "processor_config.json")


@dataclass(frozen=True)
class Processor:
    """A model's image processor, of transformers.

    channels: of the images that the model reads: 1 (grey) or 3.
    made: whether it was made here, because the model has none.
    """

    inner: Any
    channels: int
    made: bool = False

    @property
    def mode(self) -> str:
        """What Pillow calls such images."""
        return "L" if self.channels == 1 else "RGB"


@dataclass(frozen=True)
class Pixels:
    """What becomes of images.

    pack: a Pillow image (L or RGB) -> [C, H, W], which an Example keeps.
    unpack: such arrays -> model inputs [N, C, H, W]; None stands for a padding row.
    """

    pack: Callable[[Any], np.ndarray]
    unpack: Callable[[Sequence[np.ndarray | None]], Tensor]


def load_processor(source: Source, config: Any) -> Processor:
    """The model's image processor; it runs on Pillow and NumPy, without torchvision.

    config: the model's.

    Raises:
        ModelError: when its file cannot be read, or there is none and config.json has no size.
    """
    channels = int(_of(config, "num_channels") or 3)
    if any(find_file(source, name) for name in _FILES):
        found = load_auto("AutoImageProcessor", source, options={"backend": "pil"})
        return Processor(found, channels)
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    size = _of(config, "image_size")
    if size is None:
        raise ModelError(
            f"model {source.hub_id} has no preprocessor_config.json, and its config.json names no "
            "image_size; save its image processor beside it, as in "
            "processor.save_pretrained(folder)"
        )
    height, width = (size, size) if isinstance(size, int) else size
    half = [0.5] * channels
    made = ViTImageProcessorPil(
        size={"height": height, "width": width}, image_mean=half, image_std=half
    )
    return Processor(made, channels, made=True)


def pixels_of(processor: Processor, source: Source) -> Pixels:
    """How images are kept for this processor, and read.

    Raises:
        ModelError: when the processor does not take images of the model's channels.
    """
    from PIL import Image

    inner, mode = processor.inner, processor.mode
    draw = np.random.default_rng(0)
    noise = Image.fromarray(draw.integers(0, 256, (37, 53, 3), dtype=np.uint8)).convert(mode)
    whole = _first(processor, noise, source)
    raw = {"do_rescale": False, "do_normalize": False}
    small, scaled = _processed(inner, noise, raw), _arithmetic(inner, processor.channels)
    follows = np.allclose(scaled(torch.from_numpy(small).float()).numpy(), whole, atol=1e-5)
    # A processor with steps of its own between these keeps what it makes.
    options = raw if follows and small.dtype == np.uint8 else {}

    def pack(image: Any) -> np.ndarray:
        found = _processed(inner, image.convert(mode), options)
        if found.shape != whole.shape:
            raise DataError(
                f"the image processor of {source.hub_id} gives images of different sizes, "
                f"{found.shape} beside {whole.shape}; set its size to a height and width"
            )
        return found

    def unpack(arrays: Sequence[np.ndarray | None]) -> Tensor:
        blank = np.zeros_like(small if options else whole)
        stacked = np.stack([blank if array is None else array for array in arrays])
        pixels = torch.from_numpy(stacked).float()
        return scaled(pixels) if options else pixels

    return Pixels(pack, unpack)


def _first(processor: Processor, image: Any, source: Source) -> np.ndarray:
    """What becomes of a first image, when it is what the model reads."""
    try:
        found = _processed(processor.inner, image, {})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(
            f"the image processor of {source.hub_id} does not take images of "
            f"{processor.channels} channels, which its model reads ({error}); correct "
            "preprocessor_config.json"
        ) from error
    if found.ndim != 3 or len(found) != processor.channels:
        raise ModelError(
            f"the image processor of {source.hub_id} makes inputs of shape {found.shape}, but the "
            f"model reads [{processor.channels}, height, width]; correct preprocessor_config.json"
        )
    return found


def _processed(processor: Any, image: Any, options: Mapping[str, bool]) -> np.ndarray:
    return np.asarray(processor(images=image, return_tensors="np", **options)["pixel_values"][0])


def _arithmetic(processor: Any, channels: int) -> Callable[[Tensor], Tensor]:
    """What the processor does to numbers: (x·rescale_factor − mean) / deviation, by channel."""
    settings = processor.to_dict()
    factor = settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale") else 1.0
    mean, deviation = torch.zeros(channels), torch.ones(channels)
    if settings.get("do_normalize"):
        mean = _by_channel(settings.get("image_mean"), mean)
        deviation = _by_channel(settings.get("image_std"), deviation)
    offset, scale = (mean / deviation).view(-1, 1, 1), (factor / deviation).view(-1, 1, 1)
    return lambda pixels: pixels * scale - offset


def _by_channel(value: Any, like: Tensor) -> Tensor:
    return like if value is None else torch.as_tensor(value, dtype=like.dtype).expand_as(like)


def _of(config: Any, name: str) -> Any:
    """A setting of the model's vision part: its own config, or the whole one."""
    settings = config.to_dict()
    inside = settings.get("vision_config") or {}
    return inside.get(name, settings.get(name))
