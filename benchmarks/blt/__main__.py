"""What noise costs: one round for a million values, and how well tables serve runs between them.

OMP_NUM_THREADS=1 python -m benchmarks.blt [--values 1000000] [--repeats 5]
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from atoll.matrix import Blt, Participation, error, mechanism, sensitivity, strategy
from atoll.noise import Stream, standard_normal
from atoll.noise.discrete import discrete_gaussian
from atoll.noise.rounding import rounded
from atoll.noise.skellam import skellam
from benchmarks.blt.tables import OPTIMA
from benchmarks.common import interleave, markdown, write_result

KEY = bytes(range(32))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--values", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    costs, runs = measure(options.values, options.repeats), between()
    content = {"values": options.values, "cpu_ms": costs, "runs": runs}
    path = write_result(Path(__file__).parent, "noise", content)
    print(markdown(["noise", "CPU ms"], list(costs.items())))
    print(f"\n{markdown(list(runs[0]), [list(run.values()) for run in runs])}")
    print(f"\nwritten to {path}")


def measure(values: int, repeats: int) -> dict[str, float]:
    """CPU milliseconds of one round's noise, arms in turn."""
    arms: dict[str, Callable[[], object]] = {}
    drawn = standard_normal(Stream(KEY, "kept"), (values,))
    for rounds, separation, times in ((1000, 1000, 1), (500, 50, 10), (100, 10, 10)):
        made = mechanism(Participation(rounds, separation, times))
        state = made.init({"w": torch.zeros(values)})
        name = f"blt for {rounds} rounds, {len(made.strategy.blt.decay)} buffers"
        arms[f"{name}, with its draws"] = lambda made=made, state=state: made.noise(
            state, lambda shape: standard_normal(Stream(KEY), shape)
        )
        arms[f"{name}, without"] = lambda made=made, state=state: made.noise(
            state, lambda shape: drawn
        )
    arms["independent Gaussian"] = lambda: standard_normal(Stream(KEY), (values,))
    for sigma in (2.0, 500.0, 2.0**15):
        arms[f"discrete Gaussian, sigma {sigma:g}"] = lambda s=sigma: discrete_gaussian(
            Stream(KEY), s, (values,)
        )
        arms[f"Skellam, sigma {sigma:g}"] = lambda s=sigma: skellam(Stream(KEY), s**2, (values,))
    exact = 5 * standard_normal(Stream(KEY), (values,))
    bound = float(exact.norm()) + values**0.5
    arms["rounding within a norm"] = lambda: rounded(Stream(KEY), exact, bound)
    found = interleave(arms, repeats=repeats)
    return {name: round(1000 * sample.cpu, 1) for name, sample in found.items()}


def between() -> list[dict[str, Any]]:
    """How much less noise runs have than with independent noise, beside tables of their own."""
    found = []
    for best in json.loads(OPTIMA.read_text())["tables"]:
        plan = Participation(best["rounds"], best["separation"], best["participations"])
        chosen, own = strategy(plan), Blt(tuple(best["decay"]), tuple(best["scale"]))
        ideal = sensitivity(own, plan) * error(own, plan.rounds)
        found.append(
            {
                "rounds": plan.rounds,
                "separation": plan.separation,
                "times": plan.times,
                "buffers": len(chosen.blt.decay),
                "sensitivity": round(chosen.sensitivity, 4),
                "error": round(chosen.error, 4),
                "gain": round(chosen.gain, 2),
                "gain of its own table": round(math.sqrt(plan.possible * plan.rounds) / ideal, 2),
            }
        )
    return found


if __name__ == "__main__":
    main()
