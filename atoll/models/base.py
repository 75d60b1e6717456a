"""A base model for a task: frozen, in eval mode, with what an export must say about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from atoll.errors import ModelError
from atoll.models.checks import check_causal, check_text_alone, check_tokenizer
from atoll.models.images import Processor
from atoll.models.locate import Source, load_auto
from atoll.models.pooling import (
    PooledClassifier,
    Pooling,
    RandomFeatures,
    output_layer,
)
from atoll.models.reach import reached
from atoll.models.sentence import Asked, pooling_of

__all__ = ["Base", "Head", "load_base", "load_options", "ready", "seeded"]


@dataclass(frozen=True)
class Base:
    """A loaded model with its tokenizer, as it came: nothing of it trains yet.

    model maps keyword inputs to logits. backbone is the Hugging Face model inside it, the same
    object where its Auto class has the head; prefix leads from model to backbone in names.
    head names the linear layer that gives the labels (None: a language model).
    fresh names parameters outside the head that the checkpoint lacked: they were drawn here.
    processor makes inputs of images; None: the model reads none, as tokenizer None: no texts.
    """

    model: nn.Module
    backbone: nn.Module
    prefix: str
    tokenizer: Any
    source: Source
    auto_class: str
    head: str | None
    pooling: Pooling | None = None
    normalize: bool = False
    fresh: tuple[str, ...] = ()
    processor: Processor | None = None


@dataclass(frozen=True)
class Head:
    """How many labels, and how token vectors become the one that the head reads.

    otherwise: the pooling under `auto` of a model that was not trained with one (None: the head of
        its Auto class); its vectors are normalised unless `normalize` says otherwise.
    random_features: width of a random cosine layer before the head; it wants pooled features.
    """

    num_labels: int
    pooling: Asked = "auto"
    normalize: bool | None = None
    otherwise: Pooling | None = None
    random_features: int | None = None
    seed: int = 0


def load_base(
    source: Source,
    *,
    dtype: str = "auto",
    head: Head | None = None,
    attention: str | None = None,
) -> Base:
    """Load model and tokenizer: a classifier when there is a head, else a causal language model.

    Raises:
        ModelError: when the model is not there, cannot be read, has no such head or no tokenizer,
            or is no causal language model.
    """
    source = reached(source)
    tokenizer = load_auto("AutoTokenizer", source)
    check_tokenizer(tokenizer, source)
    options = load_options(dtype, attention)
    if head is None:
        model = load_auto("AutoModelForCausalLM", source, options=options)
        check_causal(model, source)
        base = Base(model, model, "", tokenizer, source, "AutoModelForCausalLM", None)
        return ready(base)
    pooling, normalize = pooling_of(source, head.pooling, head.normalize)
    if pooling is None and head.pooling == "auto" and head.otherwise is not None:
        pooling, normalize = head.otherwise, head.normalize is not False
    if pooling is None:
        return _with_own_head(source, head, tokenizer, options)
    with seeded(head.seed):
        # A checkpoint without a pooler gets a new one, which must be the same everywhere.
        backbone = load_auto("AutoModel", source, options=options)
    check_text_alone(backbone, source)
    return _pooled(backbone, head, Base(backbone, backbone, "backbone.", tokenizer, source,
                                        "AutoModel", "classifier", pooling, normalize))  # fmt: skip


def _with_own_head(source: Source, head: Head, tokenizer: Any, options: dict[str, Any]) -> Base:
    """The Auto class's own head, which reads the model's features in its own way."""
    if head.random_features is not None:
        raise ModelError(
            "adapter.head_features needs pooled features; set model.pooling to mean or cls"
        )
    if head.normalize:
        raise ModelError(
            "model.normalize is true, but the model's own head reads features as they are; set "
            "model.pooling to mean or cls, or remove model.normalize"
        )
    auto = "AutoModelForSequenceClassification"
    with seeded(head.seed):
        options |= {"num_labels": head.num_labels, "output_loading_info": True}
        model, found = load_auto(auto, source, options=options)
    name = output_layer(model)
    top = name.split(".")[0]
    fresh = sorted(key for key in found["missing_keys"] if key.split(".")[0] != top)
    return ready(Base(model, model, "", tokenizer, source, auto, name, fresh=tuple(fresh)))


def load_options(dtype: str, attention: str | None) -> dict[str, Any]:
    """What `from_pretrained` is told of precision and attention."""
    options: dict[str, Any] = {"dtype": dtype if dtype == "auto" else getattr(torch, dtype)}
    return options if attention is None else options | {"attn_implementation": attention}


def _pooled(backbone: nn.Module, head: Head, base: Base) -> Base:
    """Pooling and a head of our own, in float32 unless the backbone is finer."""
    pooling, normalize = base.pooling, base.normalize or head.random_features is not None
    assert pooling is not None, "a pooled head needs a pooling"
    width = backbone.config.hidden_size  # type: ignore[union-attr]
    random = None
    if head.random_features is not None:
        random = RandomFeatures(int(width), head.random_features, seed=head.seed)  # type: ignore[arg-type]
    model = PooledClassifier(
        backbone,
        pooling=pooling,
        normalize=normalize,
        num_labels=head.num_labels,
        random=random,
    )
    if next(backbone.parameters()).dtype == torch.float64:
        model.classifier.double()
    return ready(replace(base, model=model, normalize=normalize))


def ready(base: Base) -> Base:
    """Freeze the model and give the tokenizer the padding that batches need."""
    base.model.requires_grad_(False).eval()
    if base.tokenizer is None:
        return base
    tokenizer, config = base.tokenizer, base.backbone.config
    # Training has no use for a cache, and with one transformers takes packed rows for a single row.
    config.use_cache = False  # type: ignore[union-attr]
    config.get_text_config().use_cache = False  # type: ignore[union-attr, operator]
    tokenizer.padding_side = "right"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if config.pad_token_id is None:  # type: ignore[union-attr]
        config.pad_token_id = tokenizer.pad_token_id  # type: ignore[union-attr]
    return base


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Transformers draws a new head from the global generator; lend it a seeded one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
