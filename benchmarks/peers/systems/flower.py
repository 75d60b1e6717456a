"""W1 in Flower's simulation: message API, FedAvg, one Ray worker for each core that may be used."""

import os

from flwr.app import ArrayRecord, ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

from benchmarks.peers.systems.flower_client import client_app
from benchmarks.peers.task import COHORT, POPULATION, bare_model, rounds
from benchmarks.peers.watch import mark

server_app = ServerApp()


class Marked(FedAvg):
    """FedAvg that notes when a round begins."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> object:
        mark("round")
        return super().configure_train(server_round, arrays, config, grid)


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    strategy = Marked(
        fraction_train=COHORT / POPULATION,
        fraction_evaluate=0.0,
        min_train_nodes=COHORT,
        min_available_nodes=POPULATION,
    )
    first = {name: value.detach() for name, value in bare_model().parameters.items()}
    result = strategy.start(grid=grid, initial_arrays=ArrayRecord(first), num_rounds=rounds())
    print("losses", [float(metrics["loss"]) for metrics in result.train_metrics_clientapp.values()])
    assert len(result.train_metrics_clientapp) == rounds(), "a round had no answers"
    mark("end")


if __name__ == "__main__":
    workers = len(os.sched_getaffinity(0))
    run_simulation(
        server_app=server_app,
        client_app=client_app,
        num_supernodes=POPULATION,
        backend_config={
            "init_args": {"num_cpus": workers},
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
        },
    )
