"""What an encrypted sum costs beside a masked one, and a linear layer on an encrypted vector.

    python -m benchmarks.ckks --values 10000 100000 1000000
    python -m benchmarks.ckks --table                           what is in results/, as a table

CPU seconds (`process_time`), one thread, medians; of three clients, which is the least that
encrypts, adds and decrypts a sum.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from atoll.ckks import (
    STEP,
    Agreed,
    Answer,
    Held,
    Mark,
    Silo,
    Sum,
    proved,
    read_plain,
    reduced,
    unpack,
)  # fmt: skip
from atoll.secagg import Channel, Identity, Moment, Terms, agree, roster_verifier
from benchmarks.ckks.linear import linear, timed
from benchmarks.common import markdown, write_result
from benchmarks.secagg.ours import ours

FOLDER = Path(__file__).parent
NAMES = ("ada", "bob", "cy")
ROOT = bytes(32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--values", nargs="+", type=int, default=[10_000])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    if options.table:
        print(table(FOLDER / "results"))
        return
    content = {
        "sums": [_row(values, options.repeats) for values in options.values],
        "linear": [linear(size, size) for size in (128, 384)],
    }
    path = write_result(FOLDER, "ckks", content)
    print(f"{path.read_text()}\nwritten to {path}")


def _row(values: int, repeats: int) -> dict[str, Any]:
    found = [_encrypted(values) for _ in range(repeats)]
    vector = np.random.default_rng(1).uniform(-1, 1, values).astype(np.float32)
    channels = [Channel.fitted("update", values, 1.0, len(NAMES))]
    agreed = agree(Moment("benchmark", 1, 1), NAMES, channels, Terms(0.0, 0.0, 3))
    masked = [ours(agreed, vector, 0) for _ in range(repeats)]
    row = {name: statistics.median(one[name] for one in found) for name in found[0]}
    return {
        "values": values,
        **row,
        "masked_client": statistics.median(s for one in masked for s in one.clients),
        "masked_server": statistics.median(one.server for one in masked),
        "masked_up": masked[0].upload,
        "masked_error": max(one.error for one in masked),
    }


def _encrypted(values: int) -> dict[str, float]:
    """One sum, at a bound of 1."""
    identities = {name: Identity.new() for name in NAMES}
    verify = roster_verifier({name: one.public for name, one in identities.items()})
    silos = {name: Silo(name, one.sign, verify, Held()) for name, one in identities.items()}
    channels = (Channel.fitted("update", values, 1.0, len(NAMES)),)
    agreed = Agreed(Moment("benchmark", 1, 1), NAMES, "ada", 3, channels)
    draw = np.random.default_rng(0)
    vectors = {name: {"update": draw.uniform(-1, 1, values)} for name in NAMES}
    key, keying = timed(lambda: silos["ada"].key(agreed))
    sent, encrypting = {}, []
    for name in NAMES:
        sent[name], seconds = timed(
            lambda name=name: silos[name].encrypted(agreed, key, ROOT, vectors[name])
        )
        encrypting.append(seconds)

    def added() -> bytes:
        total = unpack(sent["ada"][0], agreed.rows)
        for name in ("bob", "cy"):
            total += unpack(sent[name][0], agreed.rows)
        marks = {agreed.place(name): Mark.from_bytes(mark) for name, (_, mark) in sent.items()}
        return Sum(ROOT, marks, reduced(total)).to_bytes(agreed)

    message, adding = timed(added)
    hashed = agreed.digest + hashlib.sha256(message).digest()
    challenge, drawing = timed(lambda: silos["ada"].challenge(agreed, hashed))
    answers, proving = {}, []
    for name in NAMES:
        raw, seconds = timed(
            lambda name=name: silos[name].answer(agreed, key, sent[name][0], challenge)
        )
        answers[agreed.place(name)] = Answer.from_bytes(raw)
        proving.append(seconds)
    answer, decrypting = timed(lambda: silos["ada"].decrypted(agreed, proved(answers, message)))
    want = sum(one["update"] for one in vectors.values())
    return {
        "key": keying,
        "encrypt": statistics.median(encrypting),
        "add": adding,
        "prove": statistics.median(proving),
        "decrypt": drawing + decrypting,
        "key_bytes": len(key),
        "up": sent["bob"][0].nbytes + len(sent["bob"][1]),
        "sum_bytes": len(message),
        "error": float(np.abs(read_plain(answer, agreed) * STEP - want).max()),
    }


def table(results: Path) -> str:
    """The sums and the layers of the last result."""
    content = json.loads(sorted(results.glob("*.json"))[-1].read_text())
    sums = [
        {
            "values": f"{row['values']:,}",
            "encrypt, ms": f"{1e3 * row['encrypt']:.0f}",
            "add 3, ms": f"{1e3 * row['add']:.0f}",
            "prove, ms": f"{1e3 * row['prove']:.0f}",
            "decrypt, ms": f"{1e3 * row['decrypt']:.0f}",
            "up, MB": f"{row['up'] / 1e6:.2f}",
            "of float32": f"{row['up'] / 4 / row['values']:.1f} x",
            "error": f"{row['error']:.0e}",
            "masked: client, ms": f"{1e3 * row['masked_client']:.1f}",
            "server, ms": f"{1e3 * row['masked_server']:.1f}",
            "masked up, MB": f"{row['masked_up'] / 1e6:.2f}",
            "masked error": f"{row['masked_error']:.0e}",
        }
        for row in content["sums"]
    ]
    layers = [
        {
            "layer": f"{row['rows']} x {row['columns']}, rank {row['rank']}",
            "keys, s": f"{row['keys']:.2f}",
            "encrypt, ms": f"{1e3 * row['encrypt']:.0f}",
            "layer, s": f"{row['layer']:.2f}",
            "merged, s": f"{row['merged']:.2f}",
            "decrypt, ms": f"{1e3 * row['decrypt']:.0f}",
            "keys, MB": f"{row['key_bytes'] / 1e6:.1f}",
            "in, MB": f"{row['in_bytes'] / 1e6:.2f}",
            "out, MB": f"{row['out_bytes'] / 1e6:.2f}",
            "error": f"{row['error']:.0e}",
            "in clear, µs": f"{1e6 * row['clear']:.0f}",
        }
        for row in content["linear"]
    ]
    return f"{_shown(sums)}\n\n{_shown(layers)}"


def _shown(rows: Sequence[Mapping[str, str]]) -> str:
    return markdown(list(rows[0]), [list(row.values()) for row in rows])


if __name__ == "__main__":
    main()
