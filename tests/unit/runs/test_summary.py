"""summary.json's numbers against numbers worked out by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from atoll.data import ClientCount
from atoll.experiment.setup import Setup
from atoll.experiment.standing import standing
from atoll.local.infer import Rows
from atoll.runs.compare import Arm, Comparison, Sums
from atoll.runs.lines import RoundLine
from atoll.runs.run import run_experiment
from atoll.runs.summary import summarize
from atoll.runs.where import Observer
from tests.support.models import Zoo
from tests.support.scenes import scene

LINE = RoundLine(
    round=0, loss=None, metric=None, own=None, bytes_up=0, bytes_down=0, exchanges=0, clients=0,
    failures={}, seconds=0.1,
)  # fmt: skip


def line(**values: Any) -> RoundLine:
    return RoundLine(**{**vars(LINE), **values})


LINES = [
    line(exchanges=2, bytes_up=100, bytes_down=1000),
    line(round=1, bytes_up=30, bytes_down=300),
    line(round=2, exchanges=1, bytes_up=7, bytes_down=70),
]


def answers(right: int, rows: int) -> Rows:
    """Scores of a classification (predicted, given): so many right ones, then wrong ones."""
    found = [[0, 0]] * right + [[1, 0]] * (rows - right)
    return Rows(torch.tensor(found).view(-1, 2), torch.ones(rows))


def comparison(own: Mapping[str, Rows], **arms: Arm) -> Comparison:
    return Comparison(Arm((answers(3, 4),), own), **arms)


def test_accuracy(tmp_path: Path, zoo: Zoo) -> None:
    setup = scene(tmp_path, zoo, model={"pooling": "mean"}, adapter={"r": 2, "head": "ridge"})
    own = {"ada": answers(3, 4), "bob": answers(0, 1), "cy": answers(0, 0),
           "dee": answers(5, 5), "eve": answers(1, 2)}  # fmt: skip
    # One local model a client: 0.25 and 0.5 on the common rows.
    local = Arm((answers(1, 4), answers(2, 4)), {"ada": answers(4, 4), "dee": answers(0, 5)})
    found = summarize(setup, comparison(own, local=local), lines=LINES, seconds=1.23456)
    assert found["task"] == "classification"
    assert found["metric"] == "accuracy"
    assert found["final"] == 0.75
    assert found["baselines"] == {"local": 0.375, "pooled": None}
    # Three rows of a class and one that is taken for another, whose F1 is 0.
    assert found["metrics"]["federated"] == {"accuracy": 0.75, "macro_f1": 3 / 7}
    assert found["higher_is_better"] is True
    spread = math.sqrt(sum((x - 0.5625) ** 2 for x in (0.75, 0.0, 1.0, 0.5)) / 4)
    assert found["own"] == {
        "federated": {
            "mean": 9 / 12,
            "worst": 0.0,
            "worst_decile": 0.0,
            "spread": pytest.approx(spread),
        },
        "local": {"mean": 4 / 9, "worst": 0.0, "worst_decile": 0.0, "spread": 0.5},
        "pooled": None,
    }
    assert (found["num_rounds"], found["exchanges"]) == (2, 3)
    assert (found["bytes_up"], found["bytes_down"]) == (137, 1370)
    assert found["seconds"] == 1.235
    assert (found["epsilon"], found["delta"]) == (None, None)
    clients = found["per_client"]
    assert list(clients) == ["ada", "bob", "cy", "dee", "eve"]
    assert clients["ada"] == {
        "train": 7,
        "test": 2,
        "federated": 0.75,
        "local": 1.0,
        "gain": -0.25,
        "gain_interval": clients["ada"]["gain_interval"],
    }
    low, high = clients["ada"]["gain_interval"]
    assert low == -0.75 <= high == 0.0, "of four rows, none to three of the drawn ones are wrong"
    assert clients["dee"]["gain_interval"] == (1.0, 1.0)
    assert clients["cy"] == {"train": 11, "test": 2, "federated": None, "local": None}
    assert clients["eve"]["local"] is None


def test_perplexity(tmp_path: Path, zoo: Zoo) -> None:
    """Scores are negative log-likelihoods of tokens; the worst client has the largest one."""
    setup = scene(tmp_path, zoo, "gpt2")

    def told(loss: float, tokens: int) -> Rows:
        return Rows(torch.tensor([[loss, 0, 0, 1]]), torch.tensor([tokens]))

    own = {"ada": told(10.0, 10), "bob": told(90.0, 30)}
    found = summarize(setup, Comparison(Arm((), own)), lines=[], seconds=0.0)
    assert found["metric"] == "perplexity"
    assert found["final"] is None
    assert found["higher_is_better"] is False
    values = [math.e, math.e**3]
    assert found["own"]["federated"] == {
        "mean": pytest.approx(math.exp(100 / 40)),
        "worst": pytest.approx(values[1]),
        "worst_decile": pytest.approx(values[1]),
        "spread": pytest.approx((values[1] - values[0]) / 2),
    }
    assert found["num_rounds"] == 0


def test_no_client_has_held_out_rows(tmp_path: Path, zoo: Zoo) -> None:
    setup = scene(tmp_path, zoo)
    found = summarize(setup, comparison({"ada": answers(0, 0)}), lines=[], seconds=0.0)
    assert found["own"]["federated"] == dict.fromkeys(("mean", "worst", "worst_decile", "spread"))


# BERT of the zoo: 2 layers of width 32, 4 labels; query and value are 32 to 32.
LORA = 2 * 2 * 3 * (32 + 32)


@pytest.mark.parametrize(
    ("adapter", "expected"),
    [
        ({"r": 3, "target_modules": ["query", "value"], "head": "ridge"}, LORA),
        ({"r": 3, "target_modules": ["query", "value"], "head": "train"}, LORA + 4 * 32 + 4),
        ({"method": "none", "head": "ridge"}, 0),
        ({"method": "none", "head": "train"}, 4 * 32 + 4),
    ],
)
def test_trainable_parameters(
    adapter: Mapping[str, Any], expected: int, tmp_path: Path, zoo: Zoo
) -> None:
    setup = scene(tmp_path, zoo, model={"pooling": "mean"}, adapter=adapter)
    found = summarize(setup, comparison({}), lines=[], seconds=0.0)
    assert found["trainable_parameters"] == expected


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, zoo: Zoo) -> tuple[Setup, Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ran")
    setup = scene(
        folder, zoo, model={"pooling": "mean"},
        adapter={"r": 2, "target_modules": ["query"], "head": "ridge", "refit_every": 2},
        federation={"num_rounds": 3, "clients_per_round": 2},
    )  # fmt: skip
    summary = run_experiment(setup, folder / "run", Observer())
    return setup, folder / "run", summary


def test_a_run_adds_up(ran: tuple[Setup, Path, dict[str, Any]]) -> None:
    _, folder, summary = ran
    written = json.loads((folder / "summary.json").read_text())
    assert written == json.loads(json.dumps(summary))
    lines = [json.loads(text) for text in (folder / "rounds.jsonl").read_text().splitlines()]
    assert [each["round"] for each in lines] == [0, 1, 2, 3]
    for name in ("bytes_up", "bytes_down", "exchanges"):
        assert sum(each[name] for each in lines) == summary[name]
    # The head is solved before the first round, after the second and after the last.
    assert [each["exchanges"] > 0 for each in lines] == [True, False, True, True]
    assert [each["clients"] for each in lines] == [0, 2, 2, 2]
    clients = [json.loads(text) for text in (folder / "clients.jsonl").read_text().splitlines()]
    assert {each.pop("client"): each for each in clients} == written["per_client"]
    # Without a common test set, `final` is the metric over all clients' own rows.
    rows = {name: each["test"] for name, each in written["per_client"].items()}
    right = sum(each["federated"] * each["test"] for each in written["per_client"].values())
    assert summary["final"] == pytest.approx(right / sum(rows.values()))
    assert summary["final"] == summary["own"]["federated"]["mean"]
    assert {"local", "pooled"} == {k for k, v in summary["baselines"].items() if v is not None}
    resolved = (folder / "experiment.yaml").read_text()
    assert standing(folder, resolved).summary == written


def test_bytes_of_a_round_are_those_of_its_tensors(
    ran: tuple[Setup, Path, dict[str, Any]],
) -> None:
    _, folder, _ = ran
    lines = [json.loads(text) for text in (folder / "rounds.jsonl").read_text().splitlines()]
    # Round 1: two clients send LoRA (2 layers, r 2) and three numbers; five are evaluated.
    adapter, head = 2 * 2 * (32 + 32) * 4, (4 * 32 + 4) * 4
    assert lines[1]["bytes_up"] == 2 * (adapter + 3 * 4) + 5 * (1 + 1 + 3 * 4) * 4
    sent = lines[1]["bytes_down"]
    assert sent >= (2 + 5) * (adapter + head)


def test_scores_that_came_from_elsewhere_have_no_intervals(tmp_path: Path, zoo: Zoo) -> None:
    """Of a federation across machines only sums are here; `fay` joined after the setup."""
    setup = scene(tmp_path, zoo, model={"pooling": "mean"}, adapter={"r": 2, "head": "ridge"})
    metric = setup.bench.objective.metric
    own = {"ada": answers(3, 4), "fay": answers(1, 2)}
    there = {name: Sums(rows.score(metric)) for name, rows in own.items()}
    local = {name: Sums(answers(1, 2).score(metric)) for name in own}
    whole = Sums(answers(4, 6).score(metric))
    arms = Comparison(
        Arm((whole,), there), Arm((whole,), local), joined={"fay": ClientCount(7, 2, 1)}
    )
    found = summarize(setup, arms, lines=LINES, seconds=1.0)
    assert found["final"] == pytest.approx(4 / 6)
    assert found["intervals"] is None
    assert found["per_client"]["fay"] == {
        "train": 7, "test": 2, "federated": 0.5, "local": 0.5, "gain": 0.0, "gain_interval": None,
    }  # fmt: skip
    assert found["per_client"]["ada"]["gain"] == 0.25
    assert "gain" not in found["per_client"]["bob"]
