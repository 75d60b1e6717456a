"""Processes of a federation die, are cut off and are slow, by a seed: every round is accounted for,
and the model is as good as that of a calm run."""

from __future__ import annotations

import os
import random
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

import atoll
from tests.e2e.test_e2e_federation import rounds_of
from tests.support.disasters import KINDS, Disasters, dealt
from tests.support.learnable import HELD_OUT, learnable_rows, write_learnable
from tests.support.models import Zoo
from tests.support.nets import network
from tests.support.sites import federation
from tests.support.witness import Witness

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes")
PATIENCE = 1200.0
"""Seconds after which a round that hangs is ended; nothing is proved by them."""
SAID = 10.0 + 2.0
"""Seconds in which a server says something, and a little; those without a core do not count."""


def survive(witness: Witness, disasters: Disasters, plan: Sequence[Sequence[str]]) -> None:
    """Strike in the midst of each round what the plan says, and wait for the server's end."""

    def until(place: str, seconds: float = 0.0) -> None:
        begun = time.monotonic()
        witness.until(
            lambda: place in witness.server.said and time.monotonic() - begun > seconds,
            seconds=PATIENCE, meanwhile=disasters.pass_over,
        )  # fmt: skip

    try:
        for number, kinds in enumerate(plan):
            for kind in kinds:
                until(f"\nround {number}/", disasters.draw.uniform(0, 1))
                disasters.strike(kind)
        until("what nobody says")
    finally:
        disasters.pass_over(all_of_them=True)


def calm_run(folder: Path) -> None:
    """The same experiment in this process, where nothing happens to anybody."""
    values = (f"data.path={folder / 'data'}", f"output_dir={folder / 'runs/calm'}")
    for _ in atoll.federate(atoll.load(folder / "experiment.yaml", *values)):
        pass


def accuracy(run: Path, clients: Sequence[str]) -> float:
    """The share of all held-out rows for which the model at the end is right."""
    asked = [row for own in learnable_rows(clients).values() for row in own[:HELD_OUT]]
    trained = atoll.open_run(run, note=lambda text: None)
    told = atoll.predict(trained, [{"text": row["text"]} for row in asked])
    right = [one["prediction"] == row["label"] for one, row in zip(told, asked, strict=True)]
    return sum(right) / len(right)


def accounted(witness: Witness, folder: Path, clients: Sequence[str], quorum: int) -> None:
    """Each round once, in order, of answers that were counted once; who is missing was told."""
    lines, said = rounds_of(folder / "runs/there"), witness.server.said
    rounds = len(lines) - 1
    assert [line["round"] for line in lines] == list(range(rounds + 1))
    # Round 0 measures, each round trains, and the last one measures too.
    asked = [f"r{n}-e{n}" for n in range(rounds + 1)] + [f"r{rounds}-e{rounds + 1}"]
    assert {name for name in witness.closed if "e1073741824" not in name} == set(asked)
    for number in range(1, rounds + 1):
        line, answered = lines[number], set(witness.closed[f"r{number}-e{number}"])
        missing = set(line["failures"])
        assert answered | missing == set(clients)
        assert len(answered) == line["clients"] >= quorum
        # In the last round a client may answer one of the two questions.
        assert number == rounds or not answered & missing
        for client, why in line["failures"].items():
            assert f"\nround {number}: {client} is left out: {why}\n" in said
    assert re.findall(r"^round (\d+)/", said, re.MULTILINE) == [str(n) for n in range(rounds + 1)]


@pytest.mark.parametrize(
    ("rounds", "clients", "each"), [(4, 3, 1), pytest.param(20, 8, 4, marks=pytest.mark.long)]
)
def test_chaos_of_processes(zoo: Zoo, tmp_path: Path, rounds: int, clients: int, each: int) -> None:
    """`each`: how many disasters of each kind; the last round has what is left of those before."""
    seed = int.from_bytes(os.urandom(4))
    draw, names = random.Random(seed), [f"site-{n}" for n in range(clients)]
    quorum, began = clients * 2 // 3, time.monotonic()
    settings = {"num_rounds": rounds, "min_clients": quorum, "grace": 3}
    write_learnable(tmp_path, zoo, names, settings)
    plan = dealt(draw, each, rounds - 1)
    with network(names) as net, federation(tmp_path, names, net) as people:
        print(f"seed {seed}, cut by {'cables' if net else 'signals'}: {plan}")
        server = people.coordinate("experiment.yaml")
        for name in names:
            people.join(name)
        disasters, witness = Disasters(people, draw, net), Witness(server, tmp_path / "runs/there")
        survive(witness, disasters, plan)
        print(f"{time.monotonic() - began:.0f} s, {dict(disasters.done)}, {witness.longest}")
        assert server.process.wait() == 0, server.said
        assert all(site.process.poll() is None for site in people.sites.values())
    assert disasters.done == dict.fromkeys(KINDS, each)
    assert "Traceback" not in server.said
    accounted(witness, tmp_path, names, quorum)
    assert witness.longest.own < SAID
    calm_run(tmp_path)
    found, expected = (accuracy(tmp_path / "runs" / run, names) for run in ("there", "calm"))
    print(f"accuracy {found:.4f}, and {expected:.4f} where nothing happens")
    assert expected > 0.9
    assert abs(found - expected) <= 0.02
