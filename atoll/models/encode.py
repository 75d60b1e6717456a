"""Texts and words as token ids, cut where they are too long, or refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from atoll.errors import DataError
from atoll.models.objective import Example

__all__ = ["UNKNOWN", "Encoded", "encode_texts", "encode_words", "joined_words", "uncut"]

UNKNOWN = -1
"""The target of a token that the model is asked about, and of which nobody knows the answer."""

Options = Mapping[str, Any]


@dataclass(frozen=True)
class Encoded:
    """One row's token ids, the word that each token is of (None: of none), and as in Example."""

    ids: np.ndarray
    words: Sequence[int | None] | None = None
    over: tuple[int, ...] = ()


def encode_texts(
    tokenizer: Any, texts: Sequence[str], *, max_length: int, truncation: bool
) -> list[Encoded]:
    """Texts as plain `tokenizer(texts, truncation=True, max_length=…)` encodes them.

    Raises:
        DataError: for a longer text, where truncation is off.
    """

    def encode(some: Sequence[str], options: Options) -> list[Encoded]:
        ids = _tokens(tokenizer, some, options)["input_ids"]
        return [Encoded(np.asarray(one, dtype=np.int32)) for one in ids]

    return _within(encode, texts, max_length, truncation)


def encode_words(
    tokenizer: Any, rows: Sequence[Sequence[str]], *, max_length: int, truncation: bool
) -> list[Encoded]:
    """Rows of words, with the word that each token is of; the tokenizer is of `tokenizers`.

    Raises:
        DataError: for a longer row, where truncation is off.
    """
    joined = joined_words(tokenizer)

    def encode(some: Sequence[Sequence[str]], options: Options) -> list[Encoded]:
        spaced = [_spaced(words) if joined else list(words) for words in some]
        found = _tokens(tokenizer, spaced, {"is_split_into_words": True, **options})
        return [
            Encoded(np.asarray(ids, dtype=np.int32), found.word_ids(row))
            for row, ids in enumerate(found["input_ids"])
        ]

    return _within(encode, rows, max_length, truncation)


def joined_words(tokenizer: Any) -> bool:
    """Whether words that are given one by one are not the text that they make.

    Byte-level tokenizers keep the space before a word in its token; without one, a word looks like
    the end of another.
    """
    given = _tokens(tokenizer, [["a", "a"]], {"is_split_into_words": True})["input_ids"]
    written = _tokens(tokenizer, ["a a"], {})["input_ids"]
    return bool(given != written)


def uncut(examples: Sequence[Example | Encoded], *, max_length: int) -> None:
    """Refuse rows that were cut.

    Raises:
        DataError: with the number of the first one.
    """
    for number, example in enumerate(examples, start=1):
        if example.over:
            raise DataError(
                f"row {number} has {max(example.over)} tokens, more than data.max_length "
                f"({max_length}), and data.truncation is false; shorten the row, raise "
                "data.max_length, or set data.truncation to true"
            )


def _spaced(words: Sequence[str]) -> list[str]:
    return [f" {word}" if place else word for place, word in enumerate(words)]


def _tokens(tokenizer: Any, rows: Sequence[Any], options: Options) -> Any:
    return tokenizer(
        list(rows),
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,  # longer than the model reads: that is what is looked for
        **options,
    )


def _within(
    encode: Callable[[Sequence[Any], Options], list[Encoded]],
    rows: Sequence[Any],
    max_length: int,
    truncation: bool,
) -> list[Encoded]:
    """Rows as they are; those that are too long once more, cut by the tokenizer itself."""
    if not rows:
        return []
    found = encode(rows, {})
    long = [place for place, one in enumerate(found) if len(one.ids) > max_length]
    if long:
        options = {"truncation": True, "max_length": max_length}
        cut = encode([rows[place] for place in long], options)
        for place, one in zip(long, cut, strict=True):
            found[place] = Encoded(one.ids, one.words, over=(len(found[place].ids),))
    if not truncation:
        uncut(found, max_length=max_length)
    return found
