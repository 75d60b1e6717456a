"""What else servers and clients refuse, and what a server that breaks the protocol is left with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import sympy
from numpy.typing import NDArray

from atoll.errors import ProtocolError, QuorumError
from atoll.secagg import Configuration, Kind, Step, Total
from atoll.secagg.client import confirm, mask, open_sum
from atoll.secagg.gathered import ServerState
from atoll.secagg.keys import check_public, common, private_key
from atoll.secagg.masks import add_streams
from atoll.secagg.messages import Survivors, read_each, write_each, write_one
from atoll.secagg.server import absorb, close, finish, gather, route, witness
from atoll.secagg.session import begun
from atoll.secagg.shamir import SHARE, combine
from atoll.secagg.state import ClientState
from tests.support.sums import ROOT, Cohort, cohort, configured, inbox_of, vector

CONFIGURATION = configured(6)
PEOPLE = cohort(CONFIGURATION)
WORDS = {place: vector(CONFIGURATION, place) for place in range(6)}


def _sparse() -> Cohort:
    return cohort(replace(configured(20), neighbours=6, threshold=5, signers=11))


def _finished(
    server: ServerState, openings: Mapping[int, Mapping[int, bytes]]
) -> tuple[Total, dict[str, str]]:
    return finish(server, {
        CONFIGURATION.cohort[at]: write_each(Kind.OPENING, CONFIGURATION, shares)
        for at, shares in openings.items()
    })  # fmt: skip


def _closed(alive: tuple[int, ...]) -> tuple[dict[int, ClientState], Survivors]:
    return PEOPLE.closed(WORDS, alive)


def test_two_sets_of_survivors_are_never_both_opened() -> None:
    """The server tells three clients that client 5 dropped out and three that it did not."""
    states, sealed = PEOPLE.shared(*PEOPLE.advertised())
    states, _ = PEOPLE.masked(states, sealed, WORDS)
    with_five, without = Survivors(tuple(range(6)), ()), Survivors(tuple(range(5)), (5,))
    told = {0: with_five, 1: with_five, 5: with_five, 2: without, 3: without, 4: without}
    both = {at: confirm(states[at], told[at], PEOPLE.identities[at].sign) for at in told}
    for place, (state, _) in both.items():
        agreeing = {at: s for at, (_, s) in both.items() if told[at] == told[place]}
        with pytest.raises(ProtocolError, match="3 clients confirm who is summed, and 4 must"):
            open_sum(state, agreeing, PEOPLE.verify)
        with pytest.raises(ProtocolError, match="has not signed what"):
            open_sum(state, {at: s for at, (_, s) in both.items()}, PEOPLE.verify)


def test_too_few_survivors_are_not_confirmed() -> None:
    states, survivors = _closed((0, 1, 2))
    with pytest.raises(ProtocolError, match="3 survivors, 3 of them near client-000: 4 and 4"):
        confirm(states[0], survivors, PEOPLE.identities[0].sign)
    many = _sparse()
    words = {at: vector(many.configuration, at) for at in range(20)}
    states, adverts = many.advertised()
    near = begun(many.configuration, adverts).ring.near(0)
    states, sealed = many.shared(states, adverts)
    states, _ = many.masked(states, sealed, words)
    gone = tuple(sorted(near[:2]))
    alive = tuple(at for at in range(20) if at not in gone)
    with pytest.raises(ProtocolError, match="18 survivors, 5 of them near client-000: 11 and 6"):
        confirm(states[0], Survivors(alive, gone), many.identities[0].sign)
    few = tuple(sorted({0, *near, *[at for at in range(1, 20) if at not in near][:3]}))
    gone = tuple(at for at in range(20) if at not in few)
    with pytest.raises(ProtocolError, match="10 survivors, 7 of them near client-000: 11 and 6"):
        confirm(states[0], Survivors(few, gone), many.identities[0].sign)


def test_shares_are_for_one_client_from_one_client_in_one_exchange() -> None:
    states, sealed = PEOPLE.shared(*PEOPLE.advertised())
    _, other = PEOPLE.shared(*PEOPLE.advertised())
    inbox = inbox_of(0, sealed)
    flipped = bytes([inbox[1][0] ^ 1]) + inbox[1][1:]
    for wrong in (
        {**inbox, 1: inbox[2]}, {**inbox, 1: sealed[0][1]}, {**inbox, 1: sealed[1][2]},
        {**inbox, 1: other[1][0]}, {**inbox, 1: flipped}, {**inbox, 1: bytes(82)},
    ):  # fmt: skip
        with pytest.raises(ProtocolError, match="from client-001 were not written by it for"):
            mask(states[0], wrong, ROOT, WORDS[0].copy())


def test_a_vector_that_comes_too_late_stays_under_its_own_mask() -> None:
    """Client 5's key is opened since it dropped out; then its masked vector turns up."""
    states, sealed = PEOPLE.shared(*PEOPLE.advertised())
    states, masked = PEOPLE.masked(states, sealed, WORDS)
    alive = (0, 1, 2, 3, 4)
    signed, signatures = PEOPLE.signed({at: states[at] for at in alive}, Survivors(alive, (5,)))
    opened = {at: open_sum(signed[at], signatures, PEOPLE.verify)[1][5] for at in alive}
    key = combine({at + 1: each for at, each in opened.items()}, 4)
    session = begun(CONFIGURATION, states[0].adverts)
    masking, public = private_key(key)
    assert public == session.adverts[5].masking
    stripped = masked[5].copy()
    seeds = [
        session.pair_seed(common(masking, session.adverts[at].masking), ROOT, at, 5) for at in alive
    ]
    add_streams(stripped, seeds)
    assert not np.any(stripped == WORDS[5].view(np.uint32))
    own = session.own_seed(combine(_own_shares(states, signed), 4), 5)
    add_streams(stripped, (), [own])
    np.testing.assert_array_equal(stripped.view(np.int32), WORDS[5])


def _own_shares(states: dict[int, ClientState], signed: dict[int, ClientState]) -> dict[int, bytes]:
    """What no client opens: shares of the seed of client 5's own mask."""
    assert all(state.step == Step.SIGNED for state in signed.values())
    return {at + 1: states[at].received[5][:SHARE] for at in signed}


def _five_masked() -> tuple[ServerState, dict[int, ClientState], dict[int, NDArray[np.uint32]]]:
    server, states, inboxes = PEOPLE.routed()
    both = {at: mask(states[at], inboxes[at], ROOT, WORDS[at].copy()) for at in range(5)}
    return server, {at: s for at, (s, _) in both.items()}, {at: v for at, (_, v) in both.items()}


def test_a_wrong_share_is_found_where_there_are_enough_others() -> None:
    server, states, masked = _five_masked()
    server = PEOPLE.absorbed(server, masked)
    signed, signatures = PEOPLE.signed(states, server.survivors)
    opened = {at: open_sum(signed[at], signatures, PEOPLE.verify)[1] for at in range(5)}
    expected = sum(WORDS[at].astype(np.int64) for at in range(5))
    np.testing.assert_array_equal(PEOPLE.finished(server, opened).integers["a"], expected)
    for owner in range(6):
        value = (int.from_bytes(opened[1][owner], "big") ^ 1).to_bytes(SHARE, "big")
        wrong = {**opened, 1: {**opened[1], owner: value}}
        found, refused = _finished(server, wrong)
        np.testing.assert_array_equal(found.integers["a"], expected)
        assert refused.keys() == {"client-001"}
        assert f"a wrong share of client-00{owner}'s secret" in refused["client-001"]
        both = {**wrong, 2: {**opened[2], owner: value}}
        with pytest.raises(ProtocolError, match=f"shares of client-00{owner} do not give what"):
            PEOPLE.finished(server, both)
    lying = {owner: bytes(SHARE) for owner in opened[1]}
    assert _finished(server, {**opened, 1: lying})[1].keys() == {"client-001"}


def test_shares_that_are_not_all_there_are_not_used() -> None:
    server, states, masked = _five_masked()
    server = PEOPLE.absorbed(server, masked)
    signed, signatures = PEOPLE.signed(states, server.survivors)
    opened = {at: open_sum(signed[at], signatures, PEOPLE.verify)[1] for at in range(5)}
    expected = PEOPLE.finished(server, opened).integers["a"]
    fewer = {at: shares for at, shares in opened[0].items() if at != 3}
    found = PEOPLE.finished(server, {**opened, 0: fewer, 5: opened[1]})
    np.testing.assert_array_equal(found.integers["a"], expected)
    with pytest.raises(QuorumError, match="3 clients opened their share of client-000's secret"):
        PEOPLE.finished(server, {**opened, 0: fewer, 1: fewer})


def test_the_server_counts_each_client_once_and_refuses_what_is_not_agreed() -> None:
    names = CONFIGURATION.cohort
    server, states, masked = _five_masked()
    sent = write_one(Kind.MASKED, CONFIGURATION, masked[0].data.cast("B"))
    server = PEOPLE.absorbed(server, masked)
    total = server.total.copy()
    for name, raw in ((names[0], sent), (names[5], sent[:-4]), (names[5], sent + b"\0"),
                      (names[5], b""), ("mallory", sent)):  # fmt: skip
        with pytest.raises(ProtocolError):
            absorb(server, name, raw)
    np.testing.assert_array_equal(server.total, total)
    survivors = Survivors.from_bytes(close(server), CONFIGURATION)
    _, signatures = PEOPLE.signed(states, survivors)

    def said(signature: bytes) -> bytes:
        return write_one(Kind.SIGNATURE, CONFIGURATION, signature)

    messages = {names[at]: said(signature) for at, signature in signatures.items()}
    wrong = {names[4]: said(signatures[3]), names[5]: said(signatures[0]), "mallory": said(b"")}
    # Client 5 dropped out; with its own signature among them, nobody would open anything.
    late = PEOPLE.identities[5].sign(server.session.statement(survivors, ROOT))
    for last in (wrong[names[5]], said(late)):
        confirmed, refused = witness(server, messages | wrong | {names[5]: last})
        assert refused.keys() == wrong.keys()
    assert read_each(Kind.SIGNATURES, CONFIGURATION, confirmed).keys() == {0, 1, 2, 3}


def test_the_server_leaves_out_adverts_and_shares_that_are_not_as_agreed() -> None:
    configuration = configured(8)
    people = cohort(configuration)
    names = configuration.cohort
    states, adverts = people.advertised()
    said = {
        names[at]: write_one(Kind.ADVERT, configuration, advert.to_bytes())
        for at, advert in adverts.items()
    }
    said |= {names[0]: said[names[1]], names[1]: said[names[1]][:-1], "mallory": said[names[2]]}
    state, message, refused = gather(configuration, ROOT, people.verify, said)
    assert refused.keys() == {names[0], names[1], "mallory"}
    assert read_each(Kind.ADVERTS, configuration, message).keys() == {2, 3, 4, 5, 6, 7}
    _, sealed = people.shared(states, {at: adverts[at] for at in range(2, 8)})
    told = {names[at]: write_each(Kind.SHARES, configuration, s) for at, s in sealed.items()}
    told[names[2]] = write_each(Kind.SHARES, configuration, {3: sealed[2][3]})
    told[names[0]] = told[names[3]]
    state, inboxes, refused = route(state, told)
    assert refused.keys() == {names[0], names[2]}
    assert inboxes.keys() == {names[at] for at in range(3, 8)}
    assert state.sharing == {3, 4, 5, 6, 7}


def test_adverts_with_keys_that_others_have_too_are_left_out_and_the_rest_go_on() -> None:
    configuration = configured(10)
    people, names = cohort(configuration), configuration.cohort
    _, adverts = people.advertised()
    changes = {1: {"masking": adverts[0].masking}, 3: {"sealing": adverts[3].masking},
               5: {"masking": bytes(32)}}  # fmt: skip
    for at, change in changes.items():
        changed = replace(adverts[at], **change)
        signature = people.identities[at].sign(changed.statement(configuration, names[at]))
        adverts[at] = replace(changed, signature=signature)
    said = {
        names[at]: write_one(Kind.ADVERT, configuration, advert.to_bytes())
        for at, advert in adverts.items()
    }
    state, _, refused = gather(configuration, ROOT, people.verify, {**said})
    assert refused.keys() == {names[at] for at in (0, 1, 3, 5)}
    assert sorted(state.session.adverts) == [2, 4, 6, 7, 8, 9]


def test_public_keys_of_small_order_are_those_that_a_key_agreement_refuses() -> None:
    field, u = 2**255 - 19, sympy.Symbol("u")
    # Doubled, a point of order 8 is the one of order 4, whose u is 1.
    doubled = (u**2 - 1) ** 2 - 4 * u * (u**2 + 486662 * u + 1)
    factors = sympy.Poly(doubled, u, modulus=field).factor_list()[1]
    roots = [-int(one.all_coeffs()[-1]) % field for one, _ in factors if one.degree() == 1]
    assert len(roots) == 2
    small = [*roots, 0, 1, field - 1, field, field + 1]
    own = private_key(b"k" * 32)
    for value in [*small, *(each + 2**255 for each in small)]:
        key = value.to_bytes(32, "little")
        for refused in (lambda key=key: common(own[0], key), lambda key=key: check_public(key)):
            with pytest.raises(ProtocolError, match="is no public key of X25519"):
                refused()
    check_public(own[1])


def test_a_configuration_of_the_servers_own_is_not_the_clients() -> None:
    """Every message that could be asked of a client is bound to what it agreed to itself."""
    easy = Configuration(
        CONFIGURATION.moment, CONFIGURATION.cohort, 2, 2, 4, 2, CONFIGURATION.channels
    )
    states, adverts = PEOPLE.at(easy).advertised()
    packed = {at: advert.to_bytes() for at, advert in adverts.items()}
    for kind, items in ((Kind.ADVERTS, packed), (Kind.INBOX, {1: bytes(82)}),
                        (Kind.SIGNATURES, {1: bytes(64)})):  # fmt: skip
        with pytest.raises(ProtocolError, match="bound to the configuration"):
            read_each(kind, CONFIGURATION, write_each(kind, easy, items))
    with pytest.raises(ProtocolError, match="bound to the configuration"):
        Survivors.from_bytes(Survivors((0, 1), ()).to_bytes(easy), CONFIGURATION)
    assert states[0].configuration != CONFIGURATION


def test_integers_that_could_overflow_and_roots_that_are_none_are_not_masked() -> None:
    _, states, inboxes = PEOPLE.routed()
    top = CONFIGURATION.channels[0].top
    with pytest.raises(ProtocolError, match="could overflow, so nothing was masked"):
        mask(states[0], inboxes[0], ROOT, np.array([0, top + 1, 0], np.int32))
    with pytest.raises(ProtocolError, match="root of a broadcast has 32 bytes, not 31"):
        mask(states[0], inboxes[0], ROOT[1:], WORDS[0].copy())


def test_one_that_dropped_out_is_no_witness() -> None:
    states, survivors = _closed((0, 1, 2, 3, 4))
    signed, signatures = PEOPLE.signed(states, survivors)
    statement = begun(CONFIGURATION, states[0].adverts).statement(survivors, ROOT)
    signatures[5] = PEOPLE.identities[5].sign(statement)
    assert PEOPLE.verify(CONFIGURATION.cohort[5], statement, signatures[5])
    with pytest.raises(ProtocolError, match="client-005 has not signed what client-000 has"):
        open_sum(signed[0], signatures, PEOPLE.verify)


def test_only_survivors_open_and_only_those_that_shared_are_added() -> None:
    server, states, masked = _five_masked()
    server = PEOPLE.absorbed(server, masked)
    signed, signatures = PEOPLE.signed(states, server.survivors)
    opened = open_sum(signed[0], signatures, PEOPLE.verify)[1]
    raw = write_each(Kind.OPENING, CONFIGURATION, opened)
    said = dict.fromkeys(CONFIGURATION.cohort, raw)
    with pytest.raises(ProtocolError, match=r"promised|belong to no secret"):
        finish(server, said)
    with pytest.raises(QuorumError, match="0 clients opened their share"):
        finish(server, {CONFIGURATION.cohort[5]: raw})
    few = replace(server, sharing=frozenset({0, 1, 2, 3}), alive=frozenset())
    late = write_one(Kind.MASKED, CONFIGURATION, masked[4].data.cast("B"))
    with pytest.raises(ProtocolError, match="client-004 has shared no secrets"):
        absorb(few, CONFIGURATION.cohort[4], late)


def test_a_client_is_never_left_with_corrupt_neighbours_alone() -> None:
    """The server says that all honest neighbours dropped out, and has their keys opened."""
    many = _sparse()
    words = {at: vector(many.configuration, at) for at in range(20)}
    states, adverts = many.advertised()
    near = begun(many.configuration, adverts).ring.near(7)
    states, sealed = many.shared(states, adverts)
    states, _ = many.masked(states, sealed, words)
    corrupt, honest = near[:4], near[4:]
    assert len({*corrupt, 7}) == many.configuration.threshold
    alive = tuple(at for at in range(20) if at not in honest)
    with pytest.raises(ProtocolError, match="18 survivors, 5 of them near client-007: 11 and 6"):
        confirm(states[7], Survivors(alive, tuple(honest)), many.identities[7].sign)
    some = tuple(sorted({*alive, honest[0]}))
    confirm(states[7], Survivors(some, (honest[1],)), many.identities[7].sign)
