"""Values that another value keeps from being read: they would promise what is not done."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from pydantic import BaseModel

from atoll.config.checks import Problem
from atoll.config.peft_methods import PEFT_METHODS
from atoll.config.tasks import TASKS, TaskFacts
from atoll.config.words import shown

if TYPE_CHECKING:
    from atoll.config.schema import Experiment

__all__ = ["Idle", "idle", "trains", "without"]


class Idle(NamedTuple):
    """A key, the key whose value keeps it from being read, and who reads it."""

    key: str
    cause: str
    reader: str

    def problem(self, experiment: Experiment) -> Problem:
        """What is wrong, in words."""
        value, why = (_value(experiment, key) for key in (self.key, self.cause))
        return Problem(
            self.key,
            f"{self.key} is {_said(value)}, but {self.cause} is {_said(why)}: {self.reader}; "
            f"remove {self.key}",
        )


def trains(experiment: Experiment) -> bool:
    """Whether a round has anything to train: an adapter, or a head by gradient."""
    return experiment.adapter.method != "none" or _trains_head(experiment)


def idle(experiment: Experiment) -> Iterator[Idle]:
    """The keys whose values differ from the default and are not read, each once."""
    told: set[str] = set()
    for cause, reader, read, keys in _TABLE:
        for key in keys if not read(experiment) else ():
            if key not in told and _value(experiment, key) != _default(experiment, key):
                told.add(key)
                yield Idle(key, cause, reader)


def without(experiment: Experiment, found: Iterable[Idle]) -> Experiment:
    """The same experiment, with the defaults of keys that are not read."""
    for one in found:
        section, _, name = one.key.partition(".")
        changed = _section(experiment, section).model_copy(
            update={name: _default(experiment, one.key)}
        )
        experiment = experiment.model_copy(update={section: changed})
    return experiment


def _section(experiment: Experiment, name: str) -> BaseModel:
    section: BaseModel = vars(experiment)[name]
    return section


def _value(experiment: Experiment, key: str) -> object:
    section, _, name = key.partition(".")
    return vars(_section(experiment, section))[name]


def _default(experiment: Experiment, key: str) -> object:
    section, _, name = key.partition(".")
    field = type(_section(experiment, section)).model_fields[name]
    return field.get_default(call_default_factory=True)


def _said(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else shown(value)


def _facts(experiment: Experiment) -> TaskFacts:
    return TASKS[experiment.model.task]


def _trains_head(experiment: Experiment) -> bool:
    given = experiment.adapter.train_head
    facts = _facts(experiment)
    trained = experiment.adapter.head == "train" or not facts.solved if given is None else given
    return trained and facts.head


def _by(*methods: str) -> Callable[[Experiment], bool]:
    return lambda experiment: experiment.adapter.method in methods


# What keeps keys from being read, who reads them, whether they are read, and the keys.
_TABLE: tuple[tuple[str, str, Callable[[Experiment], bool], tuple[str, ...]], ...] = (
    (
        "federation.late", "no late answer is folded", lambda e: e.federation.late == "fold",
        ("federation.staleness",),
    ),
    (
        "model.task", "it has no tokens to pool", lambda e: _facts(e).pools,
        ("model.pooling", "model.normalize", "adapter.head_features"),
    ),
    (
        "model.task", "it has no head that could be solved", lambda e: _facts(e).solved,
        (
            "adapter.head_features", "adapter.refit_every", "adapter.head_exchanges",
            "adapter.head_ridge", "adapter.local_head",
        ),
    ),
    (
        "model.task", "it has no head", lambda e: _facts(e).head,
        ("adapter.head", "adapter.train_head", "train.head_learning_rate"),
    ),
    (
        "model.task", "its rows have no class", lambda e: _facts(e).classes,
        ("train.restricted", "train.logit_adjustment", "adapter.local_head"),
    ),
    (
        "model.task", "its rows have no class", lambda e: _facts(e).weighs,
        ("train.class_weights", "train.class_balance"),
    ),
    ("model.task", "its labels are numbers", lambda e: not _facts(e).numbers, ("data.labels",)),
    ("model.task", "only regression reads it", lambda e: _facts(e).numbers, ("data.label_scale",)),
    ("model.task", "it masks no tokens", lambda e: _facts(e).masks, ("data.mlm_probability",)),
    (
        "model.task", "its rows have no text", lambda e: _facts(e).texts,
        ("data.max_length", "data.truncation"),
    ),
    (
        "model.task", "only causal-lm reads it",
        lambda e: _facts(e).generates and not _facts(e).prefers,
        ("data.completion_only",),
    ),
    (
        "model.task", "only embedding reads it", lambda e: _facts(e).contrasts,
        ("train.temperature", "train.learn_temperature", "train.symmetric"),
    ),
    (
        "model.task", "only preference reads it", lambda e: _facts(e).prefers,
        ("train.dpo_beta", "train.dpo_label_smoothing"),
    ),
    (
        "adapter.head", "only a solved head reads it", lambda e: e.adapter.head != "train",
        ("adapter.refit_every", "adapter.local_head"),
    ),
    (
        "adapter.head", "only a logistic head reads it", lambda e: e.adapter.head == "logistic",
        ("adapter.head_exchanges",),
    ),
    (
        "adapter.head", "only a ridge head reads it", lambda e: e.adapter.head == "ridge",
        ("adapter.head_ridge",),
    ),
    (
        "adapter.head", "only a head that is trained in rounds has a learning rate", _trains_head,
        ("train.head_learning_rate",),
    ),
    (
        "adapter.method", "only lora reads it", _by("lora"),
        (
            "adapter.r", "adapter.lora_alpha", "adapter.lora_dropout", "adapter.use_rslora",
            "adapter.freeze_a",
            "adapter.layers_to_transform", "adapter.layers_pattern", "adapter.rank_pattern",
            "adapter.alpha_pattern",
        ),
    ),
    (
        "adapter.method", "only lora, ia3 and bottleneck read it", _by("lora", "ia3", "bottleneck"),
        ("adapter.target_modules",),
    ),
    ("adapter.method", "only ia3 reads it", _by("ia3"), ("adapter.feedforward_modules",)),
    (
        "adapter.method", "only bottleneck reads it", _by("bottleneck"),
        ("adapter.placement", "adapter.reduction_factor", "adapter.activation"),
    ),
    ("adapter.method", "only layers reads it", _by("layers"), ("adapter.num_layers",)),
    (
        "adapter.method", "only an adapter of PEFT's reads it", _by(*PEFT_METHODS),
        ("adapter.config",),
    ),
    (
        "train.optimizer", "only adamw reads it", lambda e: e.train.optimizer == "adamw",
        ("train.adam_beta1", "train.adam_beta2", "train.adam_epsilon"),
    ),
    (
        "privacy.unit", "privacy.clip cuts each row's gradient in its place",
        lambda e: e.privacy.unit == "client" or e.train.max_grad_norm is None,
        ("train.max_grad_norm",),
    ),
)  # fmt: skip
