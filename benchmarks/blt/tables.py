"""Optimise the coefficient tables of `atoll/matrix/tables.json`, with jax-privacy, offline.

The package never needs jax: it reads the coefficients and computes their sensitivity by itself.
A venv of its own is enough (`pip install jax-privacy==2.0.0`); tables that are there are kept.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

TABLES = Path(__file__).parents[2] / "atoll" / "matrix" / "tables.json"
OPTIMA = Path(__file__).parent / "optima.json"
ROUNDS = (10, 20, 50, 100, 200, 500, 1000, 2000)
TIMES = (1, 2, 5, 10, 20, 50, 100)
# Runs between the tables, by which the tables are judged.
BETWEEN = ((30, 3, 10), (150, 20, 8), (300, 40, 8), (700, 100, 7), (1500, 200, 8))
# Few participations that may follow each other closely, and every round.
CLOSE = ((100, 2, 5), (200, 10, 5), (500, 10, 5), (1000, 10, 10), (2000, 20, 10), (100, 1, 100))


def shapes() -> Iterator[tuple[int, int, int]]:
    """(rounds, min separation, max participations): turns by everyone in order, and `CLOSE`."""
    for rounds in ROUNDS:
        for times in TIMES:
            if rounds // times >= 2:
                yield rounds, rounds // times, times
    yield from CLOSE


def optimise(rounds: int, separation: int, times: int) -> dict[str, object]:
    import jax
    from jax_privacy.matrix_factorization import buffered_toeplitz

    jax.config.update("jax_enable_x64", True)
    found = buffered_toeplitz.optimize(
        n=rounds, min_sep=separation, max_participations=times, max_buffers=5
    )
    return {
        "rounds": rounds,
        "separation": separation,
        "participations": times,
        "decay": [float(x) for x in found.buf_decay],
        "scale": [float(x) for x in found.output_scale],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--most", type=int, default=1000, help="stop after so many new tables")
    parser.add_argument("--between", action="store_true", help="those of BETWEEN, for comparison")
    options = parser.parse_args()
    path, wanted = (OPTIMA, BETWEEN) if options.between else (TABLES, tuple(shapes()))
    tables = json.loads(path.read_text())["tables"] if path.exists() else []
    there = {(t["rounds"], t["separation"], t["participations"]) for t in tables}
    for shape in [shape for shape in wanted if shape not in there][: options.most]:
        tables.append(optimise(*shape))
        tables.sort(key=lambda t: (t["rounds"], t["separation"], t["participations"]))
        head = {"version": 1, "optimiser": "jax-privacy 2.0.0, max error, at most 5 buffers"}
        lines = ",\n".join(json.dumps(table) for table in tables)
        path.write_text(f'{json.dumps(head)[:-1]}, "tables": [\n{lines}\n]}}\n')
        print(shape, flush=True)


if __name__ == "__main__":
    main()
