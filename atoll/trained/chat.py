"""Answers of a language model, token by token, with what was trained or without it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from atoll import rng
from atoll.trained.conversation import longest_row
from atoll.trained.load_run import TrainedRun
from atoll.trained.predict import decode, greedy, sampled

__all__ = ["Answer", "Manner", "pieces"]


@dataclass(frozen=True)
class Manner:
    """How answers are made.

    temperature: of the softmax that tokens are drawn from; 0: the most probable token.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    seed: int = 0


class Answer:
    """One answer; iterating gives its text as it comes.

    turn: the address of its draws: two models draw alike in one turn, and anew in the next.
    adapted: with what was trained; else the base model alone.
    """

    def __init__(
        self, run: TrainedRun, ids: list[int], manner: Manner, *, turn: int, adapted: bool
    ) -> None:
        draws = rng.generator(manner.seed, "chat", turn)
        choose = sampled(manner.temperature, draws) if manner.temperature > 0 else greedy
        self._tokenizer = run.setup.base.tokenizer
        self._tokens = decode(
            run, ids, max_new_tokens=manner.max_new_tokens, choose=choose, adapted=adapted
        )
        self._room = min(manner.max_new_tokens, longest_row(run) - len(ids))
        self._num_tokens = 0
        self._over = False
        self.text = ""

    @property
    def complete(self) -> bool:
        """Whether the model has ended it itself, and nothing cut it."""
        return self._over and self._num_tokens < self._room

    def __iter__(self) -> Iterator[str]:
        for piece in pieces(self._tokenizer, self._counted()):
            self.text += piece
            yield piece
        self._over = True

    def _counted(self) -> Iterator[int]:
        for token in self._tokens:
            self._num_tokens += 1
            yield token


def pieces(tokenizer: Any, tokens: Iterable[int]) -> Iterator[str]:
    """The text of tokens as they come, in pieces that together are the decoded whole."""
    ids, said, text = list[int](), "", ""
    for token in tokens:
        ids.append(token)
        text = tokenizer.decode(ids, skip_special_tokens=True)
        # A character may take several tokens; until the last, a replacement stands in its place.
        if text.startswith(said) and not text.endswith("\ufffd"):
            yield text[len(said) :]
            said = text
    yield text[len(said) :]
