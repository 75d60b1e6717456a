"""What the section about privacy would promise too much of, and what beside it would."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from atoll.config.checks import Problem
from atoll.config.encrypted_checks import check_encrypted
from atoll.config.open_checks import check_own_stages
from atoll.config.privacy import LEAST_NOISE, MOST_NOISE, AdaptiveClip, Privacy
from atoll.config.unread_checks import check_unread

if TYPE_CHECKING:
    from atoll.config.federation import Evaluate, Federation

__all__ = ["check_chosen", "check_privacy"]


def check_privacy(privacy: Privacy, *, federation: Federation | None) -> Iterator[Problem]:
    """Values of the section, and of rounds beside which it would promise what does not hold."""
    if federation is not None and privacy.hides:
        yield from _check_late(federation)
    yield from check_encrypted(privacy)
    yield from check_unread(privacy, federation=federation)
    if not privacy.on:
        return
    if (privacy.lifetime_epsilon or math.inf) < (privacy.epsilon or 0):
        yield Problem(
            "privacy.lifetime_epsilon",
            f"privacy.lifetime_epsilon is {privacy.lifetime_epsilon:g}, less than the "
            f"privacy.epsilon of {privacy.epsilon:g} that this run alone may spend; raise it, or "
            "lower privacy.epsilon",
        )
    if privacy.noise_multiplier and privacy.noise_multiplier < LEAST_NOISE:
        yield Problem(
            "privacy.noise_multiplier",
            f"privacy.noise_multiplier is {privacy.noise_multiplier:g}, and so little noise is "
            f"lost where updates are rounded; give a number from {LEAST_NOISE:g} to "
            f"{MOST_NOISE:g}, or 0 for no noise",
        )
    if privacy.unit == "example":
        yield from _check_rows(privacy)
        return
    yield from _check_mechanism(privacy)
    if federation is not None:
        yield from _check_rounds(privacy, federation)
        yield from check_own_stages(privacy, federation)


def _check_rows(privacy: Privacy) -> Iterator[Problem]:
    """Values about cohorts and sums, where clients hide their own rows."""
    fields = Privacy.model_fields
    for key in ("mechanism", "noise", "sampling", "cap"):
        if vars(privacy)[key] != fields[key].default:
            yield Problem(
                f"privacy.{key}",
                f"privacy.{key} is set, but privacy.unit is example: each client hides its rows in "
                f"its own training, whoever is asked; remove privacy.{key}",
            )
    if isinstance(privacy.clip, AdaptiveClip):
        yield Problem(
            "privacy.clip",
            "privacy.clip is adaptive, but privacy.unit is example, whose gradients are cut to a "
            "number; give one",
        )


def _check_mechanism(privacy: Privacy) -> Iterator[Problem]:
    how = privacy.sampling
    if privacy.mechanism != "blt" and how == "turns":
        yield Problem(
            "privacy.sampling",
            "privacy.sampling is turns, which hides nobody by chance and helps blt alone; use "
            "poisson, or mechanism: blt",
        )
    yield from _check_own(privacy)
    if privacy.mechanism != "blt":
        return
    if how not in ("turns", "everyone"):
        yield Problem(
            "privacy.sampling",
            f"privacy.mechanism is blt, and privacy.sampling is {how}: noise that rounds have in "
            "common hides a client by how far apart its rounds are, which chance does not keep; "
            "set sampling to turns",
        )
    if isinstance(privacy.clip, AdaptiveClip):
        yield Problem(
            "privacy.clip",
            "privacy.clip is adaptive, but privacy.mechanism is blt, whose rounds share noise of "
            "one size; give a number",
        )


def _check_own(privacy: Privacy) -> Iterator[Problem]:
    """Noise that clients add."""
    mechanism, secure = privacy.mechanism, bool(privacy.secure_aggregation)
    if privacy.noise != Privacy.model_fields["noise"].default and mechanism != "distributed":
        yield Problem(
            "privacy.noise",
            f"privacy.noise is {privacy.noise}, and privacy.mechanism is {mechanism}; it is the "
            "kind of distributed noise: remove it, or set mechanism to distributed",
        )
    if mechanism not in ("distributed", "local"):
        return
    if secure != (mechanism == "distributed"):
        yield Problem(
            "privacy.mechanism",
            "privacy.mechanism is distributed, whose shares of noise hide nobody where single "
            "updates are seen; set privacy.secure_aggregation to true, or mechanism to local"
            if not secure
            else "privacy.mechanism is local, which hides each update by itself, and under "
            "secure_aggregation only sums are seen; set mechanism to distributed, which needs less "
            "noise",
        )
    if isinstance(privacy.clip, AdaptiveClip):
        yield Problem(
            "privacy.clip",
            f"privacy.clip is adaptive, but with mechanism {mechanism} clients add the noise, "
            "whose size they fix before they train; give a number",
        )
    if privacy.noise_multiplier == 0:
        yield Problem(
            "privacy.noise_multiplier",
            f"privacy.noise_multiplier is 0, but mechanism {mechanism} is noise that clients add; "
            "give a number above 0, or epsilon",
        )


def _check_late(federation: Federation) -> Iterator[Problem]:
    if federation.late != "drop":
        yield Problem(
            "federation.late",
            "federation.late is fold, but under privacy an answer counts in the round whose noise "
            "hides it, or never; set it to drop",
        )


def _check_rounds(privacy: Privacy, federation: Federation) -> Iterator[Problem]:
    if federation.min_clients > 1:
        yield Problem(
            "federation.min_clients",
            f"federation.min_clients is {federation.min_clients}, but under privacy who is absent "
            "counts as zero, and a round that waits for answers tells who gave them; remove it",
        )
    sampled = federation.clients_per_round is not None or federation.fraction_train is not None
    if sampled and privacy.sampling == "everyone":
        yield Problem(
            "privacy.sampling",
            "privacy.sampling is everyone, but federation asks a part of the clients "
            "(clients_per_round, fraction_train); remove that, or set sampling to poisson",
        )
    if federation.aggregator is not None:
        yield Problem(
            "federation.aggregator",
            f"federation.aggregator is {federation.aggregator.name}, but under privacy replies are "
            "summed on a grid to which noise is added; remove it",
        )


def check_chosen(evaluate: Evaluate, *, privacy: Privacy | None) -> Iterator[Problem]:
    """Ways to choose a model that look at what clients do not tell."""
    if privacy is None or not privacy.hides:
        return
    chosen = {"patience": evaluate.patience is not None, "load_best": evaluate.load_best}
    for key in (key for key, on in chosen.items() if on):
        yield Problem(
            f"evaluate.{key}",
            f"evaluate.{key} chooses a model by clients' held-out rows, whose scores stay with "
            f"them under privacy; remove evaluate.{key}",
        )
