"""What a robust rule costs the server: CPU seconds and memory of one fold of n updates.

    python -m benchmarks.robust [--clients 50] [--values 1000000] [--repeats 5]

Updates are those of an adapter, cut into tensors of 16 × 4096 values. Beside the rules stand what
nobody can do without: adding all updates up, and numpy's own sort and products of all values.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from atoll.aggregators import (
    bulyan,
    centred_clipping,
    geometric_median,
    krum,
    mean,
    median,
    multi_krum,
    norm_bound,
    trimmed_mean,
)
from atoll.aggregators.groups import across_groups, across_neighbours
from atoll.core import Aggregator, Channel, Payload
from benchmarks.common import interleave, markdown, write_result

SHAPE = (16, 4096)


def main() -> None:
    options = _arguments()
    torch.set_num_threads(1)
    replies = updates(options.clients, options.values)
    folds = {name: _fold(rule, replies) for name, rule in rules(options.clients).items()}
    grown = {name: extra_memory(fold) for name, fold in folds.items()}
    samples = interleave({**bare(replies), **folds}, repeats=options.repeats, least=0.05)
    payload = sum(value.nbytes for value in replies[0]["update"].tree.values())
    arms = {name: asdict(sample) for name, sample in samples.items()}
    for name, extra in grown.items():
        arms[name]["payloads_beside_the_replies"] = extra / payload
    content = {**vars(options), "payload_mb": payload / 1e6, "arms": arms}
    path = write_result(Path(__file__).parent, "robust", content)
    print(f"\n{table(arms)}\n\nwritten to {path}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--values", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    return parser.parse_args()


def rules(clients: int) -> dict[str, Aggregator]:
    """Each rule against a fifth of the clients."""
    byzantine = clients // 5
    return {
        "mean": mean(),
        "norm_bound": norm_bound(norm=1.0),
        "median": median(),
        "trimmed_mean": trimmed_mean(fraction=0.2),
        "krum": krum(byzantine=byzantine),
        "multi_krum": multi_krum(byzantine=byzantine),
        "bulyan": bulyan(byzantine=byzantine),
        "geometric_median": geometric_median(),
        "centred_clipping": centred_clipping(),
        "grouped median of 5": across_groups(median(), size=5),
        "nnm, then krum": across_neighbours(krum(byzantine=byzantine), byzantine=byzantine),
    }


def updates(clients: int, values: int) -> list[Payload]:
    """Replies of `values` values each, in tensors of one shape and a rest."""
    draw = torch.Generator().manual_seed(0)
    whole, rest = divmod(values, SHAPE[0] * SHAPE[1])
    shapes = [SHAPE] * whole + ([(rest,)] if rest else [])
    trees = (
        {f"{i:03}": torch.randn(shape, generator=draw) for i, shape in enumerate(shapes)}
        for _ in range(clients)
    )
    return [{"update": Channel(tree)} for tree in trees]


def _fold(rule: Aggregator, replies: Sequence[Payload]) -> Callable[[], object]:
    def fold() -> object:
        state = rule.init(replies[0])
        for reply in replies:
            state = rule.add(state, reply)
        return rule.finish(state)

    return fold


def bare(replies: Sequence[Payload]) -> dict[str, Callable[[], object]]:
    """What numpy takes on one matrix that holds everything."""
    rows = [torch.cat([v.flatten() for v in one["update"].tree.values()]) for one in replies]
    matrix = torch.stack(rows).numpy()
    return {
        "numpy: mean": lambda: matrix.mean(axis=0),
        "numpy: sort": lambda: np.sort(matrix, axis=0),
        "numpy: median": lambda: np.median(matrix, axis=0),
        "numpy: products in float32": lambda: matrix @ matrix.T,
    }


def extra_memory(fold: Callable[[], object]) -> int:
    """Bytes at the peak of a fold above what the replies take, in a process of its own."""
    context = multiprocessing.get_context("fork")
    told = context.SimpleQueue()

    def child() -> None:
        before = _peak()
        fold()
        told.put(_peak() - before)

    process = context.Process(target=child)
    process.start()
    found: int = told.get()
    process.join()
    return found


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def table(arms: dict[str, dict[str, Any]]) -> str:
    """The README's table."""
    rows = [
        [name, f"{arm['cpu']:.3f}",
         f"{extra:.1f}" if (extra := arm.get("payloads_beside_the_replies")) is not None else ""]
        for name, arm in arms.items()
    ]  # fmt: skip
    return markdown(["what", "CPU s", "memory beside the replies, in payloads"], rows)


if __name__ == "__main__":
    main()
