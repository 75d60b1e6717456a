"""Who takes part in the secure sums of a federation between machines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from atoll import ckks
from atoll.certs import client_files
from atoll.certs.identity import Claimed, claimed, identity_in, verifier_of
from atoll.ckks import Silo
from atoll.config import Experiment, Loaded
from atoll.core import Context
from atoll.errors import ConfigError, PolicyError
from atoll.experiment.setup import Setup
from atoll.experiment.terms import Offer, Private
from atoll.policy import Policy, check_cohort
from atoll.protection import Parties, Protection, RowProtection, Spread
from atoll.runtimes.gathering import Closing
from atoll.secagg import Folder, Identity, Member

__all__ = [
    "Keys",
    "check_sums",
    "closing_of",
    "leave_others",
    "own_claim",
    "parties_of",
    "private_of",
    "roster_of",
    "site_parties",
]

SECAGG = "secagg"
NEEDS = (
    "secure_aggregation needs signatures that the server cannot make: start server and clients "
    "with --certs"
)


class Keys(NamedTuple):
    """Whose, its folder of state, and the folder with its certificate; None in trials without."""

    name: str
    state: Path
    certs: Path | None


def check_sums(setup: Setup, context: Context, policy: Policy) -> None:
    """Refuse a question of secure sums that would hide this site among too few.

    context: the moment at this site.

    Raises:
        PolicyError: names both numbers.
    """
    for algorithm in setup.program.algorithms.values():
        if algorithm.sealing is not None:
            check_cohort(policy, algorithm.sealing.among(context))


def own_claim(keys: Keys) -> Claimed:
    """What a site tells of the key by which it signs.

    Raises:
        PolicyError: in a trial without certificates.
    """
    if keys.certs is None:
        raise PolicyError("privacy", NEEDS)
    return claimed(_identity(keys), client_files(keys.certs))


def site_parties(keys: Keys, roster: Mapping[str, Claimed], run: str) -> Parties:
    """One site, beside the others of a roster that the server has passed on.

    Raises:
        CertificateError: when one of them is not what its certificate says.
        PolicyError: when the site itself is not on it.
    """
    # A signature of the same words is another one each time.
    if keys.certs is None or keys.name not in roster:
        raise PolicyError("privacy", f"the server's roster does not hold this site; {NEEDS}")
    identity = _identity(keys)
    if roster[keys.name].public != identity.public.hex():
        raise PolicyError("privacy", "the server's roster holds another identity for this site")
    verify = verifier_of(roster, client_files(keys.certs).ca)
    member = Member(keys.name, identity.sign, verify, Folder(keys.state / SECAGG))
    silo = Silo(keys.name, identity.sign, verify, ckks.Folder(keys.state / SECAGG))
    return Parties(
        verify, {keys.name: member}.__getitem__, len(roster), run, sorted(roster),
        {keys.name: silo}.__getitem__,
    )  # fmt: skip


def leave_others(state: Path, run: str) -> None:
    """Erase a site's keys for sums of other federations than this one: its part in them is over."""
    Folder(state / SECAGG).leave(run)
    ckks.Folder(state / SECAGG).leave(run)


def _identity(keys: Keys) -> Identity:
    return identity_in(keys.state / SECAGG / "identity.key")


def roster_of(offers: Mapping[str, Offer]) -> dict[str, Claimed] | None:
    """Who signs, as their offers say; None where nobody does."""
    found = {name: offer.identity for name, offer in offers.items() if offer.identity is not None}
    return found or None


def parties_of(
    loaded: Loaded, offers: Mapping[str, Offer], ca: Path | None, run: str
) -> Parties | None:
    """Those of a server; None where its sums are open. See `_server_parties`."""
    if not loaded.experiment.privacy.secure_aggregation:
        return None
    return _server_parties(roster_of(offers) or {}, ca, run)


def private_of(protection: Protection | Spread | RowProtection | None) -> Private | None:
    """What sites are told of the noise."""
    if protection is None:
        return None
    protection.check()
    if isinstance(protection, RowProtection):
        noise = protection.noise_multiplier
        return Private(population=len(protection.counts), noise_multiplier=noise)
    return Private(
        population=protection.drawing.population, noise_multiplier=protection.noise_multiplier
    )


def closing_of(experiment: Experiment, protection: Protection | Spread | None) -> Closing:
    """When a question is over.

    Under noise who is absent counts as zero, and nobody is waited for beyond the grace; a secure
    sum needs as many as open it, and clients know with whom they mask.
    """
    federation, privacy = experiment.federation, experiment.privacy
    if privacy.secure_aggregation:
        least = protection.terms.floor if isinstance(protection, Spread) else privacy.min_survivors
        return Closing(max(federation.min_clients, least), federation.grace, ends=True)
    if privacy.on and privacy.unit == "client":
        return Closing(0, federation.grace, secret=True)
    return Closing(federation.min_clients, federation.grace, federation.late == "fold")


def _server_parties(roster: Mapping[str, Claimed], ca: Path | None, run: str) -> Parties:
    """A server, which signs nothing.

    Raises:
        ConfigError: in a trial without certificates.
        CertificateError: as `site_parties`.
    """
    if ca is None:
        raise ConfigError(f"privacy.{NEEDS}")
    nobody: dict[str, Member] = {}
    return Parties(verifier_of(roster, ca), nobody.__getitem__, len(roster), run, sorted(roster))
