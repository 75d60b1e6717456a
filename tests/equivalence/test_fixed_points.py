"""Where methods end: the optimum, or a point beside it that a formula tells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from atoll.algorithms.fedavg import fedavg
from atoll.algorithms.fednova import fednova
from atoll.algorithms.scaffold import scaffold
from atoll.core import Algorithm, Stage
from atoll.local.bench import Bench
from atoll.stages import clip, quantise, top_k
from tests.equivalence.regression import Regression, Rows, sgd

# Client k's loss is ½·h_k·‖w − m_k‖²: equal rows, so that every batch has the same gradient.
CURVATURE = {"ada": 2.0, "bob": 0.5, "cyd": 1.0}
CENTRE = {"ada": (1.0, -2.0), "bob": (-3.0, 0.5), "cyd": (0.5, 4.0)}


def quadratics(counts: dict[str, int], *, rate: float, epochs: int = 1) -> Regression:
    """w is 2×1; a client with more rows takes more steps of 2 rows."""
    rows: dict[str, Rows] = {}
    for client, count in counts.items():
        x = torch.full((count, 1), CURVATURE[client] ** 0.5, dtype=torch.float64)
        rows[client] = x, x * torch.tensor(CENTRE[client], dtype=torch.float64)
    settings = sgd(learning_rate=rate, per_device_train_batch_size=2, num_train_epochs=epochs)
    return Regression(rows, settings, bias=False)


def balance(weights: dict[str, float]) -> Tensor:
    """w with Σ weight_k·(m_k − w) = 0."""
    centres = torch.tensor([CENTRE[k] for k in weights], dtype=torch.float64)
    shares = torch.tensor(list(weights.values()), dtype=torch.float64)
    return ((shares.unsqueeze(1) * centres).sum(0) / shares.sum()).unsqueeze(1)


def test_scaffold_reaches_the_optimum_where_fedavg_stalls() -> None:
    """Five local steps on unlike quadratics, everyone with the same weight."""
    problem = quadratics(dict.fromkeys(CURVATURE, 2), rate=0.1, epochs=5)
    optimum = problem.optimum(dict.fromkeys(CURVATURE, 1.0))
    torch.testing.assert_close(optimum, balance(CURVATURE), rtol=0, atol=1e-12)

    stalled = problem.final(fedavg, rounds=80)
    reach = {k: 1 - (1 - 0.1 * h) ** 5 for k, h in CURVATURE.items()}
    torch.testing.assert_close(stalled, balance(reach), rtol=0, atol=1e-9)
    assert float((stalled - optimum).norm()) > 0.1

    controlled = problem.final(scaffold, rounds=200)
    torch.testing.assert_close(controlled, optimum, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "stage", [top_k(fraction=0.5), quantise(dtype="int8"), clip(norm=0.5)], ids=lambda s: s.name
)
def test_scaffold_reaches_the_optimum_with_a_stage_on_its_update(stage: Stage) -> None:
    """At the optimum every update is zero, and so is what waits for later or was rounded away."""
    problem = quadratics(dict.fromkeys(CURVATURE, 2), rate=0.1, epochs=5)
    optimum = problem.optimum(dict.fromkeys(CURVATURE, 1.0))

    def algorithm(bench: Bench) -> Algorithm:
        plain = scaffold(bench)
        return replace(plain, stages=(*plain.stages, stage))

    *_, (report, found) = problem.run(algorithm, rounds=400)
    torch.testing.assert_close(found, optimum, rtol=0, atol=1e-9)
    control = problem.matrix(report.position.server["control"])
    torch.testing.assert_close(control, torch.zeros_like(control), rtol=0, atol=1e-8)


COUNTS = {"ada": 2, "bob": 12, "cyd": 6}
STEPS = {"ada": 1, "bob": 6, "cyd": 3}


def test_unequal_steps_pull_fedavg_and_not_fednova() -> None:
    """Closed forms; as η → 0 their weights are n_k·τ_k·h_k for FedAvg, n_k·h_k for FedNova."""
    rate = 0.05
    problem = quadratics(COUNTS, rate=rate)
    assert {k: len(problem.gradients(k, 1)) for k in COUNTS} == STEPS
    reach = {k: COUNTS[k] * (1 - (1 - rate * CURVATURE[k]) ** STEPS[k]) for k in COUNTS}
    normalized = {k: reach[k] / STEPS[k] for k in COUNTS}
    average, nova = problem.final(fedavg, rounds=200), problem.final(fednova, rounds=200)
    torch.testing.assert_close(average, balance(reach), rtol=0, atol=1e-9)
    torch.testing.assert_close(nova, balance(normalized), rtol=0, atol=1e-9)
    optimum = problem.optimum({k: float(n) for k, n in COUNTS.items()})
    assert float((nova - optimum).norm()) < 0.1 * float((average - optimum).norm())


@pytest.mark.parametrize(("algorithm", "order"), [(fedavg, 1), (fednova, 2)])
def test_at_the_optimum_fednova_stands_still_to_first_order(
    algorithm: Callable[[Bench], Algorithm], order: int
) -> None:
    """One round from the optimum: half the rate moves it half as far, or a quarter."""
    moves: list[float] = []
    for rate in (1e-3, 5e-4):
        problem = quadratics(COUNTS, rate=rate)
        optimum = problem.optimum({k: float(n) for k, n in COUNTS.items()})
        *_, (_, after) = problem.run(algorithm, rounds=1, start=optimum)
        moves.append(float((after - optimum).norm()))
    assert moves[0] / moves[1] == pytest.approx(2**order, rel=0.02)


COURSES = {
    "linear": lambda t, total: 1 - t / total,
    "linear, warm": lambda t, total: t / 4 if t < 4 else (total - t) / (total - 4),
    "constant, warm": lambda t, total: min(t / 4, 1.0),
}


@pytest.mark.parametrize("rho", [0.0, 0.9])
@pytest.mark.parametrize("course", COURSES)
def test_fednova_stands_still_under_any_course_of_the_rate(course: str, rho: float) -> None:
    """Uneven clients whose rates differ from step to step, and ‖a_k‖₁ from a_k itself.

    Two rows of a client make a step, so that in two epochs they take 2, 12 and 6; to the first
    order of η client k moves by −η·‖a_k‖₁·h_k·(w − m_k). Divided by ‖a_k‖₁, these moves add up to
    zero at the optimum.
    """
    kind, _, warm = course.partition(", ")
    settings = {
        "lr_scheduler_type": {"constant": "constant_with_warmup"}.get(kind, kind),
        "warmup_steps": 4 if warm else 0, "momentum": rho,
    }  # fmt: skip
    moves: dict[str, list[float]] = {"still": [], "away": []}
    for rate in (1e-4, 5e-5):
        problem = quadratics(COUNTS, rate=rate, epochs=2)
        problem = replace(problem, settings=problem.settings.model_copy(update=settings))
        optimum = problem.optimum({k: float(n) for k, n in COUNTS.items()})
        *_, (_, after) = problem.run(fednova, rounds=1, start=optimum)
        moves["still"].append(float((after - optimum).norm()))
        start = optimum + 1
        *_, (_, after) = problem.run(fednova, rounds=1, start=start)
        moves["away"].append(float((after - start).norm()) / rate)
    assert moves["still"][0] / moves["still"][1] == pytest.approx(4, rel=0.02)

    def mass(steps: int) -> float:
        factors = [COURSES[course](t, steps) for t in range(steps)]
        return sum(factors[s] * rho ** (s - i) for s in range(steps) for i in range(s + 1))

    total = sum(COUNTS.values())
    effective = sum(n / total * mass(2 * STEPS[k]) for k, n in COUNTS.items())
    slope = sum(n / total * CURVATURE[k] for k, n in COUNTS.items())
    assert moves["away"][1] == pytest.approx(effective * slope * 2**0.5, rel=0.01)
