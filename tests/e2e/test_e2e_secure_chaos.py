"""Processes die at each step of secure sums: every round ends, and none is spent twice."""

from __future__ import annotations

import json
import random
import sys
from itertools import product
from pathlib import Path

import pytest

from atoll.ledger import verified
from atoll.protection.speaking import SIDE, STEPS
from tests.support.disasters import Disasters
from tests.support.federation import LABELS, write_labelled
from tests.support.models import Zoo
from tests.support.sites import People, federation, waited

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(sys.platform != "linux", reason="looks for processes"),
]
CLIENTS = ("ada", "bob", "cy", "dee")
EXPERIMENT = """
model: {{name_or_path: {model}, pooling: mean}}
data: {{path: data/, labels: [{labels}], max_length: 24}}
adapter: {{r: 2, target_modules: [query], head: train}}
train: {{max_steps: 1, learning_rate: 0.01}}
federation: {{num_rounds: {rounds}, grace: 3}}
privacy: {{noise_multiplier: 1.0, clip: 0.01, sampling: everyone, secure_aggregation: true,
           min_survivors: 3, corrupt: 0, dropping: 0.25}}
evaluate: {{baselines: []}}
"""
STRIKES = list(product(STEPS, ("client", "server")))


@pytest.mark.parametrize("rounds", [20])
def test_deaths_at_each_step_of_a_secure_sum(rounds: int, zoo: Zoo, tmp_path: Path) -> None:
    _write(tmp_path, zoo, rounds)
    draw = random.Random(rounds)
    plan = [STRIKES[number % len(STRIKES)] for number in range(rounds)]
    draw.shuffle(plan)
    run = tmp_path / "runs" / "private"
    with federation(tmp_path, CLIENTS) as people:
        (tmp_path / "policy.yaml").write_text(
            "label_names: true\nmin_rows: 1\nmodels: any\nmin_cohort: 3\n"
        )
        server = people.coordinate("private.yaml")
        for client in CLIENTS:
            people.join(client)
        disasters = Disasters(people, draw, None)
        spent = _struck(people, run, disasters, plan)
        waited(lambda: server.process.poll() is not None, seconds=600)
        assert server.process.returncode == 0, server.said
        assert "Traceback" not in server.said
    assert sum(disasters.done.values()) == rounds
    lines = [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]
    assert [line["round"] for line in lines] == list(range(rounds + 1))
    ledger = verified(run / "privacy")
    assert sum(release.steps for _, release in ledger.releases) == rounds
    found = [line.epsilon or 0.0 for line in ledger.lines]
    assert found == sorted(found)
    assert [*spent, found[-1]] == sorted([*spent, found[-1]])
    _each_site(tmp_path, rounds)


def _write(folder: Path, zoo: Zoo, rounds: int) -> None:
    write_labelled(folder, dict.fromkeys(CLIENTS, 20))
    text = EXPERIMENT.format(model=zoo("bert"), labels=", ".join(LABELS), rounds=rounds)
    (folder / "private.yaml").write_text(text)


def _struck(
    people: People, run: Path, disasters: Disasters, plan: list[tuple[str, str]]
) -> list[float]:
    """Strike once in each round, as answers to a step come; what was spent, as each struck."""
    server, spent = people.server, list[float]()
    assert server is not None
    for number, (step, who) in enumerate(plan, 1):
        waited(lambda n=number, s=step: _reached(run, n, s), seconds=600)  # type: ignore[misc]
        # Looked at while the server may be down, or has not begun its first round.
        told = verified(run / "privacy").lines
        spent.append((told[-1].epsilon or 0.0) if told else 0.0)
        disasters.strike(who)
    return spent


def _reached(run: Path, number: int, step: str) -> bool:
    """Whether an answer to this step of a round has come, or to a later round's."""
    for path in (run / "federation" / "spool").glob("r*-e*"):
        at, exchange = path.name[1:].split("-")[:2]
        if int(at) > number or (
            int(at) == number and int(exchange[1:]) // SIDE == STEPS.index(step)
        ):
            return True
    return False


def _each_site(folder: Path, rounds: int) -> None:
    """Each has written the whole run down once, and has no key of a sum that it opened."""
    for client in CLIENTS:
        state = folder / "fed" / client / "state"
        releases = verified(state / "privacy").releases
        assert sum(release.steps for _, release in releases) == rounds
        marks = list((state / "secagg").rglob("opened"))
        assert len(marks) == 1
        opened, left = int(marks[0].read_text()), list(marks[0].parent.glob("*.state"))
        assert len(left) <= 2
        assert all(int(path.stem) > opened for path in left)
