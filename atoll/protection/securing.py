"""From the experiment file to sums that hide each client from the server."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from atoll.config import Loaded
from atoll.config.privacy import AdaptiveClip, Privacy
from atoll.config.tasks import TASKS
from atoll.core import Aggregator, Algorithm, Program, State
from atoll.errors import CompositionError, ConfigError
from atoll.protection.groups import Apart
from atoll.protection.secure import Party, Secure, masks
from atoll.protection.speaking import speaking
from atoll.protection.spread import Spread
from atoll.protection.summed import Summed
from atoll.secagg import Held, Identity, Member, Terms, roster_verifier
from atoll.secagg.degree import degree
from atoll.secagg.keys import Verifier
from atoll.servers.quantile import BELOW

__all__ = ["Parties", "Securing", "secured", "securing_of", "simulated"]

TRAIN = "train"
LOSS = 100.0
"""The largest loss that is told apart."""


@dataclass(frozen=True)
class Parties:
    """Whose signatures count, and the clients of this process.

    verify: against a roster that the server does not run.   member: by name.
    population: clients that there are in all.   run: a name of the federation that no other has.
    """

    verify: Verifier
    member: Callable[[str], Member]
    population: int
    run: str = ""


@dataclass(frozen=True)
class Securing:
    """most: clients of the largest cohort.   spread: noise that clients add; None: none."""

    settings: Privacy
    parties: Parties
    most: int
    spread: Spread | None = None

    def applied(self, algorithm: Algorithm, state: State) -> tuple[Algorithm, Algorithm]:
        """The algorithm with masks over all that it sends, and the one that the masks need.

        state: a server's, which has the shapes of what is broadcast.

        Raises:
            CompositionError: when something has no range, or would be looked at by itself.
        """
        server = algorithm.server
        like = algorithm.client.template(server.broadcast(server.init(state), ""))
        undivided = algorithm.aggregator.undivided
        weighing = [stage.weighs for stage in algorithm.stages if stage.weighs]
        told, spread, apart = self.settings, self.spread, _apart(algorithm.aggregator)
        terms = Terms(told.corrupt, told.dropping, told.min_survivors)
        terms, most = terms if spread is None else spread.terms, self.most
        if apart is not None:
            _check_size(apart.size, terms)
            most = min(most, 2 * apart.size - 1)
        summed = Summed(
            like, self._ranges(weighing == ["examples"]), undivided, most,
            None if spread is None else spread.plan,
        )  # fmt: skip
        secure = Secure(summed, terms, told.on, apart, self.parties.run)
        party = Party(secure, self.parties.member)
        stages = (*algorithm.stages, masks(secure, party, self.parties.verify))
        return replace(algorithm, stages=stages), speaking(party.says)

    def _ranges(self, by_examples: bool) -> dict[str, float]:
        clip, rows = self.settings.clip, float(self.settings.max_examples)
        bound = clip.largest if isinstance(clip, AdaptiveClip) else clip
        weight = rows if by_examples else 1.0
        return {"update": bound, "weight": weight, "examples": rows, "metrics": LOSS, BELOW: 1.0}


def _apart(aggregator: Aggregator) -> Apart | None:
    """The groups that a rule compares; None where one sum is all that is asked for."""
    return None if aggregator.rule is None else Apart(aggregator.group, aggregator.rule)


def _check_size(size: int, terms: Terms) -> None:
    """Refuse groups that could not be summed, or would hide too little.

    Raises:
        CompositionError: with what is missing.
    """
    try:
        degree(size, terms)
    except ConfigError as error:
        raise CompositionError(
            f"aggregator 'grouped' has groups of {size} clients, each a secure sum: {error}"
        ) from None


def securing_of(
    loaded: Loaded, parties: Parties, most: int, spread: Spread | None
) -> Securing | None:
    """What the file asks for; None where the server may see each update.

    Raises:
        ConfigError: with what else in the file would show it what clients send.
    """
    experiment = loaded.experiment
    if not experiment.privacy.secure_aggregation:
        return None
    solved = TASKS[experiment.model.task].solved and experiment.adapter.head != "train"
    if solved:
        raise ConfigError(
            f"{loaded.where('adapter.head')}: the head would be solved from statistics, which have "
            "no range that a secure sum could add up; set adapter.head to train"
        )
    return Securing(experiment.privacy, parties, most, spread)


def secured(program: Program, securing: Securing | None, state: State) -> Program:
    """The program, whose rounds of training are sealed; `state`: a server's."""
    training = program.algorithms.get(TRAIN)
    if securing is None or training is None:
        return program
    sealed, speaking = securing.applied(training, state)
    return replace(
        program, algorithms={**program.algorithms, TRAIN: sealed, speaking.name: speaking}
    )


def simulated(clients: Sequence[str]) -> Parties:
    """Clients of a simulation, all in one place: their identities hide nothing, their masks do."""
    identities = {
        name: Identity(hashlib.sha256(b"atoll simulated identity\0" + name.encode()).digest())
        for name in clients
    }
    # Everyone checks everyone's signatures; in one process each is checked once.
    verify = lru_cache(maxsize=2**16)(
        roster_verifier({name: one.public for name, one in identities.items()})
    )
    members = {name: Member(name, one.sign, verify, Held()) for name, one in identities.items()}
    return Parties(verify, members.__getitem__, len(members))
