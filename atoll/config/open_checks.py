"""What beside the section about privacy would have clients tell of their rows in the open."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from atoll.config.checks import Problem
from atoll.config.privacy import Privacy
from atoll.config.words import shown

if TYPE_CHECKING:
    from atoll.config.data import Data
    from atoll.config.federation import Federation
    from atoll.config.sections import Model, Train

__all__ = ["check_open", "check_own_stages"]

ALONE = "privacy.unit is example, and one row would show in the gradients of all rows"
DONE = {
    "uniform": "under privacy clients weigh the same already; remove it",
    "withhold": "under privacy numbers beside the update stay with clients already; remove it",
    "clip": "under privacy updates are cut to privacy.clip already; set that, and remove the stage",
    "by_examples": "weighting by examples lets one client's weight move the sum by more than "
    "privacy.clip, which the noise is made for; remove it: under privacy clients weigh the same",
}


def check_open(
    privacy: Privacy, *, model: Model | None, data: Data | None, train: Train | None
) -> Iterator[Problem]:
    """Numbers about labels, which neither noise nor masks hide, and rows that are not alone."""
    scaled = data is None or data.label_scale is not None
    if privacy.hides and not scaled and model is not None and model.task == "regression":
        yield Problem(
            "data",
            "data.label_scale is missing: model.task is regression, which scales labels by the "
            "moments of all clients' rows, and privacy hides those nowhere; say what labels are "
            "about like, from what is known without these rows, as in "
            "label_scale: {mean: 40, deviation: 10}",
        )
    if train is None or not privacy.hides:
        return
    if train.class_weights == "balanced":
        yield Problem(
            "train.class_weights",
            "train.class_weights is balanced, which counts all clients' labels, and privacy hides "
            "those counts nowhere; give weights by label",
        )
    if privacy.on and privacy.unit == "example":
        yield from _check_alone(train)
        if data is not None and data.packing:
            yield Problem(
                "data.packing",
                "data.packing is true, so that several rows share a sequence, but privacy.unit is "
                "example, and no gradient would be of one row alone; remove data.packing",
            )


def _check_alone(train: Train) -> Iterator[Problem]:
    """Losses of one row that the client's other rows decide."""
    remedies = {
        "class_weights": train.class_weights == "balanced-per-client" and "give weights by label",
        "class_balance": train.class_balance and "give train.class_weights by label",
        "restricted": train.restricted and "remove it",
        "logit_adjustment": bool(train.logit_adjustment) and "remove it",
    }
    for key, remedy in remedies.items():
        if remedy:
            yield Problem(
                f"train.{key}",
                f"train.{key} is {shown(vars(train)[key])}, which is about all rows of a client, "
                f"but {ALONE}; {remedy}",
            )


def check_own_stages(privacy: Privacy, federation: Federation) -> Iterator[Problem]:
    """Stages of the file that would stand beside those that privacy brings."""
    if not privacy.on or privacy.unit != "client":
        return
    for stage in federation.stages:
        if stage.name in DONE:
            yield Problem(stage.path, f"{stage.path} is {stage.name}, but {DONE[stage.name]}")
