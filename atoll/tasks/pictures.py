"""What tasks on images share: the plain lines from a file to inputs, and the processor's file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from atoll.config import Experiment
from atoll.models.base import Base

__all__ = ["image_lines", "processor_file"]


def image_lines(base: Base, name: str = "batch") -> list[str]:
    """From image files to a batch. Atoll also turns photos upright and lays clear ones on white."""
    assert base.processor is not None, "a model that reads images has a processor"
    return [
        "from PIL import Image",
        f'images = [Image.open("image.png").convert("{base.processor.mode}")]',
        f'{name} = processor(images=images, return_tensors="pt").to(model.dtype)',
    ]


def processor_file(experiment: Experiment, base: Base) -> Mapping[str, Any]:
    """The image processor that was made for a model that has none."""
    if base.processor is None or not base.processor.made:
        return {}
    return {"preprocessor_config.json": json.loads(base.processor.inner.to_json_string())}
