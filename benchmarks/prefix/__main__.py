"""What keeping the outputs of frozen blocks saves: LoRA on the last blocks of MiniLM, ten epochs.

    python -m benchmarks.prefix [--rows 400] [--epochs 10] [--repeats 3]

The same client trains from the same start with and without the cache, in turn; each time the cache
starts empty, so that the first epoch pays for filling it.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from atoll.config import load
from atoll.core import Context, Request
from atoll.experiment.setup import Setup, prepare
from atoll.local.bench import Bench
from atoll.local.prefix import Shelf, disk_shelf, memory_shelf
from atoll.local.train import LocalRule, Trained, train
from atoll.tree import Tree
from benchmarks.common import SCRATCH, interleave, markdown, write_result

LAYERS = {"last of 6": "5", "last 2 of 6": "[45]", "last 3 of 6": "[345]"}


def main() -> None:
    options = _arguments()
    torch.set_num_threads(1)
    found = [measure(name, layers, options) for name, layers in LAYERS.items()]
    content = {"rows": options.rows, "epochs": options.epochs, "arms": found}
    path = write_result(Path(__file__).parent, "prefix", content)
    print(f"\n{table(found)}\n\nwritten to {path}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    return parser.parse_args()


def measure(name: str, layers: str, options: argparse.Namespace) -> dict[str, Any]:
    """CPU seconds of one client's epochs, run and kept, and how far the adapters are apart."""
    setup = scene(layers)
    assert setup.bench.prefix is not None, "MiniLM's lower blocks are frozen"
    client = setup.data.clients[0]
    rows = setup.bench.examples(client, "train")[: options.rows]
    plain = replace(setup.bench, prefix=None, examples=lambda client, split: rows)

    def kept(shelf: Shelf) -> Bench:
        assert setup.bench.prefix is not None
        return replace(plain, prefix=replace(setup.bench.prefix, shelf=shelf))

    ends: dict[str, Tree] = {}

    def arm(which: str, make: Callable[[], Bench]) -> Callable[[], None]:
        def run() -> None:
            ends[which] = _trained(make(), setup, client, options.epochs).end

        return run

    with tempfile.TemporaryDirectory(dir=_scratch()) as folder:
        files = iter(range(1000))
        arms = {
            "run": arm("run", lambda: plain),
            "memory": arm("memory", lambda: kept(memory_shelf())),
            "disk": arm("disk", lambda: kept(disk_shelf(Path(folder) / f"{next(files)}.sqlite"))),
        }
        times = interleave(arms, repeats=options.repeats)
    tokens = sum(map(len, rows)) / len(rows)
    return {
        "layers": name,
        "rows": len(rows),
        "tokens": round(tokens, 1),
        **{f"cpu_{which}": round(sample.cpu, 2) for which, sample in times.items()},
        **{f"faster_{w}": round(times["run"].cpu / times[w].cpu, 2) for w in ("memory", "disk")},
        "apart": max(_apart(ends[w], ends["run"]) for w in ("memory", "disk")),
    }


def scene(layers: str) -> Setup:
    """MiniLM and the docstrings at one client; LoRA on attention of some layers."""
    with tempfile.TemporaryDirectory(dir=_scratch()) as folder:
        file = Path(folder) / "prefix.yaml"
        file.write_text(
            "model: {name_or_path: 'builtin:minilm'}\n"
            "data: {path: 'builtin:docstrings', partition: {num_clients: 1}, max_length: 32}\n"
            f"adapter: {{target_modules: 'encoder.layer.{layers}.attention.*', head: train}}\n"
            "train: {group_size: 1, prefix_cache: memory, learning_rate: 2.0e-4}\n"
        )
        return prepare(load(file), note=lambda text: None)


def _scratch() -> Path:
    SCRATCH.mkdir(parents=True, exist_ok=True)
    return SCRATCH


def _trained(bench: Bench, setup: Setup, client: str, epochs: int) -> Trained:
    server = setup.program.algorithms["train"].server
    context = Context(0, "prefix", 1, 1, (client,), 1, client)
    request = Request(context, server.broadcast(setup.start.server, client))
    (found,) = train(bench, [request], LocalRule(epochs=epochs))
    assert isinstance(found, Trained), found
    return found


def _apart(a: Tree, b: Tree) -> float:
    """‖a − b‖ / ‖b‖ over all values of the adapter."""
    gap = sum(float((a[name] - b[name]).double().square().sum()) for name in b)
    size = sum(float(value.double().square().sum()) for value in b.values())
    return float((gap / size) ** 0.5)


def table(found: list[dict[str, Any]]) -> str:
    """As the README holds it."""
    header = ["trained", "rows", "tokens a row", "CPU s run", "kept in memory", "on disk",
              "faster (memory)", "faster (disk)", "adapters apart"]  # fmt: skip
    keys = ("layers", "rows", "tokens", "cpu_run", "cpu_memory", "cpu_disk", "faster_memory",
            "faster_disk")  # fmt: skip
    return markdown(header, [[*(one[key] for key in keys), f"{one['apart']:.1e}"] for one in found])


if __name__ == "__main__":
    main()
