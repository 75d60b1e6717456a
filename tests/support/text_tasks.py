"""Uneven clients' rows for tasks on texts: tags, numbers, several labels, plain texts."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken
from transformers import (
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaTokenizer,
)

from tests.support.federation import SIZES
from tests.support.models import WORDS, stir_model

__all__ = [
    "TAGS",
    "TOPICS",
    "byte_pairs",
    "number_rows",
    "plain_rows",
    "roberta",
    "tagged_rows",
    "topic_rows",
]

TAGS = ("B-SEA", "B-SKY", "I-SEA", "I-SKY", "O")
TOPICS = {"life": WORDS[20:26], "sea": WORDS[:10], "sky": WORDS[12:17]}
Rows = dict[str, list[dict[str, Any]]]


def _rows(
    purpose: str, row: Callable[[random.Random], dict[str, Any]], sizes: Mapping[str, int]
) -> Rows:
    return {
        client: [row(random.Random(f"{purpose} {client} {i}")) for i in range(size)]
        for client, size in sizes.items()
    }


def _words(draw: random.Random, longest: int = 12) -> list[str]:
    return draw.choices(WORDS, k=draw.randint(1, longest))


def plain_rows(sizes: Mapping[str, int] = SIZES) -> Rows:
    """Rows of text."""
    return _rows("plain", lambda draw: {"text": " ".join(_words(draw))}, sizes)


def number_rows(sizes: Mapping[str, int] = SIZES, *, scale: float = 250.5) -> Rows:
    """Rows of text and a number, far from 0 and 1."""

    def row(draw: random.Random) -> dict[str, Any]:
        words = _words(draw)
        return {
            "text": " ".join(words),
            "label": 1000 + scale * sum(w in WORDS[:10] for w in words),
        }

    return _rows("numbers", row, sizes)


def topic_rows(sizes: Mapping[str, int] = SIZES) -> Rows:
    """Rows of text and its topics, which may be none."""

    def row(draw: random.Random) -> dict[str, Any]:
        words = _words(draw, 5)
        named = [name for name, of in TOPICS.items() if set(of).intersection(words)]
        return {"text": " ".join(words), "label": named}

    return _rows("topics", row, sizes)


def tagged_rows(sizes: Mapping[str, int] = SIZES) -> Rows:
    """Rows of words and their tags, in IOB2."""

    def row(draw: random.Random) -> dict[str, Any]:
        words, tags, before = _words(draw), [], "O"
        for word in words:
            kind = next((k for k in ("sea", "sky") if word in TOPICS[k][:4]), "").upper()
            inside = before.endswith(kind) and before != "O" and draw.random() < 0.5
            before = f"{'I' if inside else 'B'}-{kind}" if kind else "O"
            tags.append(before)
        return {"tokens": words, "tags": tags}

    return _rows("tags", row, sizes)


def byte_pairs() -> PreTrainedTokenizerFast:
    """RoBERTa's own tokenizer class: bytes, where the space before a word is in its token."""
    from tokenizers import pre_tokenizers

    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = [("s", "ea"), ("Ġ", "sea"), ("e", "a"), ("r", "ee"), ("e", "e"), ("ree", "f")]
    pairs.sort(key=lambda pair: len("".join(pair)))
    tokens = [*special, *letters, *("".join(pair) for pair in pairs)]
    return RobertaTokenizer(
        vocab={token: i for i, token in enumerate(tokens)},
        merges=pairs,
        mask_token=AddedToken("<mask>", lstrip=True, special=True),
        model_max_length=64,
    )


def roberta(folder: Path) -> str:
    """A tiny RoBERTa with its own tokenizer."""
    tokenizer = byte_pairs()
    config = RobertaConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=48, max_position_embeddings=66, pad_token_id=1, type_vocab_size=1,
        bos_token_id=0, eos_token_id=2,
    )  # fmt: skip
    model = RobertaForMaskedLM(config)
    stir_model(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
