"""Heads solved on the features of a real model: what the head reads, computed once."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch import Tensor

from atoll.adapters.stacked import StackedModel
from atoll.algorithms.heads.fed3r import fed3r
from atoll.core import Channel, Request, State
from atoll.local.features import feature_cache
from atoll.local.infer import evaluate
from atoll.local.statistics import head_shapes
from tests.support.federation import LABELS, Site, labelled_rows, site, stir
from tests.support.heads import exchange
from tests.support.models import Zoo

CLIENTS = {"ada": 30, "bob": 12, "cy": 18}


def _site(zoo: Zoo) -> tuple[Site, State]:
    there = site(zoo, rows=labelled_rows(CLIENTS), dtype="float32", train_head=False)
    values = stir(there.values, 1)
    head = {n: v for n, v in values.items() if n.startswith("classifier.")}
    adapter = {n: v for n, v in values.items() if n not in head}
    return there, {"adapter": adapter, "head": head}


def _features(there: Site, state: State) -> tuple[np.ndarray, np.ndarray]:
    """W + s·B·A in the weights, mean over each unpadded row."""
    there.built.model.close()
    backbone, prefix = there.base.backbone, there.base.prefix
    for name, a in state["adapter"].items():
        if name.endswith("lora_A.weight"):
            module = name.removesuffix(".lora_A.weight")
            layer = backbone.get_submodule(module.removeprefix(prefix))
            layer.weight.data += 2.0 * state["adapter"][f"{module}.lora_B.weight"] @ a
    rows = [x for client in CLIENTS for x in there.bench.examples(client, "train")]
    found = [
        backbone(input_ids=torch.tensor(x.ids.tolist()).unsqueeze(0)).last_hidden_state[0].mean(0)
        for x in rows
    ]
    return torch.stack(found).detach().double().numpy(), np.array([x.target[0] for x in rows])


def test_a_ridge_head_on_bert_is_scikit_learns(zoo: Zoo) -> None:
    there, state = _site(zoo)
    clients = dict.fromkeys(CLIENTS, (torch.zeros(0), torch.zeros(0)))
    algorithm = fed3r(there.bench, feature_cache(there.bench), penalty=2.0, scale=1.0)
    state = exchange(algorithm, state, clients)
    values = state["adapter"] | state["head"]
    rows = [x for client in CLIENTS for x in there.bench.examples(client, "train")]
    score = evaluate(there.bench, values, rows)
    x, y = _features(there, state)
    expected = Ridge(alpha=2.0).fit(x, np.eye(len(LABELS))[y])
    np.testing.assert_allclose(
        state["head"]["classifier.weight"], expected.coef_, rtol=1e-3, atol=2e-4
    )
    np.testing.assert_allclose(
        state["head"]["classifier.bias"], expected.intercept_, rtol=1e-3, atol=2e-4
    )
    right = (expected.predict(x).argmax(1) == y).sum()
    assert score.sums[0] == pytest.approx(right, abs=1)
    assert score.sums[0] / score.count > 0.4


def test_features_are_computed_once_for_each_representation(
    zoo: Zoo, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, state = _site(zoo)
    passes = 0
    forward = StackedModel.forward

    def counted(self: StackedModel, *args: object) -> Tensor:
        nonlocal passes
        passes += 1
        return forward(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(StackedModel, "forward", counted)
    labelled = feature_cache(there.bench)

    def ask(client: str, adapter: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        context = there.requests(clients=[client])[0].context
        payload = {"adapter": Channel(dict(adapter)), "head": Channel(state["head"])}
        return labelled(Request(context, payload))

    first, y = ask("ada", state["adapter"])
    assert passes == 1
    assert first.shape == (30, head_shapes(there.bench).columns)
    assert (first[:, -1] == 1).all()
    assert y.tolist() == [int(x.target[0]) for x in there.bench.examples("ada", "train")]
    again, _ = ask("ada", state["adapter"])
    assert passes == 1
    assert torch.equal(first, again)
    other, _ = ask("bob", state["adapter"])
    assert passes == 2
    assert other.shape[0] == 12
    changed, _ = ask("ada", stir(state["adapter"], 7))
    assert passes == 3
    assert not torch.allclose(changed, first)
