"""What of clients' values is outside of the range of a secure sum, told where the clients are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from atoll.core import Context
from atoll.secagg import Channel as Range

__all__ = ["Outside"]

UPDATE, ROWS = "update", ("weight", "examples")
MUCH = 0.01
"""The share of an update's values from which on the range is called too small."""


class Outside:
    """Tells a person of values that count as the end of their range; none of it leaves.

    Of a round it tells the first client of this process whose update has any, and the first with
    many; of the rest the first of all.
    """

    def __init__(self, note: Callable[[str], None], examples: int) -> None:
        self._note, self._examples, self._told = note, examples, set[tuple[object, ...]]()

    def tell(self, context: Context, channels: Sequence[Range], outside: Mapping[str, int]) -> None:
        """outside: by channel, how many values of this client's are."""
        for one in (one for one in channels if outside.get(one.name)):
            if one.name == UPDATE:
                self._update(context, one, outside[UPDATE])
            elif one.name in ROWS:
                text = "has more rows than privacy.max_examples, and counts with so many:"
                self._once(ROWS, f"{context.client} {text} {self._examples:,}")
            else:
                text = "is outside of the range of a sum, and counts as its end"
                self._once((one.name,), f"channel '{one.name}' of {context.client} {text}")

    def _update(self, context: Context, channel: Range, number: int) -> None:
        many = number > MUCH * channel.size
        low = "; privacy.clip is below what updates need" if many else ""
        self._once(
            (UPDATE, context.round, many),
            f"round {context.round}: {number:,} of {channel.size:,} values of {context.client}'s "
            f"update are outside of the range of a sum, and count as its end{low}",
        )

    def _once(self, what: tuple[object, ...], text: str) -> None:
        if what not in self._told:
            self._told.add(what)
            self._note(text)
