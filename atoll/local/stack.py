"""The buffers of K clients that train together: parameters as one matrix [K, P], a row a client."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from atoll.adapters.ranks import pad_ranks
from atoll.local.bench import Bench, trained_values
from atoll.local.forward import Forward, Rows
from atoll.local.job import Job, LocalRule
from atoll.local.optimizer import base_rates, optimizer, schedule
from atoll.local.per_example import PerExample, hidden
from atoll.local.row_gradients import add_clipped
from atoll.tree import Tree, flatten, stack, unflatten

__all__ = ["Stack"]


class Stack:
    """The buffers of one stack while it trains; clients are sorted by steps, longest first.

    starts: each client's first values, in its own shapes.   like: the shapes of the stack, where
    smaller ranks are filled up with zeros.
    """

    def __init__(self, bench: Bench, jobs: Sequence[Job], rule: LocalRule) -> None:
        self.bench, self.jobs, self.rule = bench, jobs, rule
        self.starts = [trained_values(bench, job.request.payload) for job in jobs]
        padded, ranks = pad_ranks(self.starts)
        self.like = padded[0]
        start = flatten(stack(padded)).to(bench.device)
        self.start, self.params = start, start.clone()
        self.grads = torch.empty_like(start)
        self.gradient_sum = torch.zeros_like(start) if rule.mean_gradient else None
        self.loss_sum = torch.zeros(len(jobs), dtype=torch.float64, device=bench.device)
        self.optimizer = optimizer(bench.settings)
        self.moments = self.optimizer.init(self.params)
        self.rates = base_rates(bench.settings, self.like, bench.head).to(start)
        self.factors = self._factors()
        self.offset = None
        if rule.offset is not None:
            self.offset = self._filled([rule.offset(job.request) for job in jobs]).to(start)
        if rule.private is not None:
            self.sums = torch.empty_like(start, dtype=torch.float64)
            self.own = self._own() if ranks else None
        self.forward = Forward(bench, jobs, self.like, ranks)
        self.active = 0

    def step(self, number: int) -> None:
        """One optimiser step of every client that has one left."""
        active = sum(len(job.steps) > number for job in self.jobs)
        if active != self.active:
            self._narrow(active)
        if self.rule.private is None:
            self._gradients(number)
        else:
            self._hidden_gradients(number, self.rule.private)
        self._update(number)

    def _own(self) -> Tensor:
        """[K, P]: which values are a client's own, and do not fill up its rank."""
        ones = [{n: torch.ones_like(v) for n, v in tree.items()} for tree in self.starts]
        return self._filled(ones).bool().to(self.start.device)

    def _filled(self, trees: Sequence[Tree]) -> Tensor:
        """Values of clients in their own shapes as [K, P]."""
        whole = stack(pad_ranks(trees)[0])
        return flatten({name: whole[name] for name in self.like})

    def _narrow(self, active: int) -> None:
        """Leaves that share memory with the first `active` rows of the buffers."""
        self.active = active
        views = unflatten(self.params[:active], self.like)
        self.values = {name: value.detach().requires_grad_() for name, value in views.items()}
        self.leaves = list(self.values.values())

    def _gradients(self, number: int) -> None:
        """The gradient of the mean loss of each client's rows."""
        active, objective = self.active, self.bench.objective
        size = self.bench.settings.per_device_train_batch_size
        chosen = [job.rows(number, objective.redraw) for job in self.jobs[:active]]
        counts = [sum(map(objective.count, rows)) for rows in chosen]
        for micro in range(0, max(map(len, chosen)), size):
            sets = [Rows(k, micro, own[micro : micro + size]) for k, own in enumerate(chosen)]
            losses = _mean(self.forward.losses(self.values, sets, number), counts)
            self.loss_sum[:active] += losses.detach()
            loss = losses.sum()
            if micro == 0:
                loss = loss + self.bench.model.penalty(self.values)
            found = torch.autograd.grad(loss, self.leaves)
            flat = [gradient.reshape(active, -1) for gradient in found]
            if micro == 0:
                torch.cat(flat, dim=1, out=self.grads[:active])
            else:
                self.grads[:active] += torch.cat(flat, dim=1)

    def _hidden_gradients(self, number: int, private: PerExample) -> None:
        """Clipped gradients of single rows, added up under noise, over the rows expected."""
        sums, grads = self.sums[: self.active].zero_(), self.grads[: self.active].zero_()
        for sets in self._drawn(number):
            owners = torch.tensor([one.owner for one in sets], device=sums.device)
            losses = partial(self._row_losses, sets, number)
            found = add_clipped(sums, self.values, owners, private.clip, losses)
            self.loss_sum.index_add_(0, owners, found.double())
        for k, job in enumerate(self.jobs[: self.active]):
            own = slice(None) if self.own is None else self.own[k]
            noisy = hidden(sums[k, own], private, job.key, number) / job.expected
            grads[k, own] = noisy.to(grads)
        penalty = self.bench.model.penalty(self.values)
        if isinstance(penalty, Tensor):  # it reads no rows, and stands outside of the clip
            pulls = torch.autograd.grad(penalty, self.leaves, materialize_grads=True)
            grads += torch.cat([pull.reshape(1, -1) for pull in pulls], dim=1)

    def _row_losses(self, sets: Sequence[Rows], number: int, values: Tree) -> Tensor:
        """The mean loss of each row's own predictions: it reads nothing of other rows."""
        counts = [self.bench.objective.count(one.examples[0]) for one in sets]
        return _mean(self.forward.losses(values, sets, number), counts)

    def _drawn(self, number: int) -> Iterator[list[Rows]]:
        """The rows of a step, each by itself, in pieces of like length that memory can hold."""
        rows = [
            Rows(k, place, [row])
            for k, job in enumerate(self.jobs[: self.active])
            for place, row in zip(
                job.steps[number], job.rows(number, self.bench.objective.redraw), strict=True
            )
        ]
        rows.sort(key=lambda one: -len(one.examples[0]))
        size = self.bench.settings.per_device_train_batch_size * self.active
        pieces = len(rows) if self.bench.model.alone else -(-len(rows) // size)
        for piece in range(pieces):
            yield rows[len(rows) * piece // pieces : len(rows) * (piece + 1) // pieces]

    def _update(self, number: int) -> None:
        active, settings = self.active, self.bench.settings
        params, grads = self.params[:active], self.grads[:active]
        if self.rule.proximal:
            grads.add_(params - self.start[:active], alpha=self.rule.proximal)
        if settings.max_grad_norm is not None and self.rule.private is None:
            norms = torch.linalg.vector_norm(grads, dim=1, keepdim=True)
            grads.mul_((settings.max_grad_norm / (norms + 1e-6)).clamp(max=1))
        if self.gradient_sum is not None:
            self.gradient_sum[:active] += grads
        if self.offset is not None:
            grads.add_(self.offset[:active])
        moments = tuple(moment[:active] for moment in self.moments)
        self.optimizer.step(params, grads, moments, number + 1, self._rate(number)[:active])

    def _factors(self) -> Tensor:
        """[K, S]: what the schedule makes of each client's learning rate at each step."""
        steps = torch.tensor([[len(job.steps)] for job in self.jobs])
        rounds = torch.tensor([[max(job.request.context.round - 1, 0)] for job in self.jobs])
        return schedule(
            self.bench.settings,
            position=rounds * steps + torch.arange(int(steps.max())),
            horizon=self.bench.num_rounds * steps,
        )

    def _rate(self, number: int) -> Tensor:
        """[K, 1] or [K, P]: the scheduled learning rate of each client at this step."""
        if self.bench.settings.lr_scheduler_type == "constant":
            return self.rates
        return self.rates * self.factors[:, number : number + 1].to(self.start)


def _mean(sums: Tensor, counts: Sequence[int]) -> Tensor:
    """Sums of losses over how many predictions they count."""
    return sums / torch.tensor(counts, dtype=sums.dtype, device=sums.device).clamp(min=1)
