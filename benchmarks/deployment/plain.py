"""The same with Flower alone: its FedAvg, and an app that sends back what it got, plus one."""

from __future__ import annotations

from pathlib import Path

__all__ = ["write_app"]

PROJECT = """
[project]
name = "plain"
version = "1.0.0"
description = "FedAvg"
license = "Apache-2.0"
dependencies = ["flwr"]
[tool.flwr.app]
publisher = "bench"
[tool.flwr.app.components]
serverapp = "plain.server:app"
clientapp = "plain.client:app"
[tool.flwr.app.config]
values = {values}
rounds = {rounds}
clients = {clients}
out = "{out}"
"""
SERVER = """
import json, time
import numpy as np
from flwr.app import ArrayRecord, Array, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()

@app.main()
def main(grid: Grid, context: Context) -> None:
    c = context.run_config
    out = open(c["out"], "a")
    n = c["clients"]
    def told(number, arrays):
        print(json.dumps({"time": time.time(), "round": number}), file=out, flush=True)
    each, draw = c["values"] // 10, np.random.default_rng(0)
    layers = [draw.standard_normal(each, np.float32) for _ in range(10)]
    first = ArrayRecord({f"layer.{i}.weight": Array(one) for i, one in enumerate(layers)})

    strategy = FedAvg(fraction_train=1.0, fraction_evaluate=0.0, min_train_nodes=n,
                      min_available_nodes=n, min_evaluate_nodes=0)
    strategy.start(grid=grid, initial_arrays=first, num_rounds=c["rounds"], evaluate_fn=told)
    print(json.dumps({"time": time.time(), "round": "end"}), file=out, flush=True)
"""
CLIENT = """
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()

@app.train()
def train(message: Message, context: Context) -> Message:
    arrays, step = message.content["arrays"], context.node_id % 997
    new = ArrayRecord({name: Array(value.numpy() + step) for name, value in arrays.items()})
    metrics = MetricRecord({"num-examples": 1})
    return Message(RecordDict({"arrays": new, "metrics": metrics}), reply_to=message)
"""


def write_app(folder: Path, values: int, rounds: int, clients: int) -> Path:
    """The app's folder; its rounds are told in `folder`/rounds.jsonl."""
    app = folder / "app"
    (app / "plain").mkdir(parents=True)
    facts = {"values": values, "rounds": rounds, "clients": clients}
    text = PROJECT.format(**facts, out=folder / "rounds.jsonl")
    (app / "pyproject.toml").write_text(text)
    (app / "LICENSE").write_text("Apache-2.0")
    (app / "plain" / "__init__.py").write_text("")
    (app / "plain" / "server.py").write_text(SERVER)
    (app / "plain" / "client.py").write_text(CLIENT)
    return app
