"""What breaks at one client is that client's failure, wherever its stack stood."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import pytest
import torch

from atoll.core import ClientWork, Context, Failure, Reply, Request, answers
from atoll.errors import DataError

NAMES = tuple(f"c{i}" for i in range(11))
STACK = 4


def _request(client: str) -> Request:
    return Request(Context(0, "run", 1, 0, NAMES, len(NAMES), client), {})


def _stacked(bad: dict[str, BaseException], stacks: list[int]) -> ClientWork:
    """Work in stacks of four, each of which breaks as a whole."""

    def work(requests: Sequence[Request]) -> Iterator[Reply | Failure]:
        for start in range(0, len(requests), STACK):
            few = [request.context.client for request in requests[start : start + STACK]]
            stacks.append(len(few))
            for client in few:
                if client in bad:
                    raise bad[client]
            yield from (Reply(client, {}) for client in few)

    return ClientWork("train", lambda broadcast: broadcast, work)


def _ask(work: ClientWork) -> dict[str, Reply | Failure]:
    found = list(answers(work, [_request(name) for name in NAMES]))
    assert sorted(answer.client for answer in found) == sorted(NAMES), "one answer a client"
    return {answer.client: answer for answer in found}


@pytest.mark.parametrize("bad", [("c0",), ("c5",), ("c10",), ("c1", "c2", "c9"), NAMES])
def test_the_others_are_answered(bad: tuple[str, ...]) -> None:
    broken: dict[str, BaseException] = {name: KeyError(f"label of {name}") for name in bad}
    found = _ask(_stacked(broken, []))
    for name in NAMES:
        if name in bad:
            failure = found[name]
            assert isinstance(failure, Failure)
            place = r"\(test_answers\.py:\d+\)"
            assert re.fullmatch(rf"KeyError: 'label of {name}' {place}", failure.message)
        else:
            assert found[name] == Reply(name, {})


def test_the_others_still_work_in_stacks() -> None:
    stacks: list[int] = []
    _ask(_stacked({"c5": ValueError("?")}, stacks))
    assert stacks.count(1) <= 3
    assert len(stacks) < 11


@pytest.mark.parametrize(
    "error",
    [
        AssertionError("a bug"),
        DataError("the rows of client c1 have changed since they were first read"),
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("MPS backend out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        KeyboardInterrupt(),
        SystemExit(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_no_client_is_to_blame_for_passes(error: BaseException) -> None:
    with pytest.raises(type(error)):
        _ask(_stacked({"c5": error}, []))


def test_an_exception_after_the_last_answer_is_nobodys() -> None:
    def work(requests: Sequence[Request]) -> Iterator[Reply | Failure]:
        yield from (Reply(request.context.client, {}) for request in requests)
        raise RuntimeError("cannot put away")

    for few in (NAMES, NAMES[:1]):
        requests = [_request(name) for name in few]
        with pytest.raises(RuntimeError, match="put away"):
            list(answers(ClientWork("train", lambda broadcast: broadcast, work), requests))


def test_torchs_own_words_for_memory() -> None:
    """The CPU's allocator says so in a plain RuntimeError."""

    def work(requests: Sequence[Request]) -> Iterator[Reply | Failure]:
        torch.empty(1 << 60, dtype=torch.uint8)
        yield from ()

    with pytest.raises(RuntimeError):
        list(answers(ClientWork("train", lambda broadcast: broadcast, work), [_request("c0")]))
