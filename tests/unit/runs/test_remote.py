"""The arms of clients elsewhere: what they tell is what a simulation measures itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from atoll.core import Algorithm, Failure, Payload, Reply
from atoll.experiment.local_arm import LOCAL, local_arm
from atoll.experiment.setup import Setup
from atoll.policy.reply import without_metrics
from atoll.runs.compare import compare
from atoll.runs.remote import compared_there
from atoll.runs.summary import per_client
from atoll.runs.where import Observer
from atoll.runtimes.inprocess import InProcess
from atoll.runtimes.store import memory_store
from tests.support.models import Zoo
from tests.support.scenes import scene, stirred


def asked(setup: Setup, algorithm: Algorithm) -> InProcess:
    named = {**setup.program.algorithms, LOCAL: algorithm}
    return InProcess(setup.data.clients, named, memory_store())


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_gains_and_their_intervals_are_those_of_a_simulation(
    kind: str, zoo: Zoo, tmp_path: Path
) -> None:
    setup = scene(tmp_path, zoo, kind, train={"learning_rate": 0.1, "group_size": 1},
                  evaluate={"baselines": ["local"]})  # fmt: skip
    state = stirred(setup)
    here = compare(setup, state, rounds=2, step=lambda *_: None, note=lambda text: None)
    there = compared_there(setup, asked(setup, local_arm(setup)), state, 2, Observer())
    told, known = per_client(setup, there), per_client(setup, here)
    assert told.keys() == known.keys()
    for client, row in known.items():
        assert told[client].keys() == row.keys()
        for name, value in row.items():
            found = told[client][name]
            near = value is not None and found == pytest.approx(value, rel=1e-5, abs=1e-7)
            assert near or found is value is None, (client, name)
    assert any(row["gain_interval"] and row["gain"] for row in known.values())


def test_metrics_that_may_not_leave_tell_no_interval(zoo: Zoo, tmp_path: Path) -> None:
    setup = scene(tmp_path, zoo, evaluate={"baselines": ["local"]})
    plain = local_arm(setup)
    held = setup.data.clients[0]

    def blank(reply: Reply | Failure) -> Reply | Failure:
        if isinstance(reply, Failure) or reply.client != held:
            return reply
        payload: Payload = without_metrics(reply.payload)
        return replace(reply, payload=payload)

    work = replace(plain.client, work=lambda asks: map(blank, plain.client.work(asks)))
    runtime = asked(setup, replace(plain, client=work))
    found = compared_there(setup, runtime, stirred(setup), 1, Observer())
    assert held not in found.gains
    # Eve has one held-out row, from which nothing can be drawn.
    assert found.gains.keys() == set(setup.data.clients[1:]) - {"eve"}
    assert per_client(setup, found)[held]["gain"] is None
