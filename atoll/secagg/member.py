"""A client of secure sums as a transport calls it: bytes come, its state is kept, bytes go."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from atoll.errors import ProtocolError
from atoll.secagg.channels import Quantised, quantise
from atoll.secagg.client import (
    advertise,
    confirm,
    mask,
    open_sum,
    rounding_seed,
    share,
)
from atoll.secagg.configuration import Configuration, Moment
from atoll.secagg.keys import KEY, Signer, Verifier, derive
from atoll.secagg.messages import Advert, Kind, Survivors, read_each, write_each, write_one
from atoll.secagg.state import ClientState, Step
from atoll.secagg.store import Store

__all__ = ["Member"]


class Member:
    """One client in all exchanges of a federation.

    sign: with the client's identity.   verify: against a roster that the server does not run.
    configuration: in each call this client's own (`agree`), never one that was sent.
    secret: of an exchange, from which all that it draws follows; from the operating system, but in
    a simulation, which goes on after a crash with what it had.

    The state is saved before a message is returned, so that a client which is killed and asked
    again has taken the step or has not: it never masks two vectors with one key. What is asked
    again after that is for the transport to answer, with the bytes that it was given.

    Raises:
        ProtocolError: from every call, for a message that is not as agreed, or out of turn.
    """

    def __init__(
        self, name: str, sign: Signer, verify: Verifier, store: Store,
        secret: Callable[[Moment], bytes] = lambda moment: os.urandom(KEY),
    ) -> None:  # fmt: skip
        self.name, self._sign, self._verify, self._store = name, sign, verify, store
        self._secret = secret

    def advert(self, configuration: Configuration) -> bytes:
        """Take part, with fresh keys; asked again for the same attempt, with the same ones.

        The keys of an earlier attempt of the exchange are gone then: it can be opened no more.
        """
        moment = configuration.moment
        if moment.exchange <= self._store.closed(moment.run):
            raise ProtocolError(
                f"{self.name} has opened exchange {moment.exchange} of {moment.run}, or a later "
                "one, or has given it up: a second sum over other clients could be subtracted from "
                "the first"
            )
        state = self._store.load(moment)
        if state is None or self._given_up(state, configuration):
            state, _ = advertise(
                configuration, self.name, self._sign, entropy=lambda size: self._secret(moment)
            )
            self._store.save(state)
        self._same(state, configuration)
        advert = state.adverts[configuration.place(self.name)]
        return write_one(Kind.ADVERT, configuration, advert.to_bytes())

    def shares(self, configuration: Configuration, message: bytes) -> bytes:
        """ADVERTS -> SHARES."""
        before = self._state(configuration)
        packed = read_each(Kind.ADVERTS, configuration, message)
        adverts = {place: Advert.from_bytes(raw) for place, raw in packed.items()}
        state, sealed = share(before, adverts, self._verify)
        self._store.save(state)
        return write_each(Kind.SHARES, configuration, sealed)

    def masked(
        self,
        configuration: Configuration,
        message: bytes,
        root: bytes,
        words: NDArray[np.int32],
    ) -> bytes:
        """INBOX -> MASKED.

        root: of the broadcast that this client was sent.   words: see `quantised`; used up.
        """
        before = self._state(configuration)
        inbox = read_each(Kind.INBOX, configuration, message)
        state, masked = mask(before, inbox, root, words)
        self._store.save(state)
        content = masked.astype("<u4", copy=False).data.cast("B")
        return write_one(Kind.MASKED, configuration, content)

    def quantised(
        self, configuration: Configuration, values: Mapping[str, NDArray[np.floating]]
    ) -> Quantised:
        """The client's vectors as integers, rounded by coins of this exchange; see `quantise`."""
        seed = rounding_seed(self._state(configuration))
        return quantise(configuration.channels, values, seed)

    def noise_seed(self, configuration: Configuration) -> bytes:
        """The secret of this client's noise in this exchange, which is masked once; 32 bytes."""
        return derive(self._state(configuration).secret, "noise")

    def signature(self, configuration: Configuration, message: bytes) -> bytes:
        """SURVIVORS -> SIGNATURE."""
        before = self._state(configuration)
        survivors = Survivors.from_bytes(message, configuration)
        state, signature = confirm(before, survivors, self._sign)
        self._store.save(state)
        return write_one(Kind.SIGNATURE, configuration, signature)

    def opening(self, configuration: Configuration, message: bytes) -> bytes:
        """SIGNATURES -> OPENING; nothing of the exchange is kept."""
        before = self._state(configuration)
        signatures = read_each(Kind.SIGNATURES, configuration, message)
        state, shares = open_sum(before, signatures, self._verify)
        self._store.save(state)
        return write_each(Kind.OPENING, configuration, shares)

    def give_up(self, run: str, exchange: int) -> None:
        """Erase the keys of exchanges up to this one that ended without a sum, for good."""
        self._store.close(run, exchange)

    def _given_up(self, state: ClientState, configuration: Configuration) -> bool:
        """Whether an attempt that is under way ends here, for the next one.

        Raises:
            ProtocolError: where two attempts of an exchange could both be opened.
        """
        own, moment = state.configuration, configuration.moment
        if moment.attempt <= own.moment.attempt:
            return False
        if replace(own, moment=moment) != configuration:
            raise ProtocolError(
                f"attempt {moment.attempt} of exchange {moment.exchange} is of other clients, or "
                "of other terms, than the one before it: their sums could be subtracted"
            )
        if own.sparse and state.step == Step.SIGNED:
            raise ProtocolError(
                f"{self.name} has signed who is summed in attempt {own.moment.attempt} of exchange "
                f"{moment.exchange}: where clients mask with some of the others, it takes part in "
                "no other attempt, of which a second sum could be opened"
            )
        return True

    def _state(self, configuration: Configuration) -> ClientState:
        moment = configuration.moment
        state = self._store.load(moment)
        if state is None or state.configuration.moment.attempt < moment.attempt:
            raise ProtocolError(
                f"{self.name} has no keys for exchange {moment.exchange}, attempt "
                f"{moment.attempt}: it sent no advert, or has opened it, or gave it up"
            )
        self._same(state, configuration)
        return state

    def _same(self, state: ClientState, configuration: Configuration) -> None:
        now, asked = state.configuration.moment.attempt, configuration.moment.attempt
        if asked < now:
            raise ProtocolError(
                f"{self.name} is in attempt {now} of exchange {configuration.moment.exchange}, and "
                f"has erased its keys of attempt {asked}: it opens one of them at most"
            )
        if state.configuration != configuration:
            raise ProtocolError(
                f"{self.name} began exchange {configuration.moment.exchange} with another "
                "configuration; another one needs another attempt, with fresh keys"
            )
