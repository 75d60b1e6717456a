"""A gate against models that are not what their run says: healthy losses, a valid ε, and useless.

The adapter on the disk is read back and must say what was trained; it must have moved; and what
moved it must not be noise alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from atoll.artifacts.read_adapter import read_adapter
from atoll.core import State
from atoll.errors import ModelError
from atoll.experiment.setup import Setup
from atoll.local.bench import Bench, model_values
from atoll.local.infer import forward_batches
from atoll.models.objective import Example
from atoll.tree import Tree, all_finite, l2_norm, subtract
from atoll.words import counted

__all__ = ["CLIENTS", "ROWS", "Examined", "check_finite", "drowned", "examined"]

CLIENTS, ROWS = 8, 8
"""Rows that are looked at: so many of so many clients."""
TOLERANCE = 1e-4
SETTLED = 3
"""Rounds after which each tensor should have moved: half of a LoRA begins to at its second step."""
HARDLY = 1e-6
"""The share of its length that what trains has moved, below which it is where it began."""


@dataclass(frozen=True)
class Examined:
    """What the gate found.

    loss, read_back: on the same rows, of the model in memory and of the one on the disk.
    moved: ‖w − w₀‖ / ‖w₀‖ of what trained; None where it began at zero.   still: names of those of
    its tensors that are where they began.   values: numbers in them.
    private: whether noise hides clients or rows, so that losses on rows are told to nobody.
    noise: L2 norm of the noise that is expected in w − w₀; None without noise, and where a server
    does not move in proportion to updates.
    signal_to_noise: what is left of ‖w − w₀‖ without that noise, over it; of noise that hides rows,
    which goes through optimisers: what it is at most, were all gradients alike (`at_most`).
    """

    loss: float
    read_back: float
    moved: float | None
    still: tuple[str, ...]
    tensors: int
    values: int
    rounds: int
    private: bool = False
    noise: float | None = None
    signal_to_noise: float | None = None
    at_most: bool = False

    def told(self) -> dict[str, Any]:
        """For summary.json."""
        found: dict[str, Any] = {"moved": self.moved, "still": len(self.still)}
        if not self.private:
            return {"loss": self.loss, "read_back": self.read_back, **found}
        ratio = "signal_to_noise_at_most" if self.at_most else "signal_to_noise"
        return {**found, "noise": self.noise, ratio: self.signal_to_noise}

    def warnings(self) -> Iterator[str]:
        """What a user should not overlook."""
        if self.rounds and self.moved is not None and self.moved < HARDLY:
            yield (
                f"the model hardly moved: by {self.moved:.2g} of its length in "
                f"{counted(self.rounds, 'round')}; raise train.learning_rate"
            )
        elif self.still and self.rounds >= SETTLED:
            first = ", ".join(self.still[:3])
            yield f"{counted(len(self.still), 'tensor')} of {self.tensors} did not move: {first}"
        if self.signal_to_noise is not None and self.signal_to_noise < drowned(self.values):
            length = "" if self.noise is None else f" ({self.noise:.3g} in L2 norm)"
            most = " at most, were all gradients alike" if self.at_most else ""
            yield (
                f"the model is hardly more than noise: the signal in it is "
                f"{self.signal_to_noise:.2g} of the noise{length}{most}; more clients a round, "
                "fewer trainable values (adapter.r), fewer rounds or a larger epsilon raise it; a "
                "signal has few directions and noise all, so that only scores tell if it is of use"
            )


def drowned(values: int) -> float:
    """The signal to noise over a whole run below which a model cannot be told from noise.

    ‖w − w₀‖² deviates by noise²·√(2/d) where there is noise alone; a signal is looked for above two
    deviations. A longer noise than signal alone drowns nothing: it is spread over all d directions,
    and the signal has few.
    """
    return math.sqrt(2 * math.sqrt(2 / values))


def examined(setup: Setup, state: State, folder: Path, rounds: int) -> Examined:
    """Look at the adapter in `folder`, which a run of `rounds` updates has written.

    Raises:
        ModelError: when it is not the model that was trained.
    """
    rows = _rows(setup)
    trained, stored = model_values(state), read_adapter(setup, folder)
    check_finite(trained, "the trained model")
    check_finite(stored, f"the adapter in {folder}, read back,")
    loss, read_back = (_loss(setup.bench, values, rows) for values in (trained, stored))
    # One row alone may have a loss that is no number, of finite values; then both have none.
    alike = math.isnan(loss) and math.isnan(read_back)
    if not alike and not math.isclose(loss, read_back, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
        raise ModelError(
            f"the adapter in {folder}, read back, is not the one that was trained: its loss on "
            f"{counted(len(rows), 'row')} is {read_back:.4g}, and that of the trained one "
            f"{loss:.4g}; the run's checkpoints hold the trained one"
        )
    before = _trained(setup, setup.start.server)
    after = _trained(setup, state)
    change = subtract(after, before)
    still = tuple(name for name, value in change.items() if not bool(value.any()))
    length, start = l2_norm(change), l2_norm(before)
    moved = length / start if start else None
    private = (setup.protection or setup.rows) is not None
    values = sum(value.numel() for value in change.values())
    found = Examined(loss, read_back, moved, still, len(change), values, rounds, private)
    best = setup.rows.signal_to_noise(values) if setup.rows and rounds and values else None
    if best is not None and best[1]:
        # Clients' noise is their own, and a mean over them has less of it.
        most = best[1] * math.sqrt(setup.clients_per_round)
        return replace(found, signal_to_noise=most, at_most=True)
    noise = _noise(setup, change, state, rounds)
    if not noise:
        return replace(found, noise=noise)
    signal = math.sqrt(max(length**2 - noise**2, 0.0))
    return replace(found, noise=noise, signal_to_noise=signal / noise)


def check_finite(values: Tree, what: str) -> None:
    """Refuse a model of which a value is NaN or infinite.

    Raises:
        ModelError: names the first of its tensors.
    """
    odd = [name for name, value in values.items() if not all_finite({name: value})]
    if odd:
        first = ", ".join(odd[:3]) + (", …" if len(odd) > 3 else "")
        raise ModelError(
            f"{what} has values that are not finite in {counted(len(odd), 'tensor')} of "
            f"{len(values)} ({first}); lower train.learning_rate, or that of federation.server"
        )


def _noise(setup: Setup, change: Tree, state: State, rounds: int) -> float | None:
    if setup.protection is None or not rounds or not change:
        return None
    response = setup.program.algorithms["train"].server.response
    return None if response is None else setup.protection.noise_in(change, state, response(rounds))


def _trained(setup: Setup, state: State) -> Tree:
    if "train" not in setup.program.algorithms:
        return {}
    parts = ("adapter", "head") if setup.bench.train_head else ("adapter",)
    return {
        name: value.double()
        for part in parts
        for name, value in state.get(part, {}).items()
        if value.is_floating_point()
    }


def _rows(setup: Setup) -> list[Example]:
    clients = setup.data.clients[:CLIENTS]
    found = [row for name in clients for row in setup.bench.examples(name, "train")[:ROWS]]
    return [row for row in found if setup.bench.objective.count(row)]


def _loss(bench: Bench, values: Tree, rows: Sequence[Example]) -> float:
    """The mean loss of all rows, under the terms of a client that has them all."""
    # Whatever was kept of these rows: the whole model runs.
    bench = replace(bench, prefix=None)
    terms: Mapping[str, torch.Tensor] = bench.objective.terms(rows)
    total, count = 0.0, sum(map(bench.objective.count, rows))
    for chosen, batch, outputs in forward_batches(bench, values, rows):
        expanded = {
            name: value.to(outputs.device).unsqueeze(0).expand(len(chosen), *value.shape)
            for name, value in terms.items()
        }
        total += float(bench.objective.losses(outputs, batch, expanded).sum())
    return total / max(count, 1)
