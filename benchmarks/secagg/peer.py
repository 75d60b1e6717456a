"""Flower's SecAgg+ in one process: its own workflow against its own client mod, each one timed.

The workflow is given a grid that calls the mod instead of sending; nothing is serialised on the
way beyond what the two do themselves. What is said before vectors are masked, and the masked
vectors, are the same whoever drops out afterwards: they are made once and said again.
"""

from __future__ import annotations

import copy
import logging
import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.client.mod.secure_aggregation.secaggplus_mod import secaggplus_mod
from flwr.common import (
    Code,
    FitRes,
    Status,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
)
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key, Stage
from flwr.compat.common import recorddict_compat as compat
from flwr.server.client_proxy import ClientProxy
from flwr.server.compat.legacy_context import LegacyContext
from flwr.server.strategy import FedAvg
from flwr.server.workflow import SecAggPlusWorkflow
from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD
from flwr.supercore.task_identity import TaskIdentity
from numpy.typing import NDArray

__all__ = ["Measured", "flower"]

EXAMPLES = 100


@dataclass
class Measured:
    """CPU seconds: of each client in all steps, and of the server; bytes that a client sends."""

    clients: list[float]
    server: float
    upload: float
    error: float


class _Proxy(ClientProxy):
    """A client that is only named."""

    def get_properties(self, ins: Any, timeout: Any, group_id: Any) -> Any: ...
    def get_parameters(self, ins: Any, timeout: Any, group_id: Any) -> Any: ...
    def fit(self, ins: Any, timeout: Any, group_id: Any) -> Any: ...
    def evaluate(self, ins: Any, timeout: Any, group_id: Any) -> Any: ...
    def reconnect(self, ins: Any, timeout: Any, group_id: Any) -> Any: ...


class _Strategy(FedAvg):
    """Asks every client, and does nothing with the mean but keep it."""

    def __init__(self, clients: int) -> None:
        super().__init__()
        self.nodes, self.mean = range(1, clients + 1), np.zeros(0)

    def configure_fit(self, server_round: int, parameters: Any, client_manager: Any) -> Any:
        from flwr.common import FitIns

        return [(self._proxy(node), FitIns(parameters, {})) for node in self.nodes]

    def _proxy(self, node: int) -> _Proxy:
        proxy = _Proxy(str(node))
        proxy.node_id = node
        return proxy

    def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> Any:
        self.mean = parameters_to_ndarrays(results[0][1].parameters)[0]
        return None, {}


@dataclass
class _Grid:
    """Calls each client's mod; those that dropped out answer with an error from masking on.

    spent, sent: CPU seconds and bytes by (stage, client), as they were last.
    """

    vector: NDArray[np.float32]
    gone: frozenset[int] = frozenset()
    contexts: dict[int, Context] = field(default_factory=dict)
    said: dict[tuple[str, int], Message] = field(default_factory=dict)
    spent: dict[tuple[str, int], float] = field(default_factory=dict)
    sent: dict[tuple[str, int], int] = field(default_factory=dict)
    inside: float = 0.0

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        before = time.process_time()
        answers = [self._answer(message) for message in messages]
        self.inside += time.process_time() - before
        return answers

    def _answer(self, message: Message) -> Message:
        node = message.metadata.dst_node_id
        stage = str(message.content.config_records[RECORD_KEY_CONFIGS][Key.STAGE])
        masked = stage in (Stage.COLLECT_MASKED_VECTORS, Stage.UNMASK)
        if masked and node in self.gone:
            return Message(Error(1), reply_to=message)
        if stage != Stage.UNMASK and (stage, node) in self.said:
            return self.said[stage, node]
        # A mod takes the stage out of what it is given.
        message = copy.copy(message)
        message.content = copy.deepcopy(message.content)
        context = self.contexts.setdefault(node, _context(node))
        if stage == Stage.UNMASK:
            context = copy.deepcopy(context)
        trained = 0.0

        def train(asked: Message, _: Context) -> Message:
            nonlocal trained
            start = time.process_time()
            reply = self._trained(asked)
            trained = time.process_time() - start
            return reply

        start = time.process_time()
        answer = secaggplus_mod(message, context, train)
        self.spent[stage, node] = time.process_time() - start - trained
        self.sent[stage, node] = _bytes(answer)
        if stage != Stage.UNMASK:
            self.said[stage, node] = answer
        return answer

    def _trained(self, asked: Message) -> Message:
        parameters = ndarrays_to_parameters([self.vector])
        result = FitRes(Status(Code.OK, ""), parameters, EXAMPLES, {})
        return Message(compat.fitres_to_recorddict(result, keep_input=False), reply_to=asked)


def _context(node: int) -> Context:
    return Context(
        run_id=1, node_id=node, node_config={}, state=RecordDict(), run_config={}, series_id=1
    )


def _bytes(message: Message) -> int:
    """Of the values in a record; names and framing are not counted."""
    values = message.content.config_records[RECORD_KEY_CONFIGS].values()
    return sum(_size(value) for value in values)


def _size(value: Any) -> int:
    if isinstance(value, bytes):
        return len(value)
    if isinstance(value, list):
        return sum(_size(each) for each in value)
    return 8


def flower(
    clients: int, shares: int, threshold: int, vector: NDArray[np.float32], drops: Sequence[int]
) -> list[Measured]:
    """One exchange for each number of clients that drop out before they mask."""
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1
    grid, found = _Grid(vector), []
    for dropped in drops:
        grid.gone = frozenset(range(1, dropped + 1))
        grid.inside = 0.0
        strategy = _Strategy(clients)
        state = RecordDict({MAIN_CONFIGS_RECORD: ConfigRecord({"current_round": 1})})
        first = compat.parameters_to_arrayrecord(ndarrays_to_parameters([np.zeros(1)]), False)
        state[MAIN_PARAMS_RECORD] = first
        context = LegacyContext(_served(state), strategy=strategy)
        random.seed(1)  # The same neighbours each time.
        start = time.process_time()
        SecAggPlusWorkflow(shares, threshold, clipping_range=8.0)(grid, context)
        server = time.process_time() - start - grid.inside
        alive = [node for node in strategy.nodes if node not in grid.gone]
        spent = [sum(s for (_, at), s in grid.spent.items() if at == node) for node in alive]
        sent = [sum(s for (_, at), s in grid.sent.items() if at == node) for node in alive]
        error = float(np.abs(strategy.mean - vector).max()) if len(strategy.mean) else float("nan")
        found.append(Measured(spent, server, sum(sent) / len(sent), error))
    return found


def _served(state: RecordDict) -> Context:
    return Context(run_id=1, node_id=0, node_config={}, state=state, run_config={}, series_id=1)
