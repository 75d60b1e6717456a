"""Every method of adapting: merged where the weights have a place for it, refused where not."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from atoll.errors import ModelError
from atoll.trained.export_run import Terms, export_run
from tests.support.finished import finish
from tests.support.methods import STACKED, TUNERS, fits
from tests.support.models import Zoo

pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning"),
    # Some adapters of PEFT share parameters among layers as parts of others.
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning"),
]

BOTTLENECK = "whose layers stand between those of the model: its weights have no place"
REFUSED = {
    "bert-pfeiffer": BOTTLENECK,
    "bert-houlsby": BOTTLENECK,
    "gpt2-houlsby": BOTTLENECK,
    "llama-named": BOTTLENECK,
    "beft": r"PEFT cannot merge BEFT \(Base layer has no bias, cannot merge",
    "lily": r"PEFT cannot merge LILY \(This method is not supported for Lily\)",
}


def section(adapter: dict[str, Any]) -> dict[str, Any]:
    """As a file would hold it: lists for tuples."""
    return {name: list(v) if isinstance(v, tuple) else v for name, v in adapter.items()}


def _silent(text: str) -> None:
    pass


def check(name: str, run: Path, folder: Path) -> None:
    """Both ways to export; the adapter always goes."""
    copied = export_run(run, folder / "a", Terms(), note=_silent)
    assert copied.verified.gap.relative < 1e-5
    assert copied.verified.gap.largest > 0.1
    terms = Terms(merge=True)
    if name in REFUSED:
        with pytest.raises(ModelError, match=REFUSED[name]) as error:
            export_run(run, folder / "m", terms, note=_silent)
        assert "export without --merge" in str(error.value)
        assert "m" not in os.listdir(folder)
        return
    assert export_run(run, folder / "m", terms, note=_silent).verified.gap.relative < 2e-5
    facts = json.loads((folder / "m" / "atoll.json").read_text())
    assert facts["merged"]


@pytest.mark.parametrize("name", STACKED)
def test_methods_of_our_own(name: str, zoo: Zoo, tmp_path: Path) -> None:
    kind, adapter = STACKED[name]
    check(name, finish(tmp_path, zoo, kind, adapter=section(adapter)), tmp_path)


@pytest.mark.parametrize("name", TUNERS)
def test_methods_of_peft(name: str, zoo: Zoo, tmp_path: Path) -> None:
    adapter = fits(name, "llama")
    assert adapter is not None
    check(name, finish(tmp_path, zoo, "llama", adapter=adapter), tmp_path)
