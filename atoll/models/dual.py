"""Vectors of images and of texts from a model with an encoder for each, as CLIP has.

Radford et al. 2021, arXiv 2103.00020.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from atoll.errors import ModelError
from atoll.models.base import Base
from atoll.models.checks import check_tokenizer, reads_at_most
from atoll.models.embedding import SCALE, USUAL, LogScale, Vectors
from atoll.models.images import load_processor
from atoll.models.locate import Source, load_auto
from atoll.models.reach import reached

__all__ = ["DualEncoder", "load_dual", "own_temperature", "text_length", "told_padding"]


class DualEncoder(nn.Module):
    """Both encoders; rows of outputs are image and text in turn, [N·2, d] or [N·2, d + 1]."""

    def __init__(self, backbone: nn.Module, *, normalize: bool, log_scale: float | None) -> None:
        super().__init__()
        self.backbone = backbone
        self.normalize = normalize
        self.log_scale = None if log_scale is None else LogScale(log_scale)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
    ) -> Tensor:
        """What is not given has a vector of zeros; float32 or finer."""
        backbone: Any = self.backbone
        found: list[Tensor | None] = [None, None]
        if pixel_values is not None:
            dtype = next(backbone.parameters()).dtype
            found[0] = _pooled(backbone.get_image_features(pixel_values=pixel_values.to(dtype)))
        if input_ids is not None:
            mask = {} if attention_mask is None else {"attention_mask": attention_mask}
            found[1] = _pooled(backbone.get_text_features(input_ids=input_ids, **mask))
        like = next(one for one in found if one is not None)
        both = torch.stack([torch.zeros_like(like) if one is None else one for one in found], dim=1)
        if self.normalize:
            both = normalize(both, dim=-1)
        flat = both.flatten(0, 1)
        if self.log_scale is None:
            return flat
        column = self.log_scale(like).to(flat.dtype).repeat_interleave(2, 0)
        return torch.cat([flat, column], dim=1)


def _pooled(output: Any) -> Tensor:
    vectors: Tensor = output if isinstance(output, Tensor) else output.pooler_output
    return vectors.to(torch.promote_types(vectors.dtype, torch.float32))


def load_dual(
    source: Source, vectors: Vectors, *, dtype: str = "auto", attention: str | None = None
) -> Base:
    """Load a model of images and texts, with its tokenizer and image processor.

    Raises:
        ModelError: when the model is not there, or does not give vectors of one width for both.
    """
    source = reached(source)
    tokenizer = load_auto("AutoTokenizer", source)
    check_tokenizer(tokenizer, source)
    options: dict[str, Any] = {"dtype": dtype if dtype == "auto" else getattr(torch, dtype)}
    if attention is not None:
        options["attn_implementation"] = attention
    backbone = load_auto("AutoModel", source, options=options)
    log_scale = -math.log(vectors.temperature or own_temperature(backbone))
    model = DualEncoder(
        backbone,
        normalize=vectors.normalize is not False,
        log_scale=log_scale if vectors.learned else None,
    )
    if model.log_scale is not None and next(backbone.parameters()).dtype == torch.float64:
        model.log_scale.double()
    model.requires_grad_(False).eval()
    _check_dual(backbone, source)
    tokenizer.padding_side = "right"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return Base(
        model,
        backbone,
        "backbone.",
        tokenizer,
        source,
        "AutoModel",
        f"{SCALE}.layer" if vectors.learned else None,
        normalize=model.normalize,
        processor=load_processor(source, backbone.config),
    )


def _check_dual(backbone: Any, source: Source) -> None:
    both = {"get_image_features", "get_text_features"}
    if not both <= set(dir(type(backbone))):
        raise ModelError(
            f"model {source.hub_id} ({type(backbone).__name__}) has no encoders of images and of "
            "texts; rows of image and text need a model such as CLIP"
        )


def own_temperature(backbone: nn.Module) -> float:
    """The temperature that the model was trained with, or the usual one where it does not say."""
    found = dict(backbone.named_parameters()).get("logit_scale")
    return USUAL if found is None else math.exp(-float(found.detach()))


def text_length(base: Base, max_length: int) -> int:
    """Tokens that texts are padded to: all that the model takes, where it knows no padding."""
    return max_length if told_padding(base) else reads_at_most(base.backbone, base.tokenizer)


def told_padding(base: Base) -> bool:
    """Whether the model is told what is padding; SigLIP reads texts of its full length."""
    config: Any = base.backbone.config
    told = "attention_mask" in base.tokenizer.model_input_names
    return told and config.model_type not in ("siglip", "siglip2")
