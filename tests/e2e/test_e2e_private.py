"""A private federation over the network: what sites write down, and what leaves them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file

from atoll.ledger import verified
from tests.support.federation import LABELS, write_labelled
from tests.support.models import Zoo
from tests.support.sites import ATOLL, People, federation, waited

CLIENTS = ("ada", "bob", "cy")
EXPERIMENT = """
model: {{name_or_path: {model}, pooling: mean}}
data: {{path: data/, labels: [{labels}], max_length: 24}}
adapter: {{r: 2, target_modules: [query], head: train}}
train: {{max_steps: 2, learning_rate: 0.01}}
federation: {{num_rounds: 3, clients_per_round: 2, grace: 5}}
privacy: {{noise_multiplier: 1.0, clip: 0.5}}
evaluate: {{baselines: []}}
"""


@pytest.fixture
def people(tmp_path: Path, zoo: Zoo) -> Iterator[People]:
    write_labelled(tmp_path, dict.fromkeys(CLIENTS, 30))
    text = EXPERIMENT.format(model=zoo("bert"), labels=", ".join(LABELS))
    (tmp_path / "private.yaml").write_text(text)
    with federation(tmp_path, CLIENTS) as found:
        yield found


def test_a_private_federation_from_end_to_end(people: People) -> None:
    folder = people.folder
    rules = "label_names: true\nmin_rows: 1\nmodels: any\nprivacy: {required: true, max_clip: 0.5, "
    (folder / "policy.yaml").write_text(rules + "lifetime_epsilon: 20}\n")
    people.together("private.yaml")
    run = folder / "runs" / "private"
    summary = json.loads((run / "summary.json").read_text())
    assert summary["final"] is None
    assert summary["per_client"] is None
    assert summary["epsilon"] > 0
    assert summary["privacy"]["releases"] == 3
    for line in map(json.loads, (run / "rounds.jsonl").read_text().splitlines()):
        assert (line["loss"], line["own"]) == (None, None)
    asked = 0
    for client in CLIENTS:
        state = folder / "fed" / client / "state"
        left = _departures(state)
        asked += len(left)
        if not left:
            continue
        told = verified(state / "privacy")
        assert sum(release.steps for _, release in told.releases) == 3
        assert {line["privacy"]["epsilon"] for line in left} == {told.lines[-1].epsilon}
        values = [t for line in left for t in line["tensors"] if t["channel"] != "update"]
        assert {t["l2"] for t in values if t["channel"] in ("examples", "metrics")} == {0.0}
        norms = [sum(t["l2"] ** 2 for t in line["tensors"] if t["channel"] == "update") ** 0.5
                 for line in left]  # fmt: skip
        assert all(norm <= 0.5 * (1 + 1e-6) for norm in norms)
        _tells_nothing(state)
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["run"]
    assert asked <= 9


@pytest.mark.long
def test_a_site_whose_budget_is_spent_refuses(people: People) -> None:
    rules = "label_names: true\nmin_rows: 1\nmodels: any\nprivacy: {required: true, "
    (people.folder / "policy.yaml").write_text(rules + "lifetime_epsilon: 0.1}\n")
    # Sites that are slow to come have rounds to come to: nobody is waited for under noise.
    text = (people.folder / "private.yaml").read_text().replace("num_rounds: 3", "num_rounds: 60")
    (people.folder / "private.yaml").write_text(text)
    server = people.coordinate("private.yaml")
    sites = [people.join(client) for client in CLIENTS]
    waited(lambda: "this site allows 0.1" in server.said, seconds=400)
    assert "policy rule 'privacy'" in server.said
    assert any("all runs here spend epsilon" in one.said for one in sites)


SECURE = "privacy: {{secure_aggregation: true, min_survivors: 3, corrupt: 0, dropping: 0{noise}}}"


@pytest.mark.parametrize(
    "noise", ["", pytest.param(", noise_multiplier: 1.0, clip: 0.5", marks=pytest.mark.long)]
)
def test_a_secure_federation_is_a_simulations_to_a_rounding_and_shows_no_update(
    noise: str, people: People
) -> None:
    folder = people.folder
    _under(people, SECURE.format(noise=noise))
    (folder / "policy.yaml").write_text(
        "label_names: true\nmin_rows: 1\nmodels: any\nmin_cohort: 3\n"
    )
    people.together("private.yaml")
    run = folder / "runs" / "private"
    for client in CLIENTS:
        tensors = [t for line in _departures(folder / "fed" / client / "state")
                   for t in line["tensors"]]  # fmt: skip
        assert {t["channel"] for t in tensors} == {"masked", "message"}
        _tells_nothing(folder / "fed" / client / "state")
    summary = json.loads((run / "summary.json").read_text())
    assert summary["per_client"] is None
    assert not (run / "clients.jsonl").exists()
    kept = json.loads((run / "federation.json").read_text())["offers"].values()
    assert {(offer["train"], offer["test"], offer["labels"]) for offer in kept} == {(0, 0, None)}
    lines = [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]
    assert [line["round"] for line in lines] == [0, 1, 2, 3]
    if noise:
        return
    words = [ATOLL, "run", "private.yaml", "output_dir=runs/here", "train.group_size=1"]
    subprocess.run(words, check=True, capture_output=True, cwd=folder)
    ours, theirs = (load_file(r / "adapter" / "adapter_model.safetensors")
                    for r in (run, folder / "runs" / "here"))  # fmt: skip
    # Clients round by secret coins, to a step of 2e-6, and AdamW makes more of small differences.
    gap = max(float((ours[name] - theirs[name]).abs().max()) for name in ours)
    assert gap < 1e-4


@pytest.mark.long
def test_a_federation_encrypts_to_a_site_that_holds_the_key(people: People) -> None:
    pytest.importorskip("tenseal")
    folder = people.folder
    # AdamW makes much of small differences where a gradient is near zero.
    text = (folder / "private.yaml").read_text()
    text = text.replace("learning_rate: 0.01", "learning_rate: 0.1, optimizer: sgd")
    secure = "privacy: {secure_aggregation: ckks, min_survivors: 3, key_holder: bob}"
    _under(people, secure, text=text)
    (folder / "policy.yaml").write_text(
        "label_names: true\nmin_rows: 1\nmodels: any\nmin_cohort: 3\n"
    )
    people.together("private.yaml")
    run = folder / "runs" / "private"
    for client in CLIENTS:
        state = folder / "fed" / client / "state"
        tensors = [t for line in _departures(state) for t in line["tensors"]]
        assert {t["channel"] for t in tensors} == {"encrypted", "message"}
        keys = list((state / "secagg").glob("*.ckks"))
        assert len(keys) == (client == "bob")
        # It is forgotten once its sum is told.
        assert all(key.stat().st_mode & 0o777 == 0o600 and key.stat().st_size < 100 for key in keys)
    words = [ATOLL, "run", "private.yaml", "output_dir=runs/here", "train.group_size=1"]
    subprocess.run(words, check=True, capture_output=True, cwd=folder)
    ours, theirs = (load_file(r / "adapter" / "adapter_model.safetensors")
                    for r in (run, folder / "runs" / "here"))  # fmt: skip
    assert max(float((ours[name] - theirs[name]).abs().max()) for name in ours) < 1e-4


OWN = {
    "local": "mechanism: local",
    "distributed": "mechanism: distributed, secure_aggregation: true, min_survivors: 3, "
    "corrupt: 0, dropping: 0",
}


@pytest.mark.long
@pytest.mark.parametrize("mechanism", OWN)
def test_sites_that_add_the_noise_count_what_the_server_sees(
    mechanism: str, people: People
) -> None:
    folder = people.folder
    # Little noise: of three clients at an honest epsilon it would be all that their model holds,
    # and sites refuse such a model.
    _under(people, f"privacy: {{epsilon: 200, clip: 0.5, {OWN[mechanism]}}}")
    rules = "label_names: true\nmin_rows: 1\nmodels: any\nmin_cohort: 3\n"
    spent = "privacy: {required: true, max_clip: 0.5, lifetime_epsilon: 200}\n"
    (folder / "policy.yaml").write_text(rules + spent)
    people.together("private.yaml")
    summary = json.loads((folder / "runs" / "private" / "summary.json").read_text())
    assert 190 < summary["epsilon"] <= 200
    assert summary["privacy"]["readers_epsilon"] <= summary["epsilon"]
    for client in CLIENTS:
        state = folder / "fed" / client / "state"
        told = verified(state / "privacy")
        assert sum(release.steps for _, release in told.releases) == 3
        assert told.lines[-1].epsilon == pytest.approx(summary["epsilon"])
        if mechanism == "local":
            norms = [sum(t["l2"] ** 2 for t in line["tensors"] if t["channel"] == "update") ** 0.5
                     for line in _departures(state)]  # fmt: skip
            # What leaves is the noise, above all: longer than the clip allows an update to be.
            assert min(norms) > 1


@pytest.mark.long
def test_sites_that_hide_their_rows_count_them_by_themselves(people: People) -> None:
    folder = people.folder
    _under(people, "privacy: {unit: example, noise_multiplier: 1.0, clip: 0.5}")
    rules = "label_names: true\nmin_rows: 1\nmodels: any\nprivacy: {required: true, max_clip: 0.5, "
    (folder / "policy.yaml").write_text(rules + "lifetime_epsilon: 50}\n")
    people.together("private.yaml")
    summary = json.loads((folder / "runs" / "private" / "summary.json").read_text())
    assert summary["privacy"]["unit"] == "example"
    for client in CLIENTS:
        state = folder / "fed" / client / "state"
        told = verified(state / "privacy-rows")
        # Three rounds of two steps, of batches of 8 of some 30 rows.
        assert {release.unit for _, release in told.releases} == {"example"}
        assert sum(release.steps for _, release in told.releases) == 6
        epsilon = told.lines[-1].epsilon
        assert epsilon is not None
        # All sites have as many rows, and the server counts what the smallest one spends.
        assert epsilon == pytest.approx(summary["epsilon"], rel=0.05)
        assert '"train":' in _opened(state)
        assert '"labels":null' in _opened(state)


def _under(people: People, privacy: str, *, text: str = "") -> None:
    """The experiment of all clients, under another privacy section."""
    path = people.folder / "private.yaml"
    text = (text or path.read_text()).replace(", clients_per_round: 2", "")
    path.write_text(text.replace("privacy: {noise_multiplier: 1.0, clip: 0.5}", privacy))


def _departures(state: Path) -> list[dict[str, object]]:
    words = [ATOLL, "egress", "show", str(state / "egress"), "--format", "json"]
    found = json.loads(subprocess.run(words, capture_output=True, check=True, text=True).stdout)
    return [line for line in found if line["tensors"]]


def _tells_nothing(state: Path) -> None:
    """A site's offer holds neither its numbers of rows nor its labels."""
    opening = _opened(state)
    assert '"train":0,"test":0,"labels":null' in opening


def _opened(state: Path) -> str:
    lines = (state / "egress" / "egress-0001.jsonl").read_text().splitlines()
    return next(json.loads(line)["text"] for line in lines if '"task":"opening"' in line)
