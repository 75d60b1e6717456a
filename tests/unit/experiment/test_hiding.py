"""What is said of a promise before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from atoll.config import load
from atoll.experiment.setup import prepare
from tests.support.federation import labelled_rows
from tests.support.scenes import scene, write_clients

if TYPE_CHECKING:
    from tests.support.models import Zoo


@pytest.mark.parametrize("unit", ["client", "example"])
def test_a_delta_that_may_give_someone_away_is_told_of(tmp_path: Path, zoo: Zoo, unit: str) -> None:
    own = max(labelled_rows().values(), key=len)
    write_clients(tmp_path / "data", {f"c{number:02}": own for number in range(16)})
    scene(tmp_path, zoo, adapter={"head": "train"},
          privacy={"noise_multiplier": 1.0, "unit": unit})  # fmt: skip
    many = 16 if unit == "client" else 16 * len(own)

    def said(delta: float) -> list[str]:
        notes: list[str] = []
        file = load(tmp_path / "experiment.yaml", overrides=[f"privacy.delta={delta}"])
        prepare(file, note=notes.append)
        return [note for note in notes if "privacy.delta" in note]

    assert said(0.99 / many) == []
    (told,) = said(1.01 / many)
    assert f"there are {many} {'clients' if unit == 'client' else 'training rows'}: " in told
