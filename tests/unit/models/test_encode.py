"""Encoded texts are what a plain call of the tokenizer gives; what was cut off is told."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.errors import DataError
from atoll.models.causal import causal
from atoll.models.encode import encode_texts, encode_words, joined_words
from atoll.models.objective import Example
from tests.support.models import WORDS, letters, word_pieces
from tests.support.text_tasks import byte_pairs

TOKENIZERS = {"words": word_pieces(), "letters": letters(), "pairs": byte_pairs()}
rows = st.lists(st.lists(st.sampled_from([*WORDS, "sea", "x-y"]), max_size=6), max_size=4)


@pytest.mark.parametrize("name", TOKENIZERS)
@given(rows=rows, length=st.integers(4, 12))
def test_texts_are_cut_as_the_tokenizer_cuts_them(name: str, rows: Any, length: int) -> None:
    tokenizer, texts = TOKENIZERS[name], [" ".join(words) for words in rows]
    found = encode_texts(tokenizer, texts, max_length=length, truncation=True)
    for text, one in zip(texts, found, strict=True):
        cut = tokenizer(text, truncation=True, max_length=length)["input_ids"]
        whole = tokenizer(text)["input_ids"]
        assert one.ids.tolist() == cut
        assert one.over == ((len(whole),) if len(whole) > length else ())


@pytest.mark.parametrize("name", TOKENIZERS)
@given(rows=rows)
def test_words_are_encoded_as_the_text_that_they_make(name: str, rows: Any) -> None:
    tokenizer = TOKENIZERS[name]
    found = encode_words(tokenizer, rows, max_length=64, truncation=True)
    for words, one in zip(rows, found, strict=True):
        whole = tokenizer(" ".join(words))["input_ids"]
        assert one.ids.tolist() == whole
        assert one.words is not None
        assert [w for w in dict.fromkeys(one.words) if w is not None] == list(range(len(words)))


def test_byte_level_tokenizers_join_words() -> None:
    joined = {name: joined_words(tokenizer) for name, tokenizer in TOKENIZERS.items()}
    assert joined == {"words": False, "letters": True, "pairs": True}


def test_words_behind_the_cut_have_no_token() -> None:
    (one,) = encode_words(letters(), [["reef", "tide", "sun"]], max_length=7, truncation=True)
    assert one.words == [0, 0, 0, 0, 1, 1, 1]
    assert one.over == (13,)


@pytest.mark.parametrize("name", ["texts", "words"])
def test_longer_rows_are_refused_by_number(name: str) -> None:
    message = (
        r"row 2 has 6 tokens, more than data.max_length \(4\), and data.truncation is false; "
        "shorten the row, raise data.max_length, or set data.truncation to true"
    )
    rows = ["reef", "reef tide sun moon", "reef"]
    options = {"max_length": 4, "truncation": False}
    encode = encode_texts if name == "texts" else encode_words
    given: Any = rows if name == "texts" else [row.split() for row in rows]
    with pytest.raises(DataError, match=message):
        encode(word_pieces(), given, **options)
    assert len(encode_texts(word_pieces(), rows[::2], **options)) == 2


def test_no_rows() -> None:
    assert encode_texts(word_pieces(), [], max_length=4, truncation=False) == []
    assert encode_words(word_pieces(), [], max_length=4, truncation=False) == []


def test_an_example_that_is_cut_remembers_its_length() -> None:
    (one,) = encode_texts(word_pieces(), ["reef tide"], max_length=9, truncation=True)
    example = Example(one.ids, one.ids.astype("int64"))
    assert example.cut(9) is example
    assert example.cut(3).over == (4,)
    assert example.cut(3).cut(2).over == (4,)
    assert len(example.cut(3).ids) == len(example.cut(3).target) == 3


def test_rows_that_share_a_sequence_are_cut_one_by_one() -> None:
    objective = causal(letters(), max_length=9, packing=True)
    rows = [{"text": text} for text in ("reef", "lagoon tide", "ab", "harbour sun")]
    packed = objective.encode(rows)
    assert sum(example.rows for example in packed) == 4
    assert sorted(length for example in packed for length in example.over) == [12, 12]
    with pytest.raises(DataError, match="row 2 has 12 tokens"):
        causal(letters(), max_length=9, packing=True, truncation=False).encode(rows)
