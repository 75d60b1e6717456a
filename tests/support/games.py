"""Games of a dishonest server: what a trap says of batches with a target and without."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from atoll.audit.planted import Planted, betrayed
from atoll.audit.ranking import auc
from atoll.audit.trial import trial_of
from atoll.experiment.setup import Setup
from atoll.local.bench import model_values
from atoll.models.objective import Example
from atoll.tree import Tree
from tests.support.models import WORDS
from tests.support.scenes import scene

if TYPE_CHECKING:
    from tests.support.models import Zoo

__all__ = ["GAMES", "check_attack", "played", "quiet_setup", "rows_of", "some_values"]

GAMES = 40


def quiet_setup(folder: Path, zoo: Zoo, method: str) -> Setup:
    """Without dropout, which would hide much of what a single step shows."""
    config = Path(zoo("bert")) / "config.json"
    told = json.loads(config.read_text())
    told |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    quiet = folder / "quiet"
    quiet.mkdir(parents=True)
    for file in config.parent.iterdir():
        (quiet / file.name).write_bytes(file.read_bytes())
    (quiet / "config.json").write_text(json.dumps(told))
    return scene(
        folder, zoo, "bert", adapter={"method": method, "head": "train"},
        model={"pooling": "mean", "name_or_path": str(quiet)},
    )  # fmt: skip


def some_values(setup: Setup) -> Tree:
    """As after some rounds: a head of zeros would let no gradient through."""
    draw = torch.Generator().manual_seed(0)
    values = model_values(setup.start.server)
    return {n: 0.1 * torch.randn(v.shape, generator=draw) if n.startswith("classifier") else v
            for n, v in values.items()}  # fmt: skip


def rows_of(
    setup: Setup, draw: random.Random, count: int, words: Sequence[str] = WORDS
) -> list[Example]:
    """Rows of six words."""
    labels = setup.data.labels or ()
    rows = [{"text": " ".join(draw.choices(words, k=6)), "label": draw.choice(labels)}
            for _ in range(count)]  # fmt: skip
    return setup.bench.objective.encode(rows)


def played(
    setup: Setup, values: Tree, trap: tuple[str, int], target: Example,
    words: Sequence[str] = WORDS,
) -> tuple[list[float], ...]:  # fmt: skip
    """What the trap says of batches of four rows: with the target among them, and without."""
    draw, said = random.Random(1), ([], [])  # type: tuple[random.Random, tuple[list[float], list[float]]]
    for game in range(GAMES):
        batch = rows_of(setup, draw, 4, words)
        if game % 2 == 0:
            batch[draw.randrange(4)] = target
        trial = trial_of(setup, setup.loaded, values, {"ada": batch})
        assert trial is not None
        update = trial.payloads()["ada"]["update"].tree
        said[game % 2].append(betrayed(update, *trap))
    return said


def check_attack(
    setup: Setup, planted: Planted, module: str, target: Example, words: Sequence[str] = WORDS
) -> None:
    """The trap tells who trained on the target, and honest weights do not."""
    trap = (module, planted.neuron)
    there, others = played(setup, planted.values, trap, target, words)
    assert auc(there, others) >= 0.95
    # The game's advantage, at the threshold of any movement at all.
    rates = [sum(score > 0 for score in some) / len(some) for some in (there, others)]
    assert rates[0] - rates[1] >= 0.9
    honest = played(setup, some_values(setup), trap, target, words)
    assert 0.25 <= auc(*honest) <= 0.75
