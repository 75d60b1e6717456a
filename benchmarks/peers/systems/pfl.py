"""W1 in pfl-research, in one process."""

import random

import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.pytorch import PyTorchTensorDataset
from pfl.hyperparam.base import NNEvalHyperParams, NNTrainHyperParams
from pfl.metrics import Metrics, Weighted
from pfl.model.pytorch import PyTorchModel
from torch import Tensor, nn

from benchmarks.peers.task import BATCH, COHORT, POPULATION, RATE, bare_model, rounds, rows
from benchmarks.peers.watch import mark


class Task(nn.Module):
    """The model with the two functions that pfl asks for."""

    def __init__(self) -> None:
        super().__init__()
        self.bare = bare_model()
        self.model = self.bare.model

    def loss(self, ids: Tensor, labels: Tensor, eval: bool = False) -> Tensor:
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        return self.bare.loss(inputs, labels.unsqueeze(1))

    def metrics(self, ids: Tensor, labels: Tensor, eval: bool = False) -> dict:
        with torch.no_grad():
            return {"loss": Weighted(float(self.loss(ids, labels)) * len(ids), len(ids))}


class Marks(TrainingProcessCallback):
    def on_train_begin(self, *, model: PyTorchModel) -> Metrics:
        mark("round")
        return Metrics()

    def after_central_iteration(
        self, aggregate_metrics: Metrics, model: PyTorchModel, *, central_iteration: int
    ) -> tuple[bool, Metrics]:
        mark("round" if central_iteration + 1 < rounds() else "end")
        return False, Metrics()


def main() -> None:
    torch.set_num_threads(1)
    task = Task()
    trained = list(task.bare.parameters.values())
    model = PyTorchModel(
        model=task,
        local_optimizer_create=lambda parameters, lr: torch.optim.AdamW(
            trained, lr=lr, weight_decay=0.0
        ),
        central_optimizer=torch.optim.SGD(trained, lr=1.0),
    )
    data = FederatedDataset(
        lambda user: PyTorchTensorDataset(rows(user), user_id=str(user)),
        lambda: random.randrange(POPULATION),
    )
    algorithm = FederatedAveraging()
    algorithm.run(
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=rounds(),
            evaluation_frequency=10**9,  # only before the first round
            train_cohort_size=COHORT,
            val_cohort_size=0,
        ),
        backend=SimulatedBackend(training_data=data, val_data=None),
        model=model,
        model_train_params=NNTrainHyperParams(
            local_num_epochs=1, local_learning_rate=RATE, local_batch_size=BATCH
        ),
        model_eval_params=NNEvalHyperParams(local_batch_size=None),
        callbacks=[Marks()],
    )


if __name__ == "__main__":
    main()
