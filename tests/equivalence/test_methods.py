"""Each published method against its own formula, with unequal weights and steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
import torch
from torch import Tensor

from atoll.algorithms.fedavg import fedavg
from atoll.algorithms.fednova import fednova
from atoll.algorithms.fedopt import fedopt
from atoll.algorithms.fedprox import fedprox
from atoll.algorithms.scaffold import scaffold
from atoll.core import Algorithm
from atoll.errors import ConfigError
from atoll.local.bench import Bench
from tests.equivalence.regression import Regression, sgd, uneven_rows

RATE = 0.1
PROBLEM = Regression(
    uneven_rows(), sgd(learning_rate=RATE, per_device_train_batch_size=2, num_train_epochs=2)
)
COUNT = {client: len(x) for client, (x, _) in PROBLEM.rows.items()}
EXACT = 1e-12


def close(a: Tensor, b: Tensor, *, tolerance: float = EXACT) -> None:
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def by_rows(values: Mapping[str, Tensor]) -> Tensor:
    """Σ n_k·x_k / Σ n_k over the clients that `values` names."""
    total = sum(COUNT[k] for k in values)
    return torch.stack([COUNT[k] / total * value for k, value in values.items()]).sum(0)


def local_sgd(
    w: Tensor, client: str, number: int, *, mu: float = 0.0, rho: float = 0.0,
    factors: Sequence[float] | None = None,
) -> Tensor:  # fmt: skip
    """Where local steps lead: FedProx with μ, heavy-ball momentum with ρ, rates η·f_s."""
    y, m = w.clone(), torch.zeros_like(w)
    for s, gradient in enumerate(PROBLEM.gradients(client, number)):
        m = rho * m + gradient(y) + mu * (y - w)
        y = y - RATE * (factors[s] if factors else 1.0) * m
    return y


def test_the_clients_are_uneven() -> None:
    assert [len(PROBLEM.gradients(client, 1)) for client in COUNT] == [8, 2, 6, 2]
    assert PROBLEM.start().shape == (2, 4)


@pytest.mark.parametrize("cohort", [4, 2])
def test_fedavg(cohort: int) -> None:
    """Algorithm 1: w ← Σ n_k/n · w_k."""
    w = PROBLEM.start()
    for report, found in PROBLEM.run(fedavg, rounds=4, cohort=cohort):
        asked = report.exchanges[0].cohort
        assert len(asked) == cohort
        w = by_rows({k: local_sgd(w, k, report.round) for k in asked})
        close(found, w)


@pytest.mark.parametrize("mu", [0.0, 0.7])
def test_fedprox(mu: float) -> None:
    """Algorithm 2: local steps on F_k(w) + μ/2·‖w − w_t‖²."""
    w = PROBLEM.start()
    for report, found in PROBLEM.run(lambda bench: fedprox(bench, mu=mu), rounds=3, cohort=3):
        asked = report.exchanges[0].cohort
        w = by_rows({k: local_sgd(w, k, report.round, mu=mu) for k in asked})
        close(found, w)
    *_, (_, plain) = PROBLEM.run(fedavg, rounds=3, cohort=3)
    assert torch.equal(plain, found) == (mu == 0)


@pytest.mark.parametrize("server_rate", [1.0, 0.6])
def test_scaffold(server_rate: float) -> None:
    """Algorithm 1 with option II, two of four clients a round."""
    x = PROBLEM.start()
    c = torch.zeros_like(x)
    own = {client: torch.zeros_like(x) for client in COUNT}
    seen: set[str] = set()

    def algorithm(bench: Bench) -> Algorithm:
        return scaffold(bench, learning_rate=server_rate)

    for report, found in PROBLEM.run(algorithm, rounds=7, cohort=2):
        asked = report.exchanges[0].cohort
        moves, changes = [], []
        for k in asked:
            y, gradients = x.clone(), PROBLEM.gradients(k, report.round)
            for gradient in gradients:
                y = y - RATE * (gradient(y) - own[k] + c)
            new = own[k] - c + (x - y) / (len(gradients) * RATE)
            moves.append(y - x)
            changes.append(new - own[k])
            own[k] = new
        x = x + server_rate * torch.stack(moves).mean(0)
        c = c + torch.stack(changes).sum(0) / len(COUNT)
        close(found, x, tolerance=1e-11)
        close(PROBLEM.matrix(report.position.server["control"]), c, tolerance=1e-11)
        seen |= set(asked)
    assert seen == set(COUNT)


def mass(factors: Sequence[float], rho: float) -> float:
    """‖a‖₁, from a itself: how much of each local gradient enters the sum of updates."""
    steps = len(factors)
    return sum(sum(factors[s] * rho ** (s - i) for s in range(i, steps)) for i in range(steps))


@pytest.mark.parametrize("warm", [0, 3])
@pytest.mark.parametrize("rho", [0.0, 0.9])
@pytest.mark.parametrize("server_rate", [1.0, 0.5])
def test_fednova(rho: float, server_rate: float, warm: int) -> None:
    """Eq. 6 and 7: w ← w − τ_eff·Σ p_k·η·d_k with η·d_k = (w − w_k)/‖a_k‖₁.

    With a warm-up a step's rate is η·t/3 in the client's first three steps of the run.
    """
    course = {"lr_scheduler_type": "constant_with_warmup", "warmup_steps": warm} if warm else {}
    problem = Regression(
        PROBLEM.rows, PROBLEM.settings.model_copy(update={"momentum": rho, **course})
    )
    w = problem.start()

    def factors(client: str, number: int) -> list[float]:
        steps = len(problem.gradients(client, number))
        places = range((number - 1) * steps, number * steps)
        return [min(1.0, t / warm) if warm else 1.0 for t in places]

    def algorithm(bench: Bench) -> Algorithm:
        return fednova(bench, learning_rate=server_rate)

    for report, found in problem.run(algorithm, rounds=3, cohort=3):
        asked, number = report.exchanges[0].cohort, report.round
        norms = {k: mass(factors(k, number), rho) for k in asked}
        ends = {k: local_sgd(w, k, number, rho=rho, factors=factors(k, number)) for k in asked}
        effective = by_rows({k: torch.tensor(norms[k], dtype=torch.float64) for k in asked})
        direction = by_rows({k: (w - ends[k]) / norms[k] for k in asked})
        w = w - server_rate * effective * direction
        close(found, w)


SECOND = {
    "adam": lambda v, d, beta2: beta2 * v + (1 - beta2) * d**2,
    "yogi": lambda v, d, beta2: v - (1 - beta2) * d**2 * torch.sign(v - d**2),
    "adagrad": lambda v, d, beta2: v + d**2,
}


@pytest.mark.parametrize("betas", [{}, {"beta1": 0.5}, {"beta1": 0.3, "beta2": 0.8}], ids=str)
@pytest.mark.parametrize("name", SECOND)
def test_fedopt(name: str, betas: dict[str, float]) -> None:
    """Algorithm 2: m and v without bias correction, v from τ²."""
    eta, tau = 0.05, 0.01
    if name == "adagrad" and "beta2" in betas:
        with pytest.raises(ConfigError, match=r"beta2 is 0\.8, but adagrad adds up all squares"):
            fedopt(PROBLEM.bench, optimizer=name, **betas)  # type: ignore[arg-type]
        return
    beta1 = betas.get("beta1", 0.0 if name == "adagrad" else 0.9)
    x = PROBLEM.start()
    m, v = torch.zeros_like(x), torch.full_like(x, tau**2)

    def algorithm(bench: Bench) -> Algorithm:
        return fedopt(bench, optimizer=name, learning_rate=eta, tau=tau, **betas)  # type: ignore[arg-type]

    for report, found in PROBLEM.run(algorithm, rounds=5, cohort=3):
        asked = report.exchanges[0].cohort
        delta = by_rows({k: local_sgd(x, k, report.round) for k in asked}) - x
        m = beta1 * m + (1 - beta1) * delta
        v = SECOND[name](v, delta, betas.get("beta2", 0.99))
        x = x + eta * m / (v.sqrt() + tau)
        close(found, x, tolerance=1e-10)
