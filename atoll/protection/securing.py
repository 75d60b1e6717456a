"""From the experiment file to sums that hide each client from the server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from atoll import ckks
from atoll.ckks import Silo
from atoll.config import Loaded
from atoll.config.privacy import AdaptiveClip, Privacy
from atoll.config.tasks import TASKS
from atoll.core import Aggregator, Algorithm, Program, State
from atoll.errors import CompositionError, ConfigError, ProtocolError
from atoll.protection.encrypted import Encrypting, Holding, encryption
from atoll.protection.groups import Apart
from atoll.protection.outside import Outside
from atoll.protection.parties import Parties
from atoll.protection.secure import Party, Secure, masks
from atoll.protection.smallest import plain_terms
from atoll.protection.speaking import speaking
from atoll.protection.spread import Spread
from atoll.protection.summed import Summed
from atoll.secagg import Terms
from atoll.secagg.degree import check_spare
from atoll.servers.quantile import BELOW
from atoll.words import listed

__all__ = ["Securing", "secured", "securing_of"]

TRAIN = "train"
LOSS = 100.0
"""The largest loss that is told apart."""


@dataclass(frozen=True)
class Securing:
    """most: clients of the largest cohort.   spread: noise that clients add; None: none.

    holder: who has the key of encrypted sums; None: sums are masked.   least: answers without which
    a round does not count: no sum of fewer is decrypted, since it could not be asked for again.
    note: hears, where clients are, what of their values no range holds.
    """

    settings: Privacy
    parties: Parties
    most: int
    spread: Spread | None = None
    holder: str | None = None
    least: int = 0
    note: Callable[[str], None] = lambda text: None

    def applied(self, algorithm: Algorithm, state: State) -> tuple[Algorithm, Algorithm]:
        """The algorithm that sends nothing in the open, and the one by which sums are spoken of.

        state: a server's, which has the shapes of what is broadcast.

        Raises:
            CompositionError: when something has no range, or would be looked at by itself.
        """
        server = algorithm.server
        like = algorithm.client.template(server.broadcast(server.init(state), ""))
        undivided = algorithm.aggregator.undivided
        weighing = [stage.weighs for stage in algorithm.stages if stage.weighs]
        told, spread = self.settings, self.spread
        apart = _apart(algorithm.aggregator) if self.holder is None else None
        terms, most = plain_terms(told) if spread is None else spread.terms, self.most
        if apart is not None:
            _check_size(apart.size, terms)
            most = min(most, 2 * apart.size - 1)
        summed = Summed(
            like, self._ranges(weighing == ["examples"]), undivided, most,
            None if spread is None else spread.plan,
        )  # fmt: skip
        if self.holder is not None:
            return self._encrypted(algorithm, summed, self.holder)
        secure = Secure(summed, terms, self._lenient, apart, self.parties.run)
        party = Party(secure, self.parties.member, self._outside)
        stages = (*algorithm.stages, masks(secure, party, self.parties.verify))
        return replace(algorithm, stages=stages), speaking(party.says)

    def _encrypted(
        self, algorithm: Algorithm, summed: Summed, holder: str
    ) -> tuple[Algorithm, Algorithm]:
        told, parties = self.settings, self.parties
        floor = told.min_survivors if self._lenient else max(told.min_survivors, self.least)
        encrypting = Encrypting(summed, holder, floor, self._lenient, parties.run)
        encrypting.check()
        holding = Holding(encrypting, parties.silo or _nobody, self._outside)
        stages = (*algorithm.stages, encryption(encrypting, holding, parties.verify))
        return replace(algorithm, stages=stages), speaking(holding.says)

    @property
    def _outside(self) -> Outside:
        return Outside(self.note, self.settings.max_examples)

    @property
    def _lenient(self) -> bool:
        """Whether who is absent counts as zero."""
        return self.settings.on and self.settings.unit == "client"

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
        check_spare(size, terms)
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
    holder, least = _holder(loaded, parties, most), experiment.federation.min_clients
    return Securing(experiment.privacy, parties, most, spread, holder, least)


def _holder(loaded: Loaded, parties: Parties, most: int) -> str | None:
    """Who has the key of encrypted sums.

    Raises:
        ConfigError: when that is nobody, cohorts are too large, or TenSEAL is missing.
    """
    privacy, place = loaded.experiment.privacy, loaded.where("privacy.key_holder")
    if privacy.secure_aggregation != "ckks":
        return None
    if parties.silo is not None:
        ckks.check_installed()
    if most > ckks.MOST_CLIENTS:
        raise ConfigError(
            f"{loaded.where('privacy.secure_aggregation')}: privacy.secure_aggregation is ckks, "
            f"whose sums are of {ckks.MOST_CLIENTS} clients at most, and a round asks {most}; ask "
            "fewer, or set it to true"
        )
    if privacy.key_holder is None and parties.run:
        raise ConfigError(
            f"{place}: privacy.secure_aggregation is ckks, and privacy.key_holder is missing: name "
            "the client that has the key, and does not work with the server; it can be any of "
            f"{listed(parties.names)}"
        )
    holder = privacy.key_holder or parties.names[0]
    if holder not in parties.names:
        raise ConfigError(
            f"{place}: privacy.key_holder is {holder}, which is no client of this federation; its "
            f"clients are {listed(parties.names)}"
        )
    return holder


def _nobody(name: str) -> Silo:
    raise ProtocolError(f"{name} is not here")


def secured(program: Program, securing: Securing, state: State) -> Program:
    """The program, whose rounds of training are sealed; `state`: a server's."""
    training = program.algorithms.get(TRAIN)
    if training is None:
        return program
    sealed, speaking = securing.applied(training, state)
    return replace(
        program, algorithms={**program.algorithms, TRAIN: sealed, speaking.name: speaking}
    )
