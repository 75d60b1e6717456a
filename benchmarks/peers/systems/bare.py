"""W1 as a loop by hand."""

import random

import torch

from benchmarks.overhead.bare import federated_round
from benchmarks.peers.task import COHORT, POPULATION, RATE, bare_model, batches, rounds
from benchmarks.peers.watch import mark


def main() -> None:
    torch.set_num_threads(1)
    model = bare_model()
    values = {name: value.detach().clone() for name, value in model.parameters.items()}
    for _ in range(rounds()):
        mark("round")
        cohort = [batches(client) for client in random.sample(range(POPULATION), COHORT)]
        update, losses = federated_round(model, cohort, values, lr=RATE)
        values = {name: value + update[name] for name, value in values.items()}
        print("loss", sum(losses) / len(losses))
    mark("end")


if __name__ == "__main__":
    main()
