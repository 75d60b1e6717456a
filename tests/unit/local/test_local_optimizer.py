"""Optimisers on a stack against torch.optim on each row, and schedules against transformers'."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import get_scheduler

from atoll.config.sections import Train
from atoll.local.optimizer import Optimizer, adamw, optimizer, schedule, sgd

K, P, STEPS = 3, 7, 12
RATES = torch.tensor([[0.1], [0.02], [0.5]], dtype=torch.float64)
CASES: dict[str, tuple[Optimizer, Callable[..., torch.optim.Optimizer]]] = {
    "sgd": (sgd(), lambda p, lr: torch.optim.SGD([p], lr=lr)),
    "momentum": (sgd(momentum=0.9), lambda p, lr: torch.optim.SGD([p], lr=lr, momentum=0.9)),
    "sgd-decay": (
        sgd(momentum=0.3, weight_decay=0.2),
        lambda p, lr: torch.optim.SGD([p], lr=lr, momentum=0.3, weight_decay=0.2),
    ),
    "adamw": (adamw(), lambda p, lr: torch.optim.AdamW([p], lr=lr, weight_decay=0.0)),
    "adamw-all": (
        adamw(betas=(0.8, 0.95), eps=1e-3, weight_decay=0.3),
        lambda p, lr: torch.optim.AdamW(
            [p], lr=lr, betas=(0.8, 0.95), eps=1e-3, weight_decay=0.3
        ),
    ),
}  # fmt: skip


def _draw(*shape: int, seed: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("name", CASES)
def test_each_row_is_torch_optims(name: str, dtype: torch.dtype, tolerance: float) -> None:
    ours, theirs = CASES[name]
    start = _draw(K, P, seed=0, dtype=dtype)
    # Clients stop at 12, 8 and 3 steps, longest first, as in a stack.
    ends = [12, 8, 3]
    params = start.clone()
    moments = ours.init(params)
    rows = [torch.nn.Parameter(row.clone()) for row in start]
    made = [theirs(row, float(RATES[k])) for k, row in enumerate(rows)]
    for number in range(STEPS):
        active = sum(end > number for end in ends)
        factor = 1 / (1 + number)
        grads = _draw(K, P, seed=100 + number, dtype=dtype)
        for k in range(active):
            made[k].param_groups[0]["lr"] = float(RATES[k]) * factor
            rows[k].grad = grads[k].clone()
            made[k].step()
        ours.step(
            params[:active], grads[:active].clone(), tuple(m[:active] for m in moments), number + 1,
            (RATES * factor).to(dtype)[:active],
        )  # fmt: skip
    expected = torch.stack([row.detach() for row in rows])
    torch.testing.assert_close(params, expected, rtol=tolerance, atol=tolerance)
    assert (params - start).abs().min() > 0


def test_settings_name_the_optimiser() -> None:
    train = Train(optimizer="adamw", adam_beta1=0.5, adam_beta2=0.7, adam_epsilon=0.1,
                  weight_decay=0.2)  # fmt: skip
    params = torch.nn.Parameter(torch.ones(2, dtype=torch.float64))
    made = torch.optim.AdamW([params], lr=0.1, betas=(0.5, 0.7), eps=0.1, weight_decay=0.2)
    for settings, theirs in (
        (train, made),
        (Train(optimizer="sgd", momentum=0.4, weight_decay=0.3),
         torch.optim.SGD([params], lr=0.1, momentum=0.4, weight_decay=0.3)),
    ):  # fmt: skip
        ours = optimizer(settings)
        mine = params.detach().clone().unsqueeze(0)
        moments = ours.init(mine)
        for number in (1, 2):
            grads = torch.tensor([[0.3, -2.0]], dtype=torch.float64)
            params.grad = grads[0].clone()
            theirs.step()
            ours.step(mine, grads, moments, number, torch.full((1, 1), 0.1, dtype=torch.float64))
        torch.testing.assert_close(mine[0], params.detach(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("kind", ["constant", "linear", "cosine", "constant_with_warmup"])
@pytest.mark.parametrize("warm", [0, 1, 4])
@pytest.mark.parametrize("total", [1, 5, 30])
def test_schedules_are_transformers(kind: Any, warm: int, total: int) -> None:
    settings = Train(lr_scheduler_type=kind, warmup_steps=warm)
    made = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    course = get_scheduler(kind, made, num_warmup_steps=warm, num_training_steps=total)
    for position in range(total):
        found = schedule(settings, position=torch.tensor([position]), horizon=torch.tensor([total]))
        assert found.item() == pytest.approx(made.param_groups[0]["lr"], abs=1e-12)
        made.step()
        course.step()


def test_schedules_advance_by_client() -> None:
    settings = Train(lr_scheduler_type="linear", warmup_steps=2)
    found = schedule(
        settings, position=torch.tensor([1, 2, 5, 10]), horizon=torch.tensor([10, 10, 6, 10])
    )
    expected = torch.tensor([0.5, 1.0, 0.25, 0.0], dtype=torch.float64)
    torch.testing.assert_close(found, expected)
