"""A server that plants weights, over the network: sites that look refuse it, and say why."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.federation import LABELS, write_labelled
from tests.support.models import Zoo
from tests.support.sites import People, Started, federation, waited

CLIENTS = ("ada", "bob")
EXPERIMENT = """
model: {{name_or_path: {model}, pooling: mean}}
data: {{path: data/, labels: [{labels}], max_length: 24}}
adapter: {{method: full, head: train}}
train: {{max_steps: 2, learning_rate: 0.001}}
federation: {{num_rounds: 2, grace: 5}}
evaluate: {{baselines: [], every: 9}}
"""
ROOT = Path(__file__).parents[2]


@pytest.fixture
def people(tmp_path: Path, zoo: Zoo) -> Iterator[People]:
    write_labelled(tmp_path, dict.fromkeys(CLIENTS, 30))
    text = EXPERIMENT.format(model=zoo("bert"), labels=", ".join(LABELS))
    (tmp_path / "whole.yaml").write_text(text)
    with federation(tmp_path, CLIENTS) as found:
        yield found


def _dishonest(people: People) -> Started:
    words = (
        "server",
        "whole.yaml",
        "--listen",
        f"127.0.0.1:{people.port}",
        "--certs",
        "fed/server",
    )
    inside = (sys.executable, str(ROOT / "tests" / "support" / "dishonest.py"))
    people.server = Started(words, people.folder / "server.log", people.folder, inside)
    return people.server


@pytest.mark.long
@pytest.mark.parametrize("guard", [True, False])
def test_a_trap_is_refused_by_sites_that_look(people: People, guard: bool) -> None:
    rules = f'label_names: true\nmin_rows: 1\nmodels: any\ntensors: ["*"]\nguard: {guard}\n'
    (people.folder / "policy.yaml").write_text(
        rules.replace("True", "true").replace("False", "false")
    )
    server = _dishonest(people)
    sites = [people.join(client) for client in CLIENTS]
    if not guard:
        waited(lambda: server.process.poll() is not None, seconds=200)
        assert server.process.returncode == 0, server.said
        assert not any("policy rule" in site.said for site in sites), sites[0].said
        return
    waited(lambda: all("policy rule 'guard'" in site.said for site in sites), seconds=200)
    for site in sites:
        assert "refused: policy rule 'guard': backbone.encoder.layer." in site.said
    waited(lambda: "policy rule 'guard'" in server.said, seconds=60)
