"""What a relay brings of a client, taken in by the client's line."""

from __future__ import annotations

from collections.abc import Callable

from atoll.errors import PayloadError
from atoll.frames import Frame
from atoll.runtimes.incoming import read_answer
from atoll.runtimes.letters import WHY
from atoll.runtimes.lines import Line
from atoll.words import printable

__all__ = ["heard"]


def heard(line: Line, frame: Frame, note: Callable[[str], None]) -> str:
    """Take an answer in; why it cannot be read, where it is one to the letter of now.

    note: hears once why messages bring nothing back.
    """
    asked = line.asks(frame.number)
    try:
        answer, body = read_answer(frame.data)
        if answer is None:
            line.lost(frame.number)
            why = printable(frame.data[1 : WHY + 1].decode(errors="replace"))
            if why and why != line.account.lost:
                line.account.lost = why
                note(f"a message to {line.client} brought nothing back: {why}")
        elif answer.client != line.client:
            raise PayloadError(f"{line.client} answers as {answer.client}")
        else:
            line.take(frame.number, answer, body)
    except PayloadError as error:
        line.lost(frame.number)
        return str(error) if asked else ""
    return ""
