"""What is audited: a run, its promise, and the rows that are tried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean, median

import numpy as np

from atoll import rng
from atoll.audit.books import Kept, kept_of
from atoll.audit.budget import Budget, budget_of
from atoll.audit.claim import DELTA, EPSILON, claim_of, compared_with
from atoll.audit.findings import Books, Claim
from atoll.audit.membership import drawn
from atoll.audit.trial import Trial, protected, trial_of
from atoll.config import Loaded, load
from atoll.config.privacy import Privacy
from atoll.errors import DataError
from atoll.experiment.setup import Setup
from atoll.models.objective import Example
from atoll.protection import Protection, Spread, protection_of
from atoll.runs.origin import Origin
from atoll.trained.load_run import TrainedRun
from atoll.tree import l2_norm

__all__ = ["Subject", "Uncovered", "subject_of"]


Rows = Mapping[str, Sequence[Example]]


class Uncovered(Exception):
    """Why a part of the audit says nothing of this run."""


@dataclass(frozen=True)
class Subject:
    """A run, opened with its rows.

    loaded: its experiment file as it is.   rows: of a few clients, drawn at random.
    others: rows that nobody trained on.   claim: None where the run promises nothing; kept: what
    its ledger says of it.
    """

    run: TrainedRun
    loaded: Loaded
    claim: Claim | None
    rows: Mapping[str, Sequence[Example]]
    others: Sequence[Example]
    budget: Budget
    kept: Kept

    @property
    def setup(self) -> Setup:
        """The run's parts."""
        return self.run.setup

    def draw(self, *address: str) -> np.random.Generator:
        """Randomness of the audit itself; noise never comes from it."""
        return rng.numpy_generator(self.loaded.experiment.seed, "audit", *address)

    def trial(self, rows: Rows, *, rounds: int = 1) -> Trial:
        """The run's algorithm over rows, from the trained model, hiding nothing.

        Raises:
            Uncovered: where the run trains nothing at its clients.
        """
        return self._trial(rows, rounds, hidden=False)

    def leaving(self, rows: Rows, *, rounds: int = 1) -> Trial:
        """The same, hiding what the run hides before it leaves clients."""
        found = self._trial(rows, rounds, hidden=True)
        return self.private(found, rounds=rounds) if self._mechanism == "local" else found

    def _trial(self, rows: Rows, rounds: int, *, hidden: bool) -> Trial:
        values = self.run.values
        found = trial_of(self.setup, self.loaded, values, rows, rounds=rounds, hidden=hidden)
        if found is None:
            raise Uncovered("no model is trained at the clients: the head is solved from sums")
        return found

    @property
    def hides_clients(self) -> bool:
        """Whether the run itself adds noise that hides clients."""
        return self._hides("client")

    @property
    def hides_before(self) -> bool:
        """Whether what leaves a client is private already."""
        return self._hides("example") or self._mechanism == "local"

    def _hides(self, unit: str) -> bool:
        claim = self.claim
        return claim is not None and claim.unit == unit and claim.epsilon is not None

    @property
    def _mechanism(self) -> str:
        return self.claim.mechanism if self.claim is not None and self.hides_clients else ""

    def private(self, trial: Trial, *, rounds: int) -> Trial:
        """A trial of open updates under the noise that hides clients: the run's own, or what would
        give the ε to compare with."""
        return protected(trial, self.noise(trial), rounds=rounds)

    def noise(self, trial: Trial) -> Privacy:
        """The noise that hides clients. Where it is not the run's, updates are cut to the median of
        what they are.
        """
        section = self.loaded.experiment.privacy
        if self.hides_clients:
            protection = self.protection
            # Of noise that rounds have in common, or sums: that of a round by itself.
            own = "local" if self._mechanism == "local" else "gaussian"
            noise, together = protection.noise_multiplier, protection.correlated
            if together is not None:
                noise *= together.strategy.sensitivity
            # An adaptive bound counts as the run does, whose cohorts are larger than the audit's.
            told = {"noise_multiplier": noise, "epsilon": None, "mechanism": own,
                    "sampling": "poisson", "clip": protection.clip}  # fmt: skip
            return section.model_copy(update={**told, "secure_aggregation": False})
        norms = [l2_norm(payload["update"].tree) for payload in trial.payloads().values()]
        return Privacy(epsilon=EPSILON, delta=DELTA, clip=max(median(norms), 1e-6))

    @cached_property
    def protection(self) -> Protection | Spread:
        """The run's own, of its clients."""
        found = protection_of(self.loaded, len(self.setup.data.clients))
        assert found is not None, "the run adds noise"
        if not self.run.changed or self.claim is None:
            return found
        # It was solved for those who were there.
        told = {"noise_multiplier": self.claim.noise_multiplier}
        return replace(found, settings=found.settings.model_copy(update=told))

    @property
    def promised(self) -> Claim:
        """The run's claim, or the one to compare with."""
        return self.claim or compared_with(self.loaded, len(self.setup.data.clients))


def subject_of(run: TrainedRun) -> Subject:
    """Choose clients and rows.

    Raises:
        DataError: when no client has a row to train on.
    """
    setup, loaded = run.setup, load(run.path / "experiment.yaml")
    bench, draw = setup.bench, rng.numpy_generator(setup.experiment.seed, "audit", "rows")
    clients = [c for c in setup.data.clients if bench.examples(c, "train")]
    if not clients:
        raise DataError(f"no client of {run.path} has a row here; give --data with where they are")
    sample = [row for client in clients[:8] for row in bench.examples(client, "train")[:16]]
    budget = budget_of(setup, tokens=fmean(len(row) or 1 for row in sample))
    chosen = sorted(draw.permutation(len(clients))[: budget.clients].tolist())
    rows = {
        clients[place]: drawn(bench.examples(clients[place], "train"), budget.rows, draw)
        for place in chosen
    }
    held = setup.all_held_out() or list(setup.common_test() or ())
    before, kept = Origin.of(run.record), Kept(Books())
    claim = claim_of(run.summary, earlier=before.steps, where=run.path / "summary.json")
    if claim is not None:
        privacy = loaded.experiment.privacy
        kept = kept_of(run.path, run.record["id"], before.runs, privacy, claim)
        run = _as_promised(run, claim)
    return Subject(run, loaded, claim, rows, drawn(held, len(held), draw), budget, kept)


def _as_promised(run: TrainedRun, claim: Claim) -> TrainedRun:
    """The run, hiding rows under the noise that was solved for those who were there."""
    bench = run.setup.bench
    if not run.changed or bench.private is None:
        return run
    private = replace(bench.private, noise_multiplier=claim.noise_multiplier)
    return replace(run, setup=replace(run.setup, bench=replace(bench, private=private)))
