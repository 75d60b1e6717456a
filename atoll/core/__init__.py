"""The records that an algorithm is made of, and the facts that are checked when it is built.

    broadcast ──> client work ──> encode ──> (wire) ──> decode ──> aggregator ──> server
                                  stages, in order      in reverse

Every part is a record of pure functions: state goes in, state comes out. Nothing here knows where
clients live (a `Runtime` does) or what model they train (`atoll.local` does).
"""

from atoll.core.algorithm import Algorithm, Program, begun, question
from atoll.core.answers import answers, in_order
from atoll.core.asked import Context, Failure, Reply, Request, Runtime, State, Task
from atoll.core.check import check, check_order
from atoll.core.parts import Aggregator, ClientWork, Downlink, Server, Stage
from atoll.core.payload import Channel, Payload, faded, metrics_of, payload_nbytes, validate
from atoll.core.progress import Exchange, Federation, Position, Report
from atoll.core.sealed import ATTEMPTS, Sealed, Sealing, attempted
from atoll.tree import Tree

__all__ = [
    "ATTEMPTS",
    "Aggregator",
    "Algorithm",
    "Channel",
    "ClientWork",
    "Context",
    "Downlink",
    "Exchange",
    "Failure",
    "Federation",
    "Payload",
    "Position",
    "Program",
    "Reply",
    "Report",
    "Request",
    "Runtime",
    "Sealed",
    "Sealing",
    "Server",
    "Stage",
    "State",
    "Task",
    "Tree",
    "answers",
    "attempted",
    "begun",
    "check",
    "check_order",
    "faded",
    "in_order",
    "metrics_of",
    "payload_nbytes",
    "question",
    "validate",
]
