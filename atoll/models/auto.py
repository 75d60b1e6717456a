"""Text models whose Auto class says something of each token: masked language models and taggers."""

from __future__ import annotations

from torch import nn

from atoll.errors import ModelError
from atoll.models.base import Base, load_options, ready, seeded
from atoll.models.checks import check_tokenizer
from atoll.models.locate import Source, load_auto
from atoll.models.pooling import output_layer
from atoll.models.reach import reached

__all__ = ["load_masked", "load_tagger"]

MASKED, TAGGER = "AutoModelForMaskedLM", "AutoModelForTokenClassification"


def load_masked(
    source: Source,
    *,
    dtype: str = "auto",
    attention: str | None = None,
    seed: int = 0,
    whole: bool = False,
) -> Base:
    """Load a masked language model and its tokenizer.

    whole: all of it will train, so that a head which its checkpoint lacks may be drawn here.

    Raises:
        ModelError: when the model is not there or is none, or its tokenizer has no mask token.
    """
    source = reached(source)
    tokenizer = load_auto("AutoTokenizer", source)
    check_tokenizer(tokenizer, source)
    if tokenizer.mask_token_id is None:
        raise ModelError(
            f"the tokenizer of model {source.hub_id} has no mask token, which task masked-lm puts "
            "in the place of words; name a model that was trained with one, such as BERT or "
            "RoBERTa, or set model.task to causal-lm"
        )
    options = load_options(dtype, attention) | {"output_loading_info": True}
    with seeded(seed):
        model, found = load_auto(MASKED, source, options=options)
    # Of values that two names share, the model trains and saves one.
    fresh = _fresh(model, found["missing_keys"])
    if fresh and not whole:
        raise ModelError(
            f"model {source.hub_id} has no masked language model's head among its weights "
            f"({fresh[0]} is missing); name a model that was trained as one, or train all of it "
            "(adapter.method: full)"
        )
    return ready(Base(model, model, "", tokenizer, source, MASKED, None, fresh=fresh))


def load_tagger(
    source: Source,
    *,
    num_tags: int,
    dtype: str = "auto",
    attention: str | None = None,
    seed: int = 0,
) -> Base:
    """Load a model with a linear layer that gives each token one of so many tags.

    Raises:
        ModelError: when the model is not there or cannot tag, or its tokenizer does not tell which
            token is of which word.
    """
    source = reached(source)
    tokenizer = load_auto("AutoTokenizer", source)
    check_tokenizer(tokenizer, source)
    if not tokenizer.is_fast:
        raise ModelError(
            f"the tokenizer of model {source.hub_id} does not tell which token is of which word; "
            "task token-classification needs one of the `tokenizers` library"
        )
    options = load_options(dtype, attention)
    options |= {"num_labels": num_tags, "output_loading_info": True}
    with seeded(seed):
        model, found = load_auto(TAGGER, source, options=options)
    name = output_layer(model)
    top = name.split(".")[0]
    fresh = tuple(key for key in _fresh(model, found["missing_keys"]) if key.split(".")[0] != top)
    return ready(Base(model, model, "", tokenizer, source, TAGGER, name, fresh=fresh))


def _fresh(model: nn.Module, missing: list[str]) -> tuple[str, ...]:
    own = {name for name, _ in model.named_parameters()}
    return tuple(sorted(own.intersection(missing)))
