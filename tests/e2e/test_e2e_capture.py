"""What can be read on the server's connections in a federation with secure sums, all of it."""

from __future__ import annotations

import itertools
import json
import random
import re
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from atoll.config import load
from atoll.core import Context, Reply, Request
from atoll.experiment.setup import prepare
from atoll.protection.summed import grid_step
from atoll.round import answer
from tests.support.models import WORDS, Zoo
from tests.support.sites import People, federation
from tests.support.tap import Tap, tapped

ROWS = {"ada": (7901, 1009), "bob": (7907, 1013), "cy": (7919, 1019)}
"""Training and held-out rows of each site: as long as no message is."""
SHARED = "nothing of note"
CLIP, MOST = 1.0, 8192
EXPERIMENT = """
model: {{name_or_path: {model}, pooling: mean}}
data: {{path: data/, max_length: 8{labels}}}
adapter: {{r: 2, target_modules: [query], head: train}}
train: {{max_steps: 2, optimizer: sgd, learning_rate: 0.5, group_size: 1}}
federation: {{num_rounds: 1}}
evaluate: {{baselines: []}}
{privacy}
"""
SECURE = (
    "privacy: {secure_aggregation: true, min_survivors: 3, corrupt: 0, dropping: 0, "
    f"clip: {CLIP}, max_examples: {MOST}}}"
)


def _diagnosis(client: str) -> str:
    """A label that stands in the rows of one site."""
    return f"diagnosis of {client}"


def _write(folder: Path) -> None:
    for client, sizes in ROWS.items():
        draw = random.Random(client)
        place = folder / "data" / client
        place.mkdir(parents=True)
        for split, size in zip(("train", "test"), sizes, strict=True):
            labels = [SHARED, _diagnosis(client)]
            rows = [{"text": " ".join(draw.choices(WORDS, k=4)), "label": draw.choice(labels)}
                    for _ in range(size)]  # fmt: skip
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (place / f"{split}.jsonl").write_text(text)


@pytest.fixture
def people(tmp_path: Path, zoo: Zoo) -> Iterator[People]:
    _write(tmp_path)
    names = sorted([SHARED, *map(_diagnosis, ROWS)])
    named = f", labels: {json.dumps(names)}"
    model = zoo("bert")
    for file, labels, privacy in (("open", "", ""), ("secure", named, SECURE)):
        text = EXPERIMENT.format(model=model, labels=labels, privacy=privacy)
        (tmp_path / f"{file}.yaml").write_text(text)
    with federation(tmp_path, tuple(ROWS)) as found:
        rules = "label_names: true\nmin_rows: 1\nmodels: any\nguard: false\nmin_cohort: 3\n"
        (tmp_path / "policy.yaml").write_text(rules)
        yield found


def _heard(people: People, file: str) -> Tap:
    """A whole run, from the opening to the end, through the tap."""
    people.coordinate(file)
    with tapped(people.folder / "fed" / "server", people.port) as tap:
        people.port = tap.port
        for client in ROWS:
            people.join(client)
        assert people.server is not None
        code = people.server.process.wait(200)
        assert code == 0, people.server.said
    return tap


def _vectors(file: Path) -> dict[str, list[torch.Tensor]]:
    """Four values of each tensor of each client's update in the first round, trained here."""
    loaded = load(file, overrides=[f"data.path={file.parent / 'data'}"])
    setup = prepare(loaded, note=lambda text: None)
    algorithm, clients = setup.program.algorithms["train"], setup.data.clients
    state = setup.start.server
    found = {}
    for client in clients:
        context = Context(setup.experiment.seed, "federated", 1, 1, clients, len(clients), client)
        request = Request(context, algorithm.server.broadcast(state, client))
        (reply,) = answer(algorithm, [request])
        assert isinstance(reply, Reply)
        parts = [value.flatten()[:4] for value in reply.payload["update"].tree.values()]
        # A is not moved while B is zero.
        found[client] = [four for four in parts if bool((four != 0).all())]
    return found


def _written(values: torch.Tensor) -> list[bytes]:
    """Values as they would be sent: floats of any size, and whole numbers of the grid, each rounded
    up or down."""
    below = [int(x) for x in (values.double() / grid_step(CLIP * MOST, 3)).floor()]
    # Small ones stand everywhere.
    sides = itertools.product((0, 1), repeat=4) if min(map(abs, below)) > 255 else ()
    whole = [struct.pack("<4i", *(a + b for a, b in zip(below, up, strict=True))) for up in sides]
    floats = [values.numpy().astype(kind).tobytes() for kind in ("<f4", ">f4", "<f8", ">f8")]
    return [*floats, values.bfloat16().view(torch.int16).numpy().tobytes(), *whole]


def _counts(number: int) -> list[bytes]:
    """A number of rows as machines write it; zero bytes around make it a field of its own."""
    kinds = ("<i4", ">i4", "<f4", ">f4", "<f8", ">f8")
    return [np.array(number, kind).tobytes() for kind in kinds]


def _spelled(number: int, said: Sequence[bytearray]) -> bool:
    """Whether the number stands anywhere in decimals, as a word of its own."""
    word = re.compile(rb"(?<![0-9A-Za-z+/=.\x80-\xff])%d(?![0-9A-Za-z+/=.\x80-\xff])" % number)
    return any(word.search(one) for one in said)


def _in(needles: Sequence[bytes], said: Sequence[bytearray]) -> bool:
    return any(needle in one for needle in needles for one in said)


def _told(people: People, tap: Tap) -> dict[str, set[str]]:
    """What of each client stands in what was said: its update, numbers of rows, its own label."""
    both, found = [*tap.up, *tap.down], dict[str, set[str]]()
    for client, parts in _vectors(people.folder / "open.yaml").items():
        weighed = [four * ROWS[client][0] for four in parts]
        vectors = [needle for four in (*parts, *weighed) for needle in _written(four)]
        counts = [needle for number in ROWS[client] for needle in _counts(number)]
        found[client] = {
            *(["update"] if _in(vectors, both) else []),
            *(["rows"] if _in(counts, both) else []),
            *(["rows in words"] if any(_spelled(n, both) for n in ROWS[client]) else []),
            # The file, which the server sends, names the labels of all.
            *(["label"] if _in([_diagnosis(client).encode()], tap.up) else []),
        }
    return found


def test_a_federation_with_secure_sums_says_nothing_of_one_client(people: People) -> None:
    tap = _heard(people, "secure.yaml")
    assert _in([b'"kind":"text/label"'], tap.up)
    assert _in([b"secure_aggregation: true"], tap.down)
    assert _told(people, tap) == {client: set() for client in ROWS}


@pytest.mark.long
def test_without_them_all_of_that_is_found(people: People) -> None:
    found = _told(people, _heard(people, "open.yaml"))
    assert found == {client: {"update", "rows", "rows in words", "label"} for client in ROWS}
