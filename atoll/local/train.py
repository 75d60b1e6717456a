"""Local training of a stack of clients: one forward and one backward over one frozen base."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from atoll.accounting import Poisson, Release
from atoll.core import Failure, Request
from atoll.local.batches import plan_steps
from atoll.local.bench import Bench
from atoll.local.check import check_rows, check_rule
from atoll.local.job import Job, LocalRule
from atoll.local.per_example import exchange_key, poisson_steps
from atoll.local.stack import Stack
from atoll.models.objective import Example
from atoll.tree import Tree, finite

__all__ = ["LocalRule", "Trained", "train"]


@dataclass(frozen=True)
class Trained:
    """One client's result: values before and after; the mean gradient where the rule asked.

    factors: for each step, its learning rate over the rate that the settings name.
    spends: what its rows paid for `end` and `mean_gradient`, where they are hidden. The loss then
        stays with the client: no noise hides rows in it.
    """

    request: Request
    start: Tree
    end: Tree
    mean_gradient: Tree
    factors: tuple[float, ...]
    examples: int
    loss: float
    spends: Release | None = None

    @property
    def steps(self) -> int:
        """How many steps the client took."""
        return len(self.factors)


def train(
    bench: Bench, requests: Sequence[Request], rule: LocalRule | None = None
) -> Iterator[Trained | Failure]:
    """Train each request's client from what was broadcast: in order, or in stacks of like length.

    A client whose loss is not finite becomes a Failure and touches no other; where rows are hidden,
    one whose values are not: a loss would tell of rows.

    Raises:
        PrivacyError: when rows are to be hidden and cannot be.
    """
    rule = rule or LocalRule()
    check_rule(bench, rule)
    jobs: list[Job] = []
    for request in requests:
        examples = bench.examples(request.context.client, "train")
        if examples:
            jobs.append(_job(bench, request, examples, rule))
        else:
            yield Failure(request.context.client, "data", "it has no rows to train on")
    if bench.group_size > 1:
        jobs.sort(key=lambda job: -len(job.steps))
    for start in range(0, len(jobs), bench.group_size):
        yield from _train_stack(bench, jobs[start : start + bench.group_size], rule)


def _job(bench: Bench, request: Request, examples: Sequence[Example], rule: LocalRule) -> Job:
    if rule.private is None:
        return Job(request, examples, _plan(bench, request, examples, rule))
    check_rows(bench, request.context.client, examples)
    spends = rule.private.spends(bench.settings, len(examples), rule.epochs)
    assert isinstance(spends.sampling, Poisson), "rows are drawn by coins"
    rate, key = spends.sampling.rate, exchange_key(rule.private, request)
    steps = poisson_steps(key, rate, steps=spends.steps, rows=len(examples))
    return Job(request, examples, steps, spends, rate * len(examples), key)


def _plan(
    bench: Bench, request: Request, examples: Sequence[Example], rule: LocalRule
) -> list[list[int]]:
    settings = bench.settings
    size = settings.per_device_train_batch_size * settings.gradient_accumulation_steps
    epochs = float(settings.num_train_epochs if rule.epochs is None else rule.epochs)
    if settings.max_steps is not None and rule.epochs is None:
        epochs = settings.max_steps / -(-len(examples) // size)
    lengths = [len(example) for example in examples]
    return plan_steps(lengths, request.context, batch_size=size, epochs=epochs)


def _train_stack(bench: Bench, jobs: Sequence[Job], rule: LocalRule) -> Iterator[Trained | Failure]:
    run = Stack(bench, jobs, rule)
    for number in range(len(jobs[0].steps)):
        run.step(number)
    ends = run.params.cpu()
    gradients = None if run.gradient_sum is None else run.gradient_sum.cpu()
    for k, job in enumerate(jobs):
        loss = float(run.loss_sum[k]) / _summed(job)
        told = job.spends is None
        if (told and not math.isfinite(loss)) or not finite(run.params[k]):
            what = "trained values are not finite"
            if told and not math.isfinite(loss):
                what = f"training loss became {loss}"
            yield Failure(
                job.request.context.client,
                "diverged",
                f"its {what}; lower train.learning_rate or look at its rows",
            )
            continue
        yield Trained(
            job.request,
            run.starts[k],
            _row(ends[k].clone(), run, k),
            {} if gradients is None else _row(gradients[k] / len(job.steps), run, k),
            tuple(run.factors[k, : len(job.steps)].tolist()),
            len(job.examples),
            loss,
            job.spends,
        )


def _summed(job: Job) -> int:
    """How many losses were added up: one a step; one a row, where rows are hidden."""
    return len(job.steps) if job.spends is None else max(1, sum(map(len, job.steps)))


def _row(values: Tensor, run: Stack, k: int) -> Tree:
    """One client's values in its own shapes: a memory that is its own, and of no other client."""
    parts = torch.split(values, [value.numel() for value in run.like.values()])
    own = run.starts[k]
    return {
        name: part.view(like.shape)[tuple(map(slice, own[name].shape))].contiguous()
        for (name, like), part in zip(run.like.items(), parts, strict=True)
    }
