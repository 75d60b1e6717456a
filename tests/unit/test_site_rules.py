"""What a site holds a server to, between machines: its rules, its base model and its ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

import pytest
from dp_accounting.gaussian_mechanism import get_epsilon_gaussian

from atoll.core import Failure, Reply
from atoll.egress.read import read as recorded
from atoll.experiment import joining
from atoll.experiment.local_arm import LOCAL
from atoll.experiment.terms import Offer
from atoll.frames import Frame, Kind
from atoll.ledger import verified
from atoll.noise import Vault
from atoll.policy import Policy
from atoll.policy.schema import Privacy as Rules
from atoll.protection.parties import simulated
from atoll.runtimes.messages import Broken, read
from tests.support.letters import FULL, POLICY, Server
from tests.support.models import Zoo

NOISE = {"noise_multiplier": 2.0, "clip": 0.5, "sampling": "everyone"}
Make = Callable[..., Server]


@pytest.fixture
def made(tmp_path: Path, zoo: Zoo) -> Iterator[Make]:
    with ExitStack() as open_records:

        def make(
            policy: Policy = POLICY, privacy: Mapping[str, object] | None = None,
            note: Callable[[str], None] = lambda text: None, *, full: bool = False,
        ) -> Server:  # fmt: skip
            adapter = {"adapter": FULL} if full else {}
            server = Server(tmp_path, zoo, note, policy=policy, privacy=privacy, **adapter)
            open_records.enter_context(server.egress)
            return server

        yield make


def _why(frame: Frame) -> str:
    assert frame.kind is Kind.BROKEN
    return read(Broken, frame.data).message


def _epsilon(releases: int) -> float:
    return float(get_epsilon_gaussian(2.0 / releases**0.5, 1e-5))


def _sent(server: Server) -> list[str]:
    return [line.task for line in recorded(server.record, []) if line.kind == "sent"]


def test_what_a_private_run_spends_is_on_the_disk_before_anything_trains(
    made: Make, tmp_path: Path
) -> None:
    found: list[float | None] = []

    def note(text: str) -> None:
        # Said when the question was taken, and before anything is done.
        if text == "round 1: train":
            found.extend(line.epsilon for line in verified(tmp_path / "state" / "privacy").lines)

    server = made(privacy=NOISE, note=note)
    setup = server.agrees()
    assert isinstance(server.trains(setup, 1), Reply)
    # All three rounds, from the first question on.
    assert found == pytest.approx([_epsilon(3)] * 2)
    (left,) = [one for one in recorded(server.record, []) if one.kind == "sent" and one.round == 1]
    assert left.privacy is not None
    assert left.privacy.epsilon == pytest.approx(_epsilon(3))


@pytest.mark.parametrize(
    ("rules", "privacy", "why"),
    [
        ({}, None, "this site asks for differential privacy, and the run has no privacy section"),
        ({"max_clip": 0.4}, NOISE, "the run cuts updates to 0.5; this site asks for 0.4 at most"),
        ({"min_noise_multiplier": 2.5}, NOISE, "noise multiplier is 2; this site asks for 2.5"),
    ],
)
def test_a_run_that_promises_too_little_is_refused_at_the_first_look(
    made: Make, rules: dict[str, float], privacy: dict[str, object] | None, why: str
) -> None:
    policy = POLICY.model_copy(update={"privacy": Rules(required=True, **rules)})
    assert why in _why(made(policy, privacy).opens("look", None))


def test_what_a_private_run_is_offered_tells_nothing_of_rows(made: Make) -> None:
    offer = read(Offer, made(privacy=NOISE).opens("look", None).data)
    assert (offer.train, offer.test, offer.labels) == (0, 0, None)
    assert (offer.moments, offer.label_counts) == (None, None)


def test_a_private_run_asks_for_training_alone(made: Make) -> None:
    server = made(privacy=NOISE)
    setup = server.agrees()
    told = server.trains(setup, 1, task=LOCAL)
    assert isinstance(told, Failure)
    assert "a private run asks for training alone, not" in told.message
    assert _sent(server)[-1] == "failure"


def test_a_run_that_its_life_does_not_hold_is_refused_when_it_opens(made: Make) -> None:
    rules = Rules(required=True, lifetime_epsilon=_epsilon(3) - 0.01)
    server = made(POLICY.model_copy(update={"privacy": rules}), NOISE)
    server.looks()
    assert "all runs here spend epsilon" in _why(server.opens("join", server.told))


def test_a_round_that_its_life_does_not_hold_is_not_trained(made: Make) -> None:
    rules = Rules(required=True, lifetime_epsilon=_epsilon(3) + 0.01)
    server = made(POLICY.model_copy(update={"privacy": rules}), NOISE)
    setup = server.agrees()
    told = server.trains(setup, 4)
    assert isinstance(told, Failure)
    assert "round 4 is asked for, and the run has 3" in told.message


def test_noise_that_the_file_promises_and_the_server_does_not_tell_is_refused(made: Make) -> None:
    server = made(privacy=NOISE)
    server.looks()
    frame = server.opens("join", server.told.model_copy(update={"private": None}))
    assert "do not say the same of privacy" in _why(frame)


def test_other_weights_than_the_servers_are_not_trained(made: Make) -> None:
    server = made()
    server.looks()
    frame = server.opens("join", server.told.model_copy(update={"base": 64 * "0"}))
    assert "other weights than the server's" in _why(frame)


def test_weights_that_the_site_does_not_list_are_not_trained(made: Make) -> None:
    server = made(POLICY.model_copy(update={"base_models": (64 * "0",)}))
    server.looks()
    why = _why(server.opens("join", server.told))
    assert why.startswith("policy rule 'base_models': the base model's weights have")


def test_outside_of_its_hours_a_site_does_not_train(made: Make) -> None:
    hour = datetime.now().hour
    window = f"{(hour + 2) % 24:02}:00-{(hour + 2) % 24:02}:59"
    server = made(POLICY.model_copy(update={"hours": (window,)}))
    told = server.trains(server.agrees(), 1)
    assert isinstance(told, Failure)
    assert told.message.startswith(f"policy rule 'hours': training may run in {window}")


def test_an_answer_that_breaks_a_rule_stays_at_the_site(made: Make) -> None:
    server = made(POLICY.model_copy(update={"max_payload": 1000}))
    told = server.trains(server.agrees(), 1)
    assert isinstance(told, Failure)
    assert told.message.startswith("policy rule 'max_payload': the reply has ")
    assert _sent(server)[-1] == "failure"


SECURE = {"secure_aggregation": True, "min_survivors": 3, "corrupt": 0.0, "dropping": 0.0}


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A site that signs with keys of its own making, beside two others."""
    parties = simulated(("ada", "bo", "cy"), Vault())
    monkeypatch.setattr(joining, "own_claim", lambda keys: None)
    monkeypatch.setattr(joining, "site_parties", lambda keys, roster, run: parties)
    monkeypatch.setattr("atoll.experiment.setup.check_cohort", lambda loaded, data: None)


@pytest.mark.usefixtures("alone")
def test_what_is_masked_is_held_to_the_rule_of_tensors_when_it_joins(made: Make) -> None:
    server = made(POLICY.model_copy(update={"tensors": ("heads",)}), SECURE)
    server.looks()
    why = _why(server.opens("join", server.told))
    assert why.startswith("policy rule 'tensors': channel 'update' holds ")


@pytest.mark.usefixtures("alone")
def test_a_sum_of_too_few_is_not_taken_part_in(made: Make) -> None:
    server = made(POLICY.model_copy(update={"min_cohort": 2}), SECURE)
    told = server.trains(server.agrees(), 1)
    assert isinstance(told, Failure)
    assert told.message == (
        "policy rule 'min_cohort': secure aggregation would hide this site among 1 clients; it "
        "asks for 2"
    )
