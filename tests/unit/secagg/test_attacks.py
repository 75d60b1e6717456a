"""Ten attacks by a server that does not keep to the protocol, each refused in a sentence."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from atoll.errors import ProtocolError
from atoll.secagg import Identity, Kind, Moment
from atoll.secagg.client import advertise, confirm, mask, open_sum, share
from atoll.secagg.keys import private_key
from atoll.secagg.messages import Advert, Survivors, read_each, write_each
from atoll.secagg.state import ClientState
from tests.support.sums import ROOT, cohort, configured, inbox_of, vector

CONFIGURATION = configured(6)
PEOPLE = cohort(CONFIGURATION)
WORDS = {place: vector(CONFIGURATION, place) for place in range(6)}


def _closed(alive: tuple[int, ...] = (0, 1, 2, 3, 4)) -> tuple[dict[int, ClientState], Survivors]:
    return PEOPLE.closed(WORDS, alive)


def _confirmed() -> tuple[dict[int, ClientState], dict[int, bytes], Survivors]:
    states, survivors = _closed()
    return *PEOPLE.signed(states, survivors), survivors


# 1. A client among the survivors and among the dropped.
def test_a_client_cannot_be_summed_and_dropped() -> None:
    states, survivors = _closed()
    for alive, dropped in (
        (survivors.alive, (*survivors.dropped, 0)),
        ((0, 1, 2, 3, 4, 5), survivors.dropped),
    ):
        with pytest.raises(ProtocolError, match="both summed and dropped"):
            confirm(states[1], Survivors(alive, dropped), PEOPLE.identities[1].sign)


# 2. One client named three times does not make three.
def test_a_client_named_often_counts_once() -> None:
    states, _ = _closed()
    for alive in ((1, 1, 1, 1, 1), (0, 1, 2, 2, 2)):
        wrong = Survivors(alive, (5,))
        with pytest.raises(ProtocolError, match="names a client twice"):
            confirm(states[1], wrong, PEOPLE.identities[1].sign)
        with pytest.raises(ProtocolError, match="names client"):
            Survivors.from_bytes(wrong.to_bytes(CONFIGURATION), CONFIGURATION)


def test_signatures_count_by_who_made_them() -> None:
    states, signatures, _ = _confirmed()
    with pytest.raises(ProtocolError, match="2 clients confirm who is summed, and 4 must"):
        open_sum(states[1], {0: signatures[0]}, PEOPLE.verify)
    raw = write_each(Kind.SIGNATURES, CONFIGURATION, {0: signatures[0]})
    with pytest.raises(ProtocolError, match="names client 0 twice"):
        read_each(Kind.SIGNATURES, CONFIGURATION, raw + raw[40:] * 3)


# 3. Somebody who is not of the exchange.
def test_strangers_are_not_summed_do_not_share_and_do_not_sign() -> None:
    states, adverts = PEOPLE.advertised()
    del adverts[5]
    states, sealed = PEOPLE.shared(states, adverts)
    with pytest.raises(ProtocolError, match="shares from client 5, who is no neighbour"):
        mask(states[0], {**inbox_of(0, sealed), 5: bytes(82)}, ROOT, WORDS[0].copy())
    states, _ = PEOPLE.masked(states, sealed, WORDS)
    for wrong in (Survivors((0, 1, 2, 3, 4, 5), ()), Survivors((0, 1, 2, 3, 4), (5,))):
        with pytest.raises(ProtocolError, match="client 5 sent no advert"):
            confirm(states[0], wrong, PEOPLE.identities[0].sign)
    states, signatures = PEOPLE.signed(states, Survivors((0, 1, 2, 3, 4), ()))
    with pytest.raises(ProtocolError, match="client-005 has not signed"):
        open_sum(states[0], {**signatures, 5: signatures[1]}, PEOPLE.verify)
    with pytest.raises(ProtocolError, match="mallory is not of this cohort"):
        advertise(CONFIGURATION, "mallory", Identity.new().sign)


def test_a_client_that_shared_cannot_be_left_out_of_both_lists() -> None:
    states, _ = _closed()
    for wrong in (Survivors((0, 1, 2, 3, 4), ()), Survivors((0, 1, 2, 3), (5,))):
        with pytest.raises(ProtocolError, match="not the neighbours whose shares"):
            confirm(states[0], wrong, PEOPLE.identities[0].sign)
    with pytest.raises(ProtocolError, match="is not among the survivors"):
        confirm(states[0], Survivors((1, 2, 3, 4), (0, 5)), PEOPLE.identities[0].sign)


# 4. A second unmasking.
def test_an_exchange_is_opened_once() -> None:
    states, signatures, survivors = _confirmed()
    after, _ = open_sum(states[0], signatures, PEOPLE.verify)
    for again in (
        lambda: open_sum(after, signatures, PEOPLE.verify),
        lambda: confirm(after, survivors, PEOPLE.identities[0].sign),
        lambda: mask(after, {}, ROOT, WORDS[0].copy()),
        lambda: share(after, {}, PEOPLE.verify),
    ):
        with pytest.raises(ProtocolError, match="has opened last: each step is taken once"):
            again()
    assert (after.secret, after.received, after.adverts) == (bytes(32), {}, {})


def test_survivors_are_confirmed_once() -> None:
    states, survivors = _closed()
    after, signature = confirm(states[0], survivors, PEOPLE.identities[0].sign)
    assert confirm(after, survivors, PEOPLE.identities[0].sign) == (after, signature)
    with pytest.raises(ProtocolError, match="has signed last"):
        confirm(after, Survivors((0, 1, 2, 3), (4, 5)), PEOPLE.identities[0].sign)


def test_a_vector_is_masked_once_and_shares_are_for_one_set_of_adverts() -> None:
    states, adverts = PEOPLE.advertised()
    shared, sealed = PEOPLE.shared(states, adverts)
    assert share(shared[0], adverts, PEOPLE.verify) == (shared[0], sealed[0])
    fewer = {place: adverts[place] for place in (0, 1, 2, 3)}
    with pytest.raises(ProtocolError, match="asked to share in exchange 7, where it has shared"):
        share(shared[0], fewer, PEOPLE.verify)
    masked, _ = mask(shared[0], inbox_of(0, sealed), ROOT, WORDS[0].copy())
    for words in (WORDS[0], WORDS[1]):
        with pytest.raises(ProtocolError, match="asked to mask in exchange 7"):
            mask(masked, inbox_of(0, sealed), ROOT, words.copy())


# 5. An advert of another exchange.
def test_an_advert_of_another_exchange_is_refused() -> None:
    states, adverts = PEOPLE.advertised()
    _, old = PEOPLE.at(configured(6, exchange=6)).advertised()
    for place in (0, 3):
        with pytest.raises(ProtocolError, match=f"client-00{place} is not signed by"):
            share(states[1], {**adverts, place: old[place]}, PEOPLE.verify)


# 6. Keys that the server made.
def test_keys_that_were_changed_on_the_way_are_refused() -> None:
    states, adverts = PEOPLE.advertised()
    mine = private_key(b"k" * 32)[1]
    mallory = Identity.new()
    for forged in (
        replace(adverts[3], sealing=mine),
        replace(adverts[3], masking=mine),
        replace(adverts[3], commitment=mine),
        replace(adverts[2]),
        replace(
            adverts[3], signature=mallory.sign(adverts[3].statement(CONFIGURATION, "client-003"))
        ),
    ):
        with pytest.raises(ProtocolError, match="client-003 is not signed by client-003"):
            share(states[0], {**adverts, 3: forged}, PEOPLE.verify)
    _, swapped = advertise(CONFIGURATION, "client-000", PEOPLE.identities[0].sign)
    with pytest.raises(ProtocolError, match="do not hold the one that client-000 sent"):
        share(states[0], {**adverts, 0: swapped}, PEOPLE.verify)
    del adverts[0]
    with pytest.raises(ProtocolError, match="do not hold the one that client-000 sent"):
        share(states[0], adverts, PEOPLE.verify)


def _signed(advert: Advert) -> Advert:
    """By client 3, who made it up."""
    statement = advert.statement(CONFIGURATION, "client-003")
    return replace(advert, signature=PEOPLE.identities[3].sign(statement))


def test_keys_with_which_anyone_computes_the_same_are_refused() -> None:
    states, adverts = PEOPLE.advertised()
    weak = replace(adverts[3], sealing=bytes(32))
    signed = _signed(weak)
    with pytest.raises(ProtocolError, match="is no public key of X25519"):
        share(states[0], {**adverts, 3: signed}, PEOPLE.verify)
    copied = replace(adverts[3], masking=adverts[2].masking)
    signed = _signed(copied)
    with pytest.raises(ProtocolError, match="two adverts have a key in common"):
        share(states[0], {**adverts, 3: signed}, PEOPLE.verify)


# 7. A threshold, a degree or anything else that was not agreed.
@pytest.mark.parametrize("change", [
    {"threshold": 5}, {"neighbours": 4, "threshold": 3}, {"floor": 3},
    {"moment": Moment("run", 3, 8)}, {"moment": Moment("run", 3, 7, 1)},
    {"channels": configured(6, sizes=(4,)).channels}, {"threshold": 5, "signers": 5},
])  # fmt: skip
def test_what_was_not_agreed_is_refused_at_the_first_message(change: dict) -> None:
    other = replace(CONFIGURATION, **change)
    assert other.digest != CONFIGURATION.digest
    states, adverts = PEOPLE.advertised()
    raw = {place: advert.to_bytes() for place, advert in PEOPLE.at(other).advertised()[1].items()}
    with pytest.raises(ProtocolError, match="bound to the configuration"):
        read_each(Kind.ADVERTS, CONFIGURATION, write_each(Kind.ADVERTS, other, raw))
    # A server that writes the right hash over the others' adverts cannot sign them.
    _, foreign = PEOPLE.at(other).advertised()
    with pytest.raises(ProtocolError, match="client-001 is not signed by client-001 for this"):
        share(states[0], {**foreign, 0: adverts[0]}, PEOPLE.verify)


def test_one_neighbour_and_a_threshold_of_one_are_nobodys_choice() -> None:
    with pytest.raises(ProtocolError, match="a threshold of 1 among 6"):
        replace(CONFIGURATION, threshold=1)
    states, adverts = PEOPLE.advertised()
    with pytest.raises(ProtocolError, match="2 adverts, and 4 clients must be there"):
        share(states[0], {0: adverts[0], 1: adverts[1]}, PEOPLE.verify)
    states, sealed = PEOPLE.shared(states, adverts)
    alone = {1: sealed[1][0]}
    with pytest.raises(ProtocolError, match="1 neighbours of client-000 shared their secrets"):
        mask(states[0], alone, ROOT, WORDS[0].copy())


# 8. Another model for one client.
def test_clients_with_different_models_open_nothing() -> None:
    states, sealed = PEOPLE.shared(*PEOPLE.advertised())
    survivors = Survivors(tuple(range(6)), ())
    signed, signatures = {}, {}
    for place, state in states.items():
        root = bytes(32) if place == 2 else ROOT
        masked, _ = mask(state, inbox_of(place, sealed), root, WORDS[place].copy())
        signed[place], signatures[place] = confirm(masked, survivors, PEOPLE.identities[place].sign)
    with pytest.raises(ProtocolError, match="client-002 has not signed what client-000 has"):
        open_sum(signed[0], signatures, PEOPLE.verify)
    with pytest.raises(ProtocolError, match="client-000 has not signed what client-002 has"):
        open_sum(signed[2], signatures, PEOPLE.verify)


def test_the_one_with_another_model_stays_masked_where_its_signature_is_left_out() -> None:
    """The others are a majority and open: what comes out is no sum, and not the victim's vector."""
    server, states, inboxes = PEOPLE.routed()
    masked = {}
    for place, inbox in inboxes.items():
        root = bytes(32) if place == 2 else ROOT
        states[place], masked[place] = mask(states[place], inbox, root, WORDS[place].copy())
    server = PEOPLE.absorbed(server, masked)
    signed, signatures = PEOPLE.signed(states, server.survivors)
    agreeing = {place: signatures[place] for place in (0, 1, 3, 4)}
    openings = {at: open_sum(signed[at], agreeing, PEOPLE.verify)[1] for at in agreeing}
    found = PEOPLE.finished(server, openings).integers["a"].astype(np.int64)
    everyone = sum(words.astype(np.int64) for words in WORDS.values())
    for guess in (everyone, everyone - WORDS[2], WORDS[2].astype(np.int64)):
        assert not np.any((found - guess) % 2**32 == 0)


# 9. and 10. Configurations that could not hold.
def test_half_of_the_neighbours_and_ranges_that_overflow_are_refused() -> None:
    with pytest.raises(ProtocolError, match="more than half of them"):
        replace(CONFIGURATION, threshold=3)
    wide = replace(CONFIGURATION.channels[0], bits=CONFIGURATION.channels[0].bits + 1)
    with pytest.raises(ProtocolError, match="could overflow 32 bits"):
        replace(CONFIGURATION, channels=(wide,))
