"""What cannot hide its rows is refused, with the reason: nothing unprotected goes on in silence."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from atoll.errors import PrivacyError
from atoll.local.bench import Bench
from atoll.local.job import LocalRule
from atoll.models.objective import Example

__all__ = ["check_rows", "check_rule"]


def check_rule(bench: Bench, rule: LocalRule) -> None:
    """Refuse to hide rows whose gradients are not their own.

    Raises:
        PrivacyError: names what looks at several rows at once.
    """
    if rule.private is None:
        return
    if bench.objective.across:
        raise PrivacyError(
            "privacy.unit is example, but the loss of this task tells a row from the other rows of "
            "its batch, so that no gradient is of one row alone; use privacy.unit: client"
        )
    own = bench.model.own
    noisy = () if own is None else own.noisy
    norm = next((type(module).__name__ for module in noisy if isinstance(module, _BatchNorm)), None)
    if norm is not None:
        raise PrivacyError(
            f"privacy.unit is example, but {norm} layers normalise a row by the other rows of its "
            "batch while the whole model trains; use adapter.method: lora, or privacy.unit: client"
        )


def check_rows(bench: Bench, client: str, examples: Sequence[Example]) -> None:
    """Refuse rows that were joined, and losses that know their client's other rows.

    Raises:
        PrivacyError: names the client and the setting.
    """
    if any(example.positions is not None for example in examples):
        raise PrivacyError(
            f"privacy.unit is example, but several rows of {client} share a sequence, so that no "
            "gradient is of one row alone; set data.packing: false"
        )
    terms = bench.objective.terms
    without, one = terms([]), terms(examples[:1])
    if any(not torch.equal(one[name], without[name]) for name in one):
        raise PrivacyError(
            f"privacy.unit is example, but the loss at {client} counts the labels of its rows, and "
            "a row would show in all gradients; set train.restricted: false, "
            "train.logit_adjustment: 0 and class weights as numbers"
        )
