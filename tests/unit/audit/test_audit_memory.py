"""What a model remembers: losses of rows that it was trained on, and of secrets among them."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from scipy.stats import norm

from atoll.accounting import Everyone, Release, spent
from atoll.audit.canaries import COPIES, exposed, planted, secrets_of
from atoll.audit.membership import drawn, losses_of, membership
from atoll.audit.trial import protected, trial_of
from atoll.config import load
from atoll.config.privacy import Privacy
from atoll.experiment.setup import Setup, prepare
from atoll.local.bench import model_values
from tests.support.plain import causal_loss
from tests.support.scenes import scene
from tests.unit.audit.worlds import CLIENTS, world

if TYPE_CHECKING:
    from tests.support.models import Zoo


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Setup:
    """A model that can learn a row by heart: rank, rate and steps are large."""
    return world(
        tmp_path_factory.mktemp("world"),
        adapter={"r": 16, "target_modules": "all-linear"},
        train={"optimizer": "adamw", "learning_rate": 0.01, "num_train_epochs": 4},
    )


def test_losses_are_those_of_the_model_row_by_row(setup: Setup) -> None:
    rows = setup.bench.examples("ada", "train")[:5]
    rows = [row.cut(length) for row, length in zip(rows, (16, 9, 4, 16, 12), strict=True)]
    loss = causal_loss(setup.base.backbone)
    with torch.no_grad():
        # B is zero: the model is the base model.
        expected = [float(loss(row)) / (len(row) - 1) for row in rows]
    found = losses_of(setup.bench, model_values(setup.start.server), rows)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_membership_of_planted_losses() -> None:
    # Quantiles of normal distributions, so that the figures are those of the formulas.
    grid = norm.ppf((np.arange(2000) + 0.5) / 2000)
    members, others = 1.0 + grid, 2.0 + grid
    found = membership(members, others, np.random.default_rng(1))
    # Φ(1/√2); and P[N(−1, 1) < the 1 % quantile of N(0, 1)] = Φ(−2.3263 + 1).
    assert found.auc.value == pytest.approx(0.7602, abs=1e-3)
    assert found.tpr is not None
    assert found.tpr.value == pytest.approx(0.0923, abs=2e-3)
    for told, truth in ((found.auc, 0.7602), (found.tpr, 0.0923)):
        assert told.interval is not None
        assert told.interval[0] < truth < told.interval[1]
    few = membership(members, others[:99], np.random.default_rng(1))
    assert few.tpr is None


@pytest.mark.long
def test_rows_that_were_trained_on_are_told_and_others_are_not(setup: Setup) -> None:
    rows = {client: setup.bench.examples(client, "train") for client in CLIENTS}
    start = model_values(setup.start.server)
    trial = trial_of(setup, setup.loaded, start, rows)
    assert trial is not None
    members = [row for own in rows.values() for row in own]
    others, after = setup.all_held_out(), trial.after(2)
    for values, low, high in ((after, 0.9, 1.0), (start, 0.3, 0.7)):
        losses = [losses_of(setup.bench, values, some) for some in (members, others)]
        found = membership(*losses, np.random.default_rng(0))
        assert low <= found.auc.value <= high
        assert (found.members, found.others) == (48, 48)


def test_rows_are_drawn_and_not_taken_from_the_beginning(setup: Setup) -> None:
    rows = setup.bench.examples("ada", "train")
    some = drawn(rows, 6, np.random.default_rng(0))
    assert len(some) == 6
    assert all(any(one is row for row in rows) for one in some)
    assert [id(row) for row in some] != [id(row) for row in rows[:6]]
    assert len(drawn(rows, 100, np.random.default_rng(0))) == len(rows)


def test_a_tokenizer_that_knows_no_digits_has_words_for_secrets(setup: Setup) -> None:
    secrets = secrets_of(setup, CLIENTS, others=50, draw=np.random.default_rng(0))
    assert secrets is not None
    every = [*secrets.others, *(one for own in secrets.planted.values() for one in own.values())]
    assert len({one.ids.tobytes() for one in every}) == 50 + len(CLIENTS) * len(COPIES)
    # Eight words of the vocabulary, and its end.
    assert {len(one) for one in every} == {9}


def _written(tmp_path: Path, zoo: Zoo) -> Setup:
    """A model over bytes that learns fast."""
    return scene(
        tmp_path, zoo, "llama",
        train={"learning_rate": 0.02, "num_train_epochs": 3},
        adapter={"r": 16},
    )  # fmt: skip


@pytest.mark.long
def test_a_secret_that_is_written_often_is_given_away_and_noise_hides_it(
    tmp_path: Path, zoo: Zoo
) -> None:
    setup = _written(tmp_path, zoo)
    clients = list(setup.data.clients)[:2]
    secrets = secrets_of(setup, clients, others=255, draw=np.random.default_rng(0))
    assert secrets is not None
    every = [*secrets.others, *(one for own in secrets.planted.values() for one in own.values())]
    assert len({one.ids.tobytes() for one in every}) == 255 + 2 * len(COPIES)
    assert all(not one.over for one in every)
    rows = planted({c: setup.bench.examples(c, "train")[:4] for c in clients}, secrets)
    for client, own in rows.items():
        for copies, secret in secrets.planted[client].items():
            assert sum(row is secret for row in own) == copies
    trial = trial_of(setup, setup.loaded, model_values(setup.start.server), rows)
    assert trial is not None
    plain = {one.copies: one for one in exposed(setup.bench, trial.after(4), secrets)}
    assert plain[4].bits > 6
    assert plain[4].bits > plain[0].bits
    assert plain[4].bits <= math.log2(256)
    privacy = Privacy(epsilon=8.0, delta=1e-5, clip=1.0)
    found = []
    for _ in range(5):
        # Noise of its own each time: one secret alone is beyond 3.5 bits in 9 of 100 by chance.
        after = protected(trial, privacy, rounds=4).after(4)
        found += [one.bits for one in exposed(setup.bench, after, secrets) if one.copies == 4]
    assert statistics.fmean(found) <= 3.5


def test_what_is_promised_for_the_noise_is_what_it_spends(setup: Setup) -> None:
    rows = {client: setup.bench.examples(client, "train")[:1] for client in CLIENTS}
    trial = trial_of(setup, setup.loaded, model_values(setup.start.server), rows)
    assert trial is not None
    values, privacy = model_values(trial.state), Privacy(epsilon=8.0, delta=1e-5, clip=0.5)
    moved = protected(trial, privacy, rounds=3).after(1)
    noise = torch.cat([(moved[n] - values[n]).flatten() for n in values]).double()
    # Four clients; three releases of everyone at ε = 8: the deviation that dp-accounting asks for.
    multiplier = float(noise.std()) * 4 / 0.5
    release = Release(unit="client", noise_multiplier=multiplier, sampling=Everyone(), steps=3)
    assert spent([release], 1e-5).epsilon == pytest.approx(8.0, rel=0.1)


@pytest.mark.long
def test_labels_at_random_are_secrets_of_a_classifier(tmp_path: Path, zoo: Zoo) -> None:
    setup = scene(
        tmp_path, zoo, "bert", adapter={"head": "train"}, model={"pooling": "mean"},
        train={"learning_rate": 0.02, "num_train_epochs": 6},
    )  # fmt: skip
    clients = list(setup.data.clients)[:2]
    secrets = secrets_of(setup, clients, others=200, draw=np.random.default_rng(0))
    assert secrets is not None
    labels = {int(one.target[0]) for one in secrets.others}
    assert len(labels) == len(setup.data.labels or ())
    rows = planted({c: setup.bench.examples(c, "train")[:2] for c in clients}, secrets)
    start = model_values(setup.start.server)
    trial = trial_of(setup, setup.loaded, start, rows)
    assert trial is not None
    found = {o.copies: o for o in exposed(setup.bench, trial.after(4), secrets, start)}
    assert found[4].bits > found[0].bits


@pytest.mark.parametrize("task", ["regression", "embedding", "preference"])
def test_other_tasks_have_no_form_for_secrets(tmp_path: Path, zoo: Zoo, task: str) -> None:
    rows = {
        "regression": {"text": "reef tide", "label": 0.5},
        "embedding": {"anchor": "reef", "positive": "tide"},
        "preference": {"prompt": "reef", "chosen": "tide", "rejected": "sand"},
    }[task]
    for client in ("ada", "bob"):
        (tmp_path / "data" / client).mkdir(parents=True)
        text = "".join(json.dumps(rows) + "\n" for _ in range(4))
        (tmp_path / "data" / client / "train.jsonl").write_text(text)
    kind = "llama" if task == "preference" else "bert-with-pooler"
    (tmp_path / "e.yaml").write_text(
        f"model: {{name_or_path: {zoo(kind)}, task: {task}}}\n"
        f"data: {{path: {tmp_path / 'data'}, max_length: 24}}\n"
        "train: {device: cpu}\n"
    )
    setup = prepare(load(tmp_path / "e.yaml"), note=lambda text: None)
    assert secrets_of(setup, ["ada"], others=5, draw=np.random.default_rng(0)) is None
