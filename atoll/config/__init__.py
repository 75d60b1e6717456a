"""The experiment file: typed, with positions, and with named functions bound to their values.

loaded = load("finetune.yaml", overrides=["federation.num_rounds=5"])
algorithm = resolve(
    loaded.experiment.federation.algorithm, package="atoll.algorithms", where=loaded.where
)()
"""

from atoll.config.adapter import Adapter
from atoll.config.call import Call
from atoll.config.data import Data
from atoll.config.federation import Evaluate, Federation
from atoll.config.json_schema import schema
from atoll.config.resolve import Where, resolve
from atoll.config.schema import Experiment
from atoll.config.sections import Model, Train
from atoll.config.source import Loaded, dump, load

__all__ = [
    "Adapter",
    "Call",
    "Data",
    "Evaluate",
    "Experiment",
    "Federation",
    "Loaded",
    "Model",
    "Train",
    "Where",
    "dump",
    "load",
    "resolve",
    "schema",
]
