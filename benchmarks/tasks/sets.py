"""Real data sets in the forms that Atoll reads: a folder a client, or one file with a partition.

Each function takes the folder of the sets and a folder to write into, and returns `data.path`.
Rows are drawn once (seed 0), whatever the seed of the run.
"""

from __future__ import annotations

import gzip
import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

__all__ = [
    "capitals", "digits", "drawers", "emoji_pictures", "emoji_tags", "instructions", "languages",
    "preferences", "presidents", "presidents_years", "read_rows", "roles",
]  # fmt: skip

Row = dict[str, Any]


def read_rows(path: Path) -> list[Row]:
    """The rows of a .jsonl.gz file."""
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def instructions(data: Path, folder: Path) -> Path:
    """flan_clients_1: 8 categories as clients; 16 short rows to train on, 6 to test."""
    return _clients(data / "flan_clients_1", folder, most=(16, 6), by="category",
                    keep=lambda row: len(row["prompt"]) + len(row["response"]) < 300)  # fmt: skip


def roles(data: Path, folder: Path) -> Path:
    """shakespeare_roles: 113 roles as clients; all speeches to train on, 2 to test."""
    return _clients(data / "shakespeare_roles", folder, most=(10_000, 2))


def presidents(data: Path, folder: Path) -> Path:
    """inaugural: the names of presidents as clients; 20 paragraphs to train on, 3 to test."""
    return _clients(data / "inaugural", folder, most=(20, 3))


def presidents_years(data: Path, folder: Path) -> Path:
    """The same with the year of each paragraph's speech as a number."""
    return _clients(data / "inaugural", folder, most=(20, 3), change=_dated)


def _dated(row: Row) -> Row:
    return {"text": row["text"], "label": float(row["year"])}


def capitals(data: Path, folder: Path) -> Path:
    """The same as lower-case words, each told whether it had a capital; 40 words a row."""
    return _clients(data / "inaugural", folder, most=(20, 3), change=_lowered)


def _lowered(row: Row) -> Row:
    words = row["text"].split()[:40]
    tags = ["capital" if word[:1].isupper() else "none" for word in words]
    return {"tokens": [word.lower() for word in words], "tags": tags}


def languages(data: Path, folder: Path) -> Path:
    """xquad: 6 languages as clients; questions and passages, the last 12 of 48 articles to test."""
    texts = {row["doc_id"]: row for row in read_rows(data / "xquad" / "docs.jsonl.gz")}
    asked = {row["query_id"]: row for row in read_rows(data / "xquad" / "queries.jsonl.gz")}
    titles = sorted({row["title"] for row in texts.values()})
    tests = set(titles[-12:])
    parts: dict[str, list[Row]] = {"train": [], "test": []}
    for judged in read_rows(data / "xquad" / "qrels.jsonl.gz"):
        question, passage = asked[judged["query_id"]], texts[judged["doc_id"]]
        row = {"anchor": question["text"], "positive": passage["text"],
               "client": question["client"]}  # fmt: skip
        parts["test" if passage["title"] in tests else "train"].append(row)
    return _write(folder, _few(parts["train"], 80), _few(parts["test"], 20))


def preferences(data: Path, folder: Path) -> Path:
    """pref_dpo_en: rows with prompts of up to 350 characters, as one data set."""
    for split in ("train", "test"):
        rows = read_rows(data / "pref_dpo_en" / f"{split}.jsonl.gz")
        _lines(folder / f"{split}.jsonl", [row for row in rows if len(row["prompt"]) <= 350])
    return folder


def emoji_tags(data: Path, folder: Path) -> Path:
    """emoji_pairs: names with those of their keywords that 10 training rows have; no flags."""
    rows = read_rows(data / "emoji_pairs" / "train.jsonl.gz")
    counts = Counter(tag for row in rows if row["client"] != "flags" for tag in row["tags"])
    known = {tag for tag, count in counts.items() if count >= 10}
    return _clients(
        data / "emoji_pairs", folder, most=(10_000, 10_000),
        keep=lambda row: row["client"] != "flags" and bool(known & set(row["tags"])),
        change=lambda row: {"text": row["text"], "label": sorted(known & set(row["tags"]))},
    )  # fmt: skip


def emoji_pictures(data: Path, folder: Path) -> Path:
    """emoji_pairs: pictures and names, without flags; groups are a column to divide by."""
    arrays = {}
    stored = np.load(data / "emoji_pairs" / "data.npz")
    for split in ("train", "test"):
        rows = read_rows(data / "emoji_pairs" / f"{split}.jsonl.gz")
        kept = [row for row in rows if row["client"] != "flags"]
        arrays[f"x_{split}"] = stored[f"images_{split}"][[row["index"] for row in kept]]
        arrays[f"text_{split}"] = np.array([row["text"] for row in kept])
        arrays[f"client_{split}"] = np.array([row["client"] for row in kept])
    np.savez(folder / "data.npz", **arrays)
    return folder


def digits(data: Path, folder: Path) -> Path:
    """digits: 8 × 8, with 16 for white."""
    stored = np.load(data / "digits" / "data.npz")
    scaled = {name: stored[name] * (255 / 16) for name in ("x_train", "x_test")}
    np.savez(folder / "data.npz", **{**stored, **scaled})
    return folder


def drawers(data: Path, folder: Path) -> Path:
    """omniglot_small: one image a character and drawer; drawers 16 to 19 are the common test."""
    stored = np.load(data / "omniglot_small" / "data.npz")
    test = stored["is_test"]
    np.savez(
        folder / "data.npz",
        x_train=stored["images"][~test], y_train=stored["y"][~test],
        client_train=stored["client"][~test],
        x_test=stored["images"][test], y_test=stored["y"][test],
    )  # fmt: skip
    return folder


def _clients(
    data: Path,
    folder: Path,
    *,
    most: tuple[int, int],
    by: str = "client",
    keep: Any = lambda row: True,
    change: Any = lambda row: row,
) -> Path:
    """A folder a client, each with at most so many rows of either split."""
    parts = []
    for split, limit in zip(("train", "test"), most, strict=True):
        rows = [row for row in read_rows(data / f"{split}.jsonl.gz") if keep(row)]
        parts.append(_few([{**change(row), "client": row[by]} for row in rows], limit))
    return _write(folder, *parts)


def _few(rows: Sequence[Row], limit: int) -> list[Row]:
    """At most so many rows of each client."""
    own: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        own[row["client"]].append(row)
    draw = random.Random(0)
    return [
        row
        for client in sorted(own)
        for row in draw.sample(own[client], min(limit, len(own[client])))
    ]


def _write(folder: Path, train: Iterable[Row], test: Iterable[Row]) -> Path:
    for split, rows in (("train", train), ("test", test)):
        own: dict[str, list[Row]] = defaultdict(list)
        for row in rows:
            own[row["client"]].append({key: row[key] for key in row if key != "client"})
        for client, several in own.items():
            _lines(folder / client.replace(" ", "-") / f"{split}.jsonl", several)
    return folder


def _lines(path: Path, rows: Sequence[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")
