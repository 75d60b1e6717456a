"""What uploads give away, on a model whose rows are known: the acceptance figures of the audit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from atoll.audit.eye import Eye, eye_of
from atoll.audit.looking import Upload, looked, mean_of
from atoll.audit.server_view import views
from atoll.audit.sight import sights_of, spaces_of
from atoll.audit.trial import Trial, gradient_of, protected, trial_of
from atoll.config.privacy import Privacy
from atoll.experiment.setup import Setup
from atoll.local.bench import model_values
from atoll.models.objective import Example
from atoll.tree import Tree
from tests.unit.audit.worlds import CLIENTS, begun_values, world

LORA = {"r": 8, "target_modules": ["q_proj", "v_proj"]}


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Setup:
    return world(tmp_path_factory.mktemp("world"), adapter=LORA)


@pytest.fixture(scope="module")
def eye(setup: Setup) -> Eye:
    rows = setup.bench.examples("ada", "train")
    found = eye_of(setup, begun_values(setup), setup.all_held_out()[:32], probe=rows[:2])
    assert found is not None
    return found


def _trial(eye: Eye, rows: int) -> Trial:
    bench = eye.setup.bench
    chosen = {client: bench.examples(client, "train")[:rows] for client in CLIENTS}
    found = trial_of(eye.setup, eye.setup.loaded, eye.values, chosen)
    assert found is not None
    return found


def test_one_step_of_a_small_lora_gives_sixteen_tokens_away(eye: Eye) -> None:
    rows = eye.setup.bench.examples("ada", "train")[:4]
    assert [len(row) for row in rows] == [16] * 4
    uploads = [
        Upload(gradient_of(eye.setup.bench, eye.values, [r]), [r], inverted=True) for r in rows
    ]
    seen = mean_of(looked(eye, uploads))
    assert seen.tokens is not None
    assert seen.token_auc is not None
    assert seen.tokens >= 0.9
    assert seen.token_auc >= 0.95
    assert (seen.exact, seen.wrong, seen.true) == (15, 0, 15)
    assert seen.row_auc == 1.0
    assert seen.order == 1.0


def _step(eye: Eye) -> Callable[[Sequence[Example]], Tree]:
    return lambda rows: gradient_of(eye.setup.bench, eye.values, rows)


@pytest.mark.parametrize(("rank", "least", "most"), [(64, 0.9, 1.0), (8, 0.0, 0.3)])
def test_a_batch_is_put_in_order_where_ranks_are_as_many_as_its_tokens(
    tmp_path: Path, rank: int, least: float, most: float
) -> None:
    setup = world(tmp_path, adapter={**LORA, "r": rank}, words=9)
    rows = setup.bench.examples("ada", "train")[:4]
    assert sum(len(row) for row in rows) == 40
    eye = eye_of(setup, begun_values(setup), [], probe=rows[:2])
    assert eye is not None
    (seen,) = looked(eye, [Upload(_step(eye)(rows), rows, inverted=True)])
    assert seen.order is not None
    assert least <= seen.order <= most


def test_rows_that_are_hidden_before_they_leave_give_no_tokens_away(tmp_path: Path) -> None:
    setup = world(
        tmp_path, adapter=LORA, privacy={"unit": "example", "noise_multiplier": 1.0, "clip": 0.1}
    )
    values, rows = begun_values(setup), setup.bench.examples("ada", "train")[:1]
    eye = eye_of(setup, values, setup.all_held_out()[:32], probe=rows)
    assert eye is not None
    seen = []
    for hidden in (False, True):
        trial = trial_of(setup, setup.loaded, values, {"ada": rows}, hidden=hidden)
        assert trial is not None
        update = trial.payloads()["ada"]["update"].tree
        seen += looked(eye, [Upload(update, rows, inverted=True)])
    assert (seen[0].tokens, seen[0].order) == (1.0, 1.0)
    assert seen[1].tokens is not None
    assert seen[1].order is not None
    assert max(seen[1].tokens, seen[1].order) <= 0.2


def test_sums_give_less_away_and_noise_next_to_nothing(eye: Eye) -> None:
    private = Privacy(epsilon=8.0, delta=1e-5, clip=0.1)
    trial = _trial(eye, 2)
    found = views(eye, trial, _step(eye), protected(trial, private, rounds=1), batch=2)
    assert [view.name for view in found] == ["step", "batch", "client", "sum", "noisy"]
    assert [(view.clients, view.rows) for view in found] == [
        (1, 1), (1, 2), (1, 2), (4, 8), (4, 8),
    ]  # fmt: skip
    step, _, client, total, noisy = found
    found = [view.seen.tokens for view in (step, client, total, noisy)]
    assert all(value is not None for value in found)
    step_tokens, client_tokens, total_tokens, noisy_tokens = map(float, found)  # type: ignore[arg-type]
    assert step_tokens >= 0.9
    assert client_tokens > 0.3
    # Secure aggregation alone hides few of the tokens: still several times what guessing finds.
    assert step_tokens > client_tokens > total_tokens > 2 * float(total.seen.token_chance or 1)
    assert noisy_tokens < 0.5 * total_tokens
    assert noisy.seen.token_auc == pytest.approx(0.5, abs=0.12)
    # Eight rows against 32: chance alone deviates by 0.12.
    assert noisy.seen.row_auc == pytest.approx(0.5, abs=0.4)
    # Of a row of 16 tokens at each of four clients.
    *_, few = views(
        eye, one := _trial(eye, 1), _step(eye), protected(one, private, rounds=1), batch=1
    )
    assert few.seen.true == pytest.approx(60, abs=3)
    assert few.seen.tokens is not None
    assert few.seen.tokens <= 0.10


def test_before_the_first_step_b_tells_of_what_a_makes_of_tokens(setup: Setup, eye: Eye) -> None:
    values = model_values(setup.start.server)
    row = setup.bench.examples("bob", "train")[0].cut(6)
    update = gradient_of(setup.bench, values, [row])
    assert not any(bool(v.any()) for name, v in update.items() if "lora_A" in name)
    first = Eye(setup, values, eye.sights, eye.vocabulary, eye.others)
    (seen,) = looked(first, [Upload(update, [row])])
    # The last of six tokens predicts nothing, and reaches the update through no other.
    assert seen.tokens is not None
    assert seen.tokens >= 4 / 6
    assert seen.token_auc is not None
    assert seen.token_auc > 0.85


@pytest.mark.parametrize("tied", [False, True])
def test_a_full_model_gives_its_tokens_away(tmp_path: Path, tied: bool) -> None:
    setup = world(tmp_path, adapter={"method": "full", "r": 8, "target_modules": None})
    values, rows = model_values(setup.start.server), setup.bench.examples("cy", "train")
    eye = eye_of(setup, values, setup.all_held_out()[:16], probe=rows[:2])
    assert eye is not None
    update = gradient_of(setup.bench, values, rows[:1])
    if tied:
        # As of a model whose embedding also gives the logits: all of it moves.
        name = "model.embed_tokens.weight"
        update = {**update, name: update[name] + 1e-6}
    (seen,) = looked(eye, [Upload(update, rows[:1])])
    assert (seen.tokens, seen.exact, seen.wrong) == (1.0, 15, 0)


def _lora_inputs(setup: Setup, values: Tree, row: Example) -> torch.Tensor:
    """What layer 0 reads, by the model's own modules: the norm of the embeddings."""
    model = setup.base.backbone.model
    ids = torch.from_numpy(row.ids.astype("int64"))
    with torch.no_grad():
        found: torch.Tensor = model.layers[0].input_layernorm(model.embed_tokens(ids))
    return found


def test_the_gradient_of_a_is_a_sum_of_inputs(setup: Setup, eye: Eye) -> None:
    row = setup.bench.examples("dee", "train")[0]
    update = gradient_of(setup.bench, eye.values, [row])
    x = _lora_inputs(setup, eye.values, row)
    for name in eye.sights[0].modules:
        gradient = update[f"{name}.lora_A.weight"]
        # Rows of δᵀX: least squares on the inputs leaves nothing.
        weights = torch.linalg.lstsq(x.T.double(), gradient.T.double()).solution
        rest = (x.T.double() @ weights - gradient.T.double()).norm() / gradient.norm()
        assert float(rest) < 1e-4
    (space,) = spaces_of(setup.bench, update, eye.values, eye.sights[0])
    assert space.basis.shape == (128, 15)


def test_a_gradient_is_what_a_step_of_sgd_takes(setup: Setup, eye: Eye) -> None:
    trial = _trial(eye, 4)
    payloads = trial.payloads()
    rate = setup.experiment.train.learning_rate
    for client in CLIENTS:
        gradient = gradient_of(setup.bench, eye.values, trial.rows[client])
        for name, value in payloads[client]["update"].tree.items():
            torch.testing.assert_close(value, -rate * gradient[name], rtol=1e-3, atol=1e-6)


def test_layers_that_read_what_blocks_have_mixed_tell_of_rows_and_not_of_tokens(
    tmp_path: Path,
) -> None:
    setup = world(tmp_path, adapter={**LORA, "target_modules": r".*layers\.1.*(q_proj|v_proj)"})
    values, rows = begun_values(setup), setup.bench.examples("ada", "train")
    eye = eye_of(setup, values, setup.all_held_out()[:32], probe=rows[:2])
    assert eye is not None
    assert eye.vocabulary is None
    (seen,) = looked(eye, [Upload(gradient_of(setup.bench, values, rows[:1]), rows[:1])])
    assert seen.tokens is None
    assert seen.row_auc == 1.0


def test_where_no_linear_layer_trains_there_is_nothing_to_look_at(tmp_path: Path) -> None:
    setup = world(tmp_path, adapter={"method": "ia3", "r": 8, "target_modules": None})
    values, rows = model_values(setup.start.server), setup.bench.examples("ada", "train")
    batch = setup.bench.objective.collate(rows[:2])
    assert sights_of(setup.bench, values, batch, trained=values) == []
    assert eye_of(setup, values, rows[2:4], probe=rows[:2]) is None
