"""A linear layer with an adapter, on a vector that its owner has encrypted (PrivTuner's setting).

The owner of the data keeps the key; the owner of the model multiplies in the clear with what it
cannot read: W x + s B A x + b, as two products behind each other, or as one with W + s B A.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import tenseal as ts

__all__ = ["linear", "timed"]

Result = TypeVar("Result")
RANK, SCALING = 8, 2.0


def linear(rows: int, columns: int) -> dict[str, Any]:
    """Time, bytes and error for a layer of `rows` outputs and `columns` inputs."""
    draw = np.random.default_rng(0)
    weight = draw.normal(0, columns**-0.5, (rows, columns))
    down = draw.normal(0, columns**-0.5, (RANK, columns))
    up = draw.normal(0, 0.1, (rows, RANK))
    bias, x = draw.normal(0, 0.1, rows), draw.normal(0, 1, columns)
    want, clear = timed(lambda: weight @ x + SCALING * up @ (down @ x) + bias)
    owner, keys = timed(_keys)
    told = owner.serialize(save_secret_key=False)
    vector, encrypting = timed(lambda: ts.ckks_vector(owner, x.tolist()).serialize())
    model = ts.context_from(told, n_threads=1)
    sent = ts.ckks_vector_from(model, vector)
    plain, low, high = weight.T.tolist(), down.T.tolist(), (SCALING * up.T).tolist()

    def layer() -> bytes:
        found = sent.matmul(plain) + sent.matmul(low).matmul(high) + bias.tolist()
        return bytes(found.serialize())

    both = (weight + SCALING * up @ down).T.tolist()
    answer, seconds = timed(layer)
    merged, once = timed(lambda: bytes((sent.matmul(both) + bias.tolist()).serialize()))
    found, decrypting = timed(lambda: ts.ckks_vector_from(owner, answer).decrypt())
    single = ts.ckks_vector_from(owner, merged).decrypt()
    return {
        "rows": rows, "columns": columns, "rank": RANK, "clear": clear, "keys": keys,
        "encrypt": encrypting, "layer": seconds, "merged": once, "decrypt": decrypting,
        "key_bytes": len(told), "in_bytes": len(vector), "out_bytes": len(answer),
        "error": float(np.abs(np.array(found) - want).max()),
        "merged_error": float(np.abs(np.array(single) - want).max()),
    }  # fmt: skip


def timed(what: Callable[[], Result]) -> tuple[Result, float]:
    """What comes of it, and CPU seconds."""
    start = time.process_time()
    found = what()
    return found, time.process_time() - start


def _keys() -> Any:
    context = ts.context(
        ts.SCHEME_TYPE.CKKS, 8192, coeff_mod_bit_sizes=[60, 40, 40, 60], n_threads=1
    )
    context.global_scale = 2.0**40
    context.generate_galois_keys()
    return context
