from __future__ import annotations

import sys

import pytest

from atoll.data.docstrings import LIBRARIES, docstrings


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the count is that of Python 3.11")
def test_the_count_on_python_3_11() -> None:
    train, test = docstrings()
    assert len(train.rows) + len(test.rows) == 2573


def test_rows_are_folded_cut_and_labelled_by_their_library() -> None:
    train, test = docstrings()
    rows = train.rows + test.rows
    assert {row["label"] for row in train.rows} == {row["label"] for row in test.rows}
    assert {row["label"] for row in rows} == set(LIBRARIES)
    assert max(len(row["text"]) for row in rows) == 300
    assert all(
        row["text"] == " ".join(row["text"].split()) or row["text"][-1] == " " for row in rows
    )
    assert len({(row["text"], row["label"]) for row in rows}) == len(rows)


def test_no_test_text_was_seen_in_training() -> None:
    train, test = docstrings()
    assert not {row["text"] for row in train.rows} & {row["text"] for row in test.rows}
    assert 0.12 < len(test.rows) / (len(train.rows) + len(test.rows)) < 0.18
