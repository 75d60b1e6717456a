"""Letters that ask: on disk once for all clients, byte for byte what the frames in memory are."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

from atoll.core import Channel, Context, Payload, Task
from atoll.flower.parcels import Label, read_stored, whole
from atoll.frames import HEAD
from atoll.runtimes import letters
from atoll.runtimes.asking import Asking
from atoll.runtimes.letters import Letter
from atoll.runtimes.outgoing import Outgoing

CLIENTS = ("ada", "bob")


def task(*, own: bool = False, seed: int = 0) -> Task:
    shared = torch.randn(40, generator=torch.Generator().manual_seed(seed))
    values = {name: shared + place if own else shared for place, name in enumerate(CLIENTS)}
    payloads: dict[str, Payload] = {
        name: {"adapter": Channel({"w": value})} for name, value in values.items()
    }
    return Task("fit", Context(0, "run", 1, 0, CLIENTS, 2), payloads.__getitem__, {"ada": 3})


def text(letter: Letter) -> bytes:
    """All that it holds, by its pieces."""
    found = b""
    for number in range(letter.pieces):
        piece = letter.piece(number)
        part = whole(Label(stored=piece.stored), memoryview(bytes(4) + piece.rest))[4:]
        assert len(part) == piece.size
        found += part
    return found


@pytest.mark.parametrize("piece", [33, 10_000])
def test_a_letter_on_disk_is_the_one_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    monkeypatch.setattr(letters, "PIECE", piece)
    tasks = [task(), task(own=True, seed=1)]
    outgoing, asking = Outgoing(tasks, "r1-e0", tmp_path / "sent"), Asking(tasks, number=0)
    for client in CLIENTS:
        letter, frames = outgoing.letter(client, 0), list(asking.frames([client], set()))
        frames[-1] = type(frames[-1])(frames[-1].kind, 0, frames[-1].data)
        plain = Letter.of("r1-e0", frames)
        assert text(letter) == plain.rest
        assert (letter.size, letter.digest) == (plain.size, plain.digest)
        assert letter.digest == hashlib.sha256(text(letter)).hexdigest()


def test_what_is_the_same_for_all_is_written_once(tmp_path: Path) -> None:
    outgoing = Outgoing([task()], "r1-e0", tmp_path)
    first, again, other = (outgoing.letter("ada", 0), outgoing.letter("ada", 1),
                           outgoing.letter("bob", 0))  # fmt: skip
    assert first.stored == again.stored == other.stored
    assert len({first.digest, again.digest, other.digest}) == 3
    assert len(list(tmp_path.iterdir())) == 1
    own = Outgoing([task(own=True)], "r1-e0", tmp_path)
    assert len({own.letter(client, 0).stored for client in CLIENTS}) == 2


def test_no_name_of_a_file_comes_again_and_no_question_before_is_kept(tmp_path: Path) -> None:
    first = Outgoing([task()], "r1-e0", tmp_path).letter("ada", 0).stored
    second = Outgoing([task()], "r1-e0", tmp_path).letter("ada", 0).stored
    assert first is not None
    assert second is not None
    assert first.path != second.path
    assert [path.name for path in tmp_path.iterdir()] == [second.path.name]
    with pytest.raises(OSError, match="No such file"):
        read_stored(first)


def test_values_are_aligned_in_the_file(tmp_path: Path) -> None:
    stored = Outgoing([task()], "r1-e0", tmp_path).letter("ada", 0).stored
    assert stored is not None
    data = read_stored(stored)
    assert data.index(task().broadcast("ada")["adapter"].tree["w"].numpy().tobytes()) % 8 == 0
    assert HEAD.size == 16


def test_a_letter_that_is_named_is_gone(tmp_path: Path) -> None:
    letter = Outgoing([task()], "r1-e0", tmp_path).letter("ada", 0)
    assert not letter.gone
    assert letter.named().gone
    assert letter.named().digest == letter.digest
