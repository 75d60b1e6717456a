"""The buffers of K clients that train together: parameters as one matrix [K, P], a row a client."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from atoll import rng
from atoll.adapters.lora import pad_ranks
from atoll.adapters.site import Frame
from atoll.local.bench import Bench, broadcast_values, trained_values
from atoll.local.job import Job, LocalRule
from atoll.local.optimizer import optimizer, schedule
from atoll.models.objective import Example
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
        padded, self.ranks = pad_ranks(self.starts)
        self.like = padded[0]
        start = flatten(stack(padded)).to(bench.device)
        self.start, self.params = start, start.clone()
        self.grads = torch.empty_like(start)
        self.gradient_sum = torch.zeros_like(start) if rule.mean_gradient else None
        self.loss_sum = torch.zeros(len(jobs), dtype=torch.float64, device=bench.device)
        self.optimizer = optimizer(bench.settings)
        self.moments = self.optimizer.init(self.params)
        self.rates, self.factors = self._base_rates(), self._factors()
        self.offset = None
        if rule.offset is not None:
            offsets = stack(pad_ranks([rule.offset(job.request) for job in jobs])[0])
            self.offset = flatten({name: offsets[name] for name in self.like}).to(start)
        self.held = _held(jobs, self.like, bench.device)
        terms = [bench.objective.terms(job.examples) for job in jobs]
        self.terms = {n: v.to(bench.device) for n, v in stack(terms).items()}
        self.active = 0

    def step(self, number: int) -> None:
        """One optimiser step of every client that has one left."""
        active = sum(len(job.steps) > number for job in self.jobs)
        if active != self.active:
            self._narrow(active)
        size = self.bench.settings.per_device_train_batch_size
        redraw = self.bench.objective.redraw
        chosen = [job.rows(number, redraw) for job in self.jobs[:active]]
        counts = [sum(map(self.bench.objective.count, rows)) for rows in chosen]
        for micro in range(0, max(map(len, chosen)), size):
            rows = [examples[micro : micro + size] for examples in chosen]
            loss = self._losses(rows, counts, self._generators(number, micro)).sum()
            if micro == 0:
                loss = loss + self.bench.model.penalty(self.values)
            found = torch.autograd.grad(loss, self.leaves)
            flat = [gradient.reshape(active, -1) for gradient in found]
            if micro == 0:
                torch.cat(flat, dim=1, out=self.grads[:active])
            else:
                self.grads[:active] += torch.cat(flat, dim=1)
        self._update(number)

    def _narrow(self, active: int) -> None:
        """Leaves that share memory with the first `active` rows of the buffers."""
        self.active = active
        views = unflatten(self.params[:active], self.like)
        self.values = {name: value.detach().requires_grad_() for name, value in views.items()}
        self.leaves = list(self.values.values())

    def _generators(self, number: int, micro: int) -> tuple[torch.Generator, ...] | None:
        if not self.bench.model.drops:
            return None
        contexts = [job.request.context for job in self.jobs[: self.active]]
        return tuple(
            rng.generator(c.seed, "dropout", c.run, c.round, c.client, number, micro)
            for c in contexts
        )

    def _losses(
        self,
        rows: Sequence[Sequence[Example]],
        counts: Sequence[int],
        generators: tuple[torch.Generator, ...] | None,
    ) -> Tensor:
        bench, width = self.bench, max(map(len, rows))
        padded = [[*own, *[None] * (width - len(own))] for own in rows]
        flat = [row for own in padded for row in own]
        batch = replace(bench.objective.collate(flat).to(bench.device), clients=self.active)
        extents = tuple(
            (
                len(own) * batch.views,
                None if batch.length is None else max(map(len, own), default=0),
            )
            for own in rows
        )
        ranks = {name: own[: self.active] for name, own in self.ranks.items()}
        frame = Frame(self.active, extents, generators, ranks)
        held = {name: value[: self.active] for name, value in self.held.items()}
        outputs = bench.outputs({**self.values, **held}, flat, batch, frame)
        terms = {
            name: value[: self.active].repeat_interleave(width, 0)
            for name, value in self.terms.items()
        }
        losses = bench.objective.losses(outputs, batch, terms).view(self.active, width).sum(1)
        count = torch.tensor(counts, dtype=losses.dtype, device=bench.device).clamp(min=1)
        losses = losses / count
        self.loss_sum[: self.active] += losses.detach()
        return losses

    def _update(self, number: int) -> None:
        active, settings = self.active, self.bench.settings
        params, grads = self.params[:active], self.grads[:active]
        if self.rule.proximal:
            grads.add_(params - self.start[:active], alpha=self.rule.proximal)
        if settings.max_grad_norm is not None:
            norms = torch.linalg.vector_norm(grads, dim=1, keepdim=True)
            grads.mul_((settings.max_grad_norm / (norms + 1e-6)).clamp(max=1))
        if self.gradient_sum is not None:
            self.gradient_sum[:active] += grads
        if self.offset is not None:
            grads.add_(self.offset[:active])
        moments = tuple(moment[:active] for moment in self.moments)
        self.optimizer.step(params, grads, moments, number + 1, self._rate(number)[:active])

    def _base_rates(self) -> Tensor:
        """[1, P] where the head has a rate of its own, else [1, 1]."""
        settings, head = self.bench.settings, self.bench.head
        own = settings.head_learning_rate
        if own is None or head is None:
            return torch.tensor([[settings.learning_rate]], dtype=torch.float64).to(self.start)
        rates = [own if name.startswith(f"{head}.") else settings.learning_rate
                 for name in self.like]  # fmt: skip
        sizes = torch.tensor([value.numel() for value in self.like.values()])
        columns = torch.tensor(rates, dtype=torch.float64).repeat_interleave(sizes)
        return columns.unsqueeze(0).to(self.start)

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


def _held(jobs: Sequence[Job], like: Tree, device: torch.device) -> Tree:
    """Values that are broadcast but not trained: [1, …] where all clients got the same ones."""
    held = [
        {name: value for name, value in broadcast_values(job.request.payload).items()
         if name not in like}
        for job in jobs
    ]  # fmt: skip
    first = held[0]
    same = all(
        tree[name] is first[name] or torch.equal(tree[name], first[name])
        for tree in held[1:]
        for name in first
    )
    return {name: value.to(device) for name, value in stack(held[:1] if same else held).items()}
