"""What a server finds in uploads that say nothing."""

from __future__ import annotations

from pathlib import Path

import torch

from atoll.audit.eye import eye_of
from atoll.audit.looking import Upload, looked
from atoll.local.bench import model_values
from tests.support.models import Zoo
from tests.support.scenes import scene


def test_an_upload_of_nothing_tells_no_word_where_places_matter(tmp_path: Path, zoo: Zoo) -> None:
    """Noise that is far larger than the update leaves layers without a direction of their own."""
    setup = scene(tmp_path, zoo, adapter={"r": 2, "head": "train"})
    rows = [setup.bench.objective.encode([row])[0] for row in setup.data.rows("ada", "train")[:2]]
    values = model_values(setup.start.server)
    eye = eye_of(setup, values, [], probe=rows)
    assert eye is not None
    assert eye.vocabulary is not None
    assert eye.vocabulary.by_position
    nothing = {name: torch.zeros_like(value) for name, value in values.items()}
    (seen,) = looked(eye, [Upload(nothing, rows, inverted=True)])
    assert seen.token_auc == 0.5
    assert seen.order is not None
    assert seen.order < 0.5
