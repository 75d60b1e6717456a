"""FLTrust against its formula, and what it says of a root set that cannot be used."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from atoll.algorithms.fltrust import fltrust
from atoll.core import Algorithm, Context, Payload, State
from atoll.errors import ConfigError, DataError
from atoll.local.bench import Bench
from atoll.models.objective import Example
from tests.equivalence.regression import OBJECTIVE, Regression, Rows, sgd, uneven_rows
from tests.support.folds import seeded_reply

RATE = 0.1
PROBLEM = Regression(
    uneven_rows(), sgd(learning_rate=RATE, per_device_train_batch_size=2, num_train_epochs=2)
)


def root_rows() -> Rows:
    """Five rows near to what client ada holds."""
    draw = torch.Generator().manual_seed(21)
    x, y = PROBLEM.rows["ada"]
    chosen = torch.arange(5)
    return x[chosen] + 0.1 * torch.randn(5, 3, generator=draw, dtype=torch.float64), y[chosen]


def encode(rows: object) -> list[Example]:
    assert isinstance(rows, list)
    numbers = [[np.array([float(v) for v in row[key].split()]) for key in ("text", "label")]
               for row in rows]  # fmt: skip
    return [Example(x, y) for x, y in numbers]


def written(path: Path, rows: Rows) -> str:
    lines = [
        json.dumps({"text": " ".join(map(repr, x)), "label": " ".join(map(repr, y))})
        for x, y in zip(rows[0].tolist(), rows[1].tolist(), strict=True)
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def trusting(root: str, learning_rate: float = 1.0) -> Algorithm:
    return _on(PROBLEM.bench, root, learning_rate)


def _on(bench: Bench, root: str, learning_rate: float = 1.0) -> Algorithm:
    bench = replace(bench, objective=replace(OBJECTIVE, encode=encode))
    return fltrust(bench, root=root, learning_rate=learning_rate)


def local_update(problem: Regression, client: str, number: int, start: Tensor) -> Tensor:
    point = start
    for gradient in problem.gradients(client, number):
        point = point - RATE * gradient(point)
    return point - start


@pytest.mark.parametrize("learning_rate", [1.0, 0.5])
@pytest.mark.parametrize("cohort", [4, 2])
def test_fltrust(cohort: int, learning_rate: float, tmp_path: Path) -> None:
    """Algorithm 2: g = Σ T_k·(‖g_0‖/‖g_k‖)·g_k / Σ T_k with T_k = max(0, cos(g_k, g_0))."""
    root = written(tmp_path / "root.jsonl", root_rows())
    with_root = replace(PROBLEM, rows={**PROBLEM.rows, "": root_rows()})
    w, left_out = PROBLEM.start(), 0
    for report, found in PROBLEM.run(
        lambda bench: _on(bench, root, learning_rate), rounds=4, cohort=cohort
    ):
        own = local_update(with_root, "", report.round, w)
        total, trusts = torch.zeros_like(w), 0.0
        for client in report.exchanges[0].cohort:
            update = local_update(PROBLEM, client, report.round, w)
            cosine = float((own * update).sum() / (own.norm() * update.norm()))
            total += max(0.0, cosine) * own.norm() / update.norm() * update
            trusts += max(0.0, cosine)
            left_out += cosine < 0
        w = w + learning_rate * total / trusts if trusts else w
        torch.testing.assert_close(found, w, rtol=1e-11, atol=1e-11)
    assert left_out > 0


def applied(algorithm: Algorithm, updates: list[Tensor], state: State | None = None) -> State:
    """The state after one exchange in which clients sent these matrices."""
    like = algorithm.client.template(algorithm.server.broadcast(_start(algorithm), ""))
    fold = algorithm.aggregator.init(like)
    for matrix in updates:
        tree = {"layer.weight": matrix[:, :-1].clone(), "layer.bias": matrix[:, -1].clone()}
        payload: Payload = {**like, "update": like["update"].with_tree(tree)}
        fold = algorithm.aggregator.add(fold, {**payload, "weight": seeded_reply(0)["weight"]})
    context = Context(3, "regression", 1, 0, (), 4)
    return algorithm.server.apply(
        context, state or _start(algorithm), algorithm.aggregator.finish(fold)
    )


def _start(algorithm: Algorithm) -> State:
    start = PROBLEM.start()
    tree = {"layer.weight": start[:, :-1].clone(), "layer.bias": start[:, -1].clone()}
    return algorithm.server.init({"adapter": tree})


def test_whom_nobody_trusts_moves_nothing(tmp_path: Path) -> None:
    algorithm = trusting(written(tmp_path / "root.jsonl", root_rows()))
    with_root = replace(PROBLEM, rows={"": root_rows()})
    own = local_update(with_root, "", 1, PROBLEM.start())
    start = _start(algorithm)["adapter"]
    for updates in ([], [-own], [-own, torch.zeros_like(own)], [-5 * own, -own]):
        found = applied(algorithm, updates)["adapter"]
        torch.testing.assert_close(found, start, rtol=0, atol=0)


def test_an_update_is_never_longer_than_the_roots(tmp_path: Path) -> None:
    algorithm = trusting(written(tmp_path / "root.jsonl", root_rows()))
    with_root = replace(PROBLEM, rows={"": root_rows()})
    own = local_update(with_root, "", 1, PROBLEM.start())
    for updates in ([1e30 * own], [1e-30 * own, -own], [own, 1e6 * own, float("nan") * own]):
        moved = PROBLEM.matrix(applied(algorithm, updates)["adapter"]) - PROBLEM.start()
        torch.testing.assert_close(moved, own, rtol=1e-9, atol=1e-12)


def test_a_root_set_is_looked_at_before_the_first_round(tmp_path: Path) -> None:
    missing = trusting(str(tmp_path / "root.jsonl"))
    with pytest.raises(ConfigError, match=r"algorithm 'fltrust': there is no file .*root\.jsonl"):
        missing.server.ready()
    trusting(written(tmp_path / "root.jsonl", root_rows())).server.ready()
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(DataError, match=r"empty\.jsonl: no rows"):
        trusting(str(tmp_path / "empty.jsonl")).server.ready()
    (tmp_path / "other.jsonl").write_text('{"text": "1 2 3"}\n')
    with pytest.raises(DataError, match=r"do not fit the federation's \('label'\)"):
        trusting(str(tmp_path / "other.jsonl")).server.ready()


def test_a_root_set_stays_the_same_for_a_run(tmp_path: Path) -> None:
    root = written(tmp_path / "root.jsonl", root_rows())
    updates = [torch.ones(2, 4, dtype=torch.float64)]
    state = applied(trusting(root), updates)
    applied(trusting(root), updates, state)
    with Path(root).open("a", encoding="utf-8") as file:
        file.write('{"text": "1 2 3", "label": "0 0"}\n')
    with pytest.raises(DataError, match="is not the file that this run began with"):
        applied(trusting(root), updates, state)


def test_a_root_set_that_teaches_nothing(tmp_path: Path) -> None:
    """Where the start predicts every row already."""
    start = PROBLEM.start()
    zero = (torch.zeros(2, 3, dtype=torch.float64), start[:, -1].repeat(2, 1))
    with pytest.raises(DataError, match=r"root\.jsonl changes nothing, so no client can be told"):
        applied(trusting(written(tmp_path / "root.jsonl", zero)), [torch.ones_like(start)])


def test_training_that_fails_on_the_root_set_is_told(tmp_path: Path) -> None:
    far = (torch.full((1, 3), 1e40, dtype=torch.float64), torch.zeros(1, 2).double())
    with pytest.raises(DataError, match=r"clean rows of .*root\.jsonl led too far to be measured"):
        applied(trusting(written(tmp_path / "root.jsonl", far)), [torch.ones(2, 4).double()])
    huge = (torch.full((1, 3), 1e200, dtype=torch.float64), torch.zeros(1, 2).double())
    with pytest.raises(DataError, match=r"clean rows of .*root\.jsonl failed: its training loss"):
        applied(trusting(written(tmp_path / "root.jsonl", huge)), [torch.ones(2, 4).double()])
