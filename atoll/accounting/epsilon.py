"""The ε of releases together, by the accountants of dp-accounting.

Privacy loss distributions (Doroshenko et al., PETS 2022, arXiv 2207.04380) under add-or-remove-one;
Rényi divergences (Wang, Balle, Kasiviswanathan, AISTATS 2019) under replace-one, where all samples
have a fixed size.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import lru_cache, reduce
from itertools import product
from typing import Any, Literal

from atoll.accounting.events import Fixed, InTurns, Poisson, Present, Release, Sampling

__all__ = ["COARSE", "LEAST", "MOST", "Spent", "spent"]

LEAST, MOST = 1e-3, 1e6
"""Noise below the one counts as none, since it spends half a million for each release, and above
the other as that much."""
_SPAN = 25.0
"""A release whose privacy loss reaches farther has longer steps in proportion: 250,000 of them on
the usual grid. That is nothing beside so large an ε."""
COARSE = 1e-3
"""A grid on which ε is quick, and hardly larger."""
_CHOICES = 64
"""Ways in which rows may have been drawn in several runs, that are looked at one by one."""
Counts = Counter[tuple[float, Sampling]]
Adjacency = Literal["add-or-remove-one", "replace-one", "zero-out"]


@dataclass(frozen=True)
class Spent:
    """An ε, and all that it means: δ, whose presence it hides, and against which change.

    readers: where clients add noise themselves, the ε against who sees models only, beside that
    against the server.
    """

    epsilon: float
    delta: float
    adjacency: Adjacency
    accountant: Literal["PLD", "RDP", "closed form"]
    readers: float | None = None


def spent(releases: Iterable[Release], delta: float, *, grid: float = 1e-4) -> Spent:
    """What `releases` of one unit come to; without noise ε is infinite.

    Releases of fixed-size samples are counted under replace-one where all are, with an L2 distance
    of 2 between the sums of neighbours (one contribution goes, another comes). Beside others they
    count as if everyone had taken part, which is more, and holds under add-or-remove-one.
    Where cohorts are turns, or how many clients or rows there are is no secret, one contribution is
    zeros in the other of two neighbours, which is no farther apart.

    grid: steps of the privacy loss; a coarser one is faster and gives a larger ε.
    """
    kinds: Counter[Release] = Counter()
    for release, count in Counter(releases).items():
        kind, times = release.least()
        kinds[kind] += count * times
    units = {one.unit for one in kinds}
    assert len(units) <= 1, "releases of clients and of examples do not add up"
    first, *others = _choices(kinds)
    found = _one_way(first, units, delta, grid)
    for counts in others:
        # A coarse grid gives more: what is below on it needs no finer one.
        if _one_way(counts, units, delta, max(grid, COARSE)).epsilon > found.epsilon:
            found = max(found, _one_way(counts, units, delta, grid), key=lambda one: one.epsilon)
    return found


def _choices(kinds: Mapping[Release, int]) -> Iterator[Counts]:
    """What a row is drawn for, by each of the ways in which its client may have been asked."""
    ways = [_ways(one) for one in kinds]
    if math.prod(map(len, ways)) > _CHOICES:
        # More often, and by a larger rate, than any of them.
        ways = [
            [(max(r for r, _ in each), max(s for _, s in each))] if len(each) > 1 else each
            for each in ways
        ]
    for chosen in product(*ways):
        counts: Counts = Counter()
        for (release, times), (rate, steps) in zip(kinds.items(), chosen, strict=True):
            sampling = Poisson(rate=rate) if release.ways else release.sampling
            counts[min(release.noise_multiplier, MOST), sampling] += steps * times
        yield counts


def _ways(release: Release) -> list[tuple[float, int]]:
    sampling = release.sampling
    rate = sampling.rate if isinstance(sampling, Poisson) else 1.0
    return [(rate, release.steps), *((one.rate, one.steps) for one in release.ways)]


def _one_way(counts: Counts, units: Set[str], delta: float, grid: float) -> Spent:
    fixed = bool(counts) and all(isinstance(sampling, Fixed) for _, sampling in counts)
    adjacency: Adjacency = "replace-one" if fixed else "add-or-remove-one"
    if "example" in units or any(isinstance(sampling, InTurns | Present) for _, sampling in counts):
        adjacency = "zero-out"
    if any(noise < LEAST for noise, _ in counts):
        return Spent(math.inf, delta, adjacency, "RDP" if fixed else "PLD")
    if fixed:
        return Spent(_fixed_size(counts, delta), delta, adjacency, "RDP")
    epsilon, accountant = _losses(frozenset(counts.items()), delta, grid)
    return Spent(epsilon, delta, adjacency, accountant)


@lru_cache(maxsize=256)
def _losses(
    counts: frozenset[tuple[tuple[float, Sampling], int]], delta: float, grid: float
) -> tuple[float, Literal["PLD", "closed form"]]:
    sampled = {
        (noise, sampling): count
        for (noise, sampling), count in counts
        if isinstance(sampling, Poisson) and sampling.rate < 1
    }
    # Gaussians compose to one, whose loss has a closed form.
    precision = sum(n / noise**2 for (noise, how), n in counts if (noise, how) not in sampled)
    whole = precision**-0.5 if precision else None
    if not sampled:
        return (_gaussian(whole, delta) if whole else 0.0), "closed form"
    least = min([noise for noise, _ in sampled] + ([whole] if whole else []))
    grid *= max(1.0, (1 / least**2 + 18 / least) / _SPAN)
    parts = [_sampled(*key, grid).self_compose(count) for key, count in sampled.items()]
    total = _composed(parts + ([_unsampled(whole, grid)] if whole else []))
    return max(0.0, float(total.get_epsilon_for_delta(delta))), "PLD"


def _composed(parts: Sequence[Any]) -> Any:
    return reduce(lambda total, part: total.compose(part), parts)


def _gaussian(noise: float, delta: float) -> float:
    from dp_accounting.gaussian_mechanism import get_epsilon_gaussian

    return float(get_epsilon_gaussian(noise, delta))


@lru_cache(maxsize=16)
def _sampled(noise: float, sampling: Poisson, grid: float) -> Any:
    from dp_accounting.pld import privacy_loss_distribution as losses

    if sampling.cap is None or sampling.population is None or sampling.cap >= sampling.population:
        return losses.from_gaussian_mechanism(
            noise, sampling_prob=sampling.rate, value_discretization_interval=grid
        )
    return losses.from_truncated_subsampled_gaussian_mechanism(
        sampling.population, sampling.rate, sampling.cap, noise, value_discretization_interval=grid
    )


def _unsampled(noise: float, grid: float) -> Any:
    from dp_accounting.pld import privacy_loss_distribution as losses

    return losses.from_gaussian_mechanism(noise, value_discretization_interval=grid)


def _fixed_size(counts: Mapping[tuple[float, Sampling], int], delta: float) -> float:
    import dp_accounting
    from dp_accounting.rdp import RdpAccountant

    accountant: Any = RdpAccountant(
        neighboring_relation=dp_accounting.NeighboringRelation.REPLACE_ONE
    )
    for (noise, sampling), count in counts.items():
        assert isinstance(sampling, Fixed)
        event = dp_accounting.SampledWithoutReplacementDpEvent(
            sampling.population, sampling.size, dp_accounting.GaussianDpEvent(noise / 2)
        )
        accountant.compose(event, count)
    return float(accountant.get_epsilon(delta))
