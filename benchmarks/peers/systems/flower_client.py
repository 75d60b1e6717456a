"""What a client of the Flower run does: a module that Ray's workers can import."""

from functools import cache

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from benchmarks.overhead.bare import BareModel, train_client
from benchmarks.peers.task import RATE, bare_model, batches

client_app = ClientApp()


@cache
def _model() -> BareModel:
    """Loaded once in each worker process."""
    torch.set_num_threads(1)
    return bare_model()


@client_app.train()
def train(message: Message, context: Context) -> Message:
    model, client = _model(), batches(int(context.node_config["partition-id"]))
    received = message.content["arrays"].to_torch_state_dict()
    with torch.no_grad():
        for name, value in model.parameters.items():
            value.copy_(received[name])
    loss = train_client(model, client, lr=RATE)
    arrays = ArrayRecord({name: value.detach() for name, value in model.parameters.items()})
    metrics = MetricRecord({"loss": loss, "num-examples": len(client.target)})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)
