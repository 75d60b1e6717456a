"""`atoll chat`: a conversation with a run's language model."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click
import typer

from atoll.cli.output import Format, FormatOption, note
from atoll.cli.process import load_torch
from atoll.errors import DataError

if TYPE_CHECKING:
    from atoll.trained.chat import Manner
    from atoll.trained.conversation import Conversation
    from atoll.trained.load_run import TrainedRun

__all__ = ["chat"]

COMMANDS = "/reset begins anew, /system TEXT sets the system message, /quit leaves"


CompareOption = Annotated[
    bool, typer.Option("--compare", help="Answer twice: as trained, and as the base model.")
]
TemplateOption = Annotated[
    bool,
    typer.Option(
        "--chat-template", help="Ask under the chat template, whatever the rows of training."
    ),
]
TemperatureOption = Annotated[
    float,
    typer.Option(min=0, show_default=False, help="Draw tokens; 0, the default: the most probable."),
]
DropOption = Annotated[
    bool, typer.Option("--drop-oldest", help="Forget the oldest turns of a too long conversation.")
]


def chat(
    run: Annotated[Path, typer.Argument(metavar="RUN", hidden=True)],
    compare: CompareOption = False,
    base: Annotated[bool, typer.Option("--base", help="Answer as the base model alone.")] = False,
    system: Annotated[str | None, typer.Option(metavar="TEXT", help="System message.")] = None,
    chat_template: TemplateOption = False,
    max_new_tokens: Annotated[
        int, typer.Option(min=1, show_default=False, help="Length of an answer; default 256.")
    ] = 256,
    temperature: TemperatureOption = 0.0,
    seed: Annotated[
        int | None, typer.Option(show_default=False, help="Of the draws; default 0.")
    ] = None,
    drop_oldest: DropOption = False,
    output_format: FormatOption = Format.text,
) -> None:
    """Talk to a run's language model.

    RUN is a run directory. Messages are asked as the rows of training were: as chats, as
    instructions, or as plain text that goes on. /reset, /system TEXT and /quit are commands; Ctrl-C
    stops an answer, Ctrl-D leaves. With --compare both models see one conversation: that with the
    trained model.

    From a pipe, each line of standard input is a message, and --format json answers each with one
    line of JSON.
    """
    if not math.isfinite(temperature):
        raise click.UsageError(f"--temperature is {temperature}; give a number such as 0.7")
    if compare and base:
        raise click.UsageError("--compare shows the base model too; leave out --base")
    if seed is not None and temperature == 0:
        raise click.UsageError("--seed is of draws, and nothing is drawn; set --temperature")
    load_torch()
    from atoll.trained.chat import Manner
    from atoll.trained.conversation import begun, check_talks
    from atoll.trained.load_run import load_run

    trained = load_run(run, note=note)
    check_talks(trained)
    talk = begun(trained, system=system, chat_template=chat_template)
    arms = ("trained", "base") if compare else ("base",) if base else ("trained",)
    manner = Manner(max_new_tokens, temperature, seed or 0)
    _Session(trained, manner, arms, drop_oldest, output_format is Format.json).hold(talk)


@dataclass(frozen=True)
class _Session:
    """Who answers, and how."""

    run: TrainedRun
    manner: Manner
    arms: tuple[str, ...]
    drop_oldest: bool
    json: bool

    def hold(self, talk: Conversation) -> None:
        """Talk until the user leaves. At a terminal, what goes wrong is said and forgotten."""
        live, begin, turn = sys.stdin.isatty(), talk, 0
        if live:
            note(f"{' and '.join(self.arms)}: {self.run.path}. {COMMANDS}; Ctrl-C stops an answer.")
        for line in _typed() if live else _piped():
            try:
                word, _, rest = line.strip().partition(" ")
                if word == "/quit":
                    return
                if word == "/reset":
                    talk = begin.under(talk.system)
                elif word == "/system":
                    talk = talk.under(rest.strip())
                elif word[:1] == "/" and word[1:].isalpha():
                    raise DataError(f"there is no command {word}; {COMMANDS}")
                elif word:
                    turn += 1
                    talk = self._answered(talk, line, turn)
            except DataError as error:
                if not live:
                    raise
                note(str(error))
            except KeyboardInterrupt:
                if not live:
                    raise
                note("\n(stopped)")

    def _answered(self, talk: Conversation, message: str, turn: int) -> Conversation:
        from atoll.cli.answers import answered
        from atoll.trained.chat import Answer
        from atoll.trained.conversation import shortened

        room = self.manner.max_new_tokens
        kept, ids = shortened(self.run, talk, message, room=room, drop_oldest=self.drop_oldest)
        dropped = len(talk.turns) - len(kept.turns)
        if dropped and sys.stdin.isatty():
            note(f"({dropped} of the oldest turns forgotten)")
        answers = {
            arm: Answer(self.run, ids, self.manner, turn=turn, adapted=arm == "trained")
            for arm in self.arms
        }
        answered({"turn": turn, "asked": message}, answers, json=self.json)
        first = answers[self.arms[0]]
        if first.complete and not first.text and not self.json:
            template = self.run.setup.base.tokenizer.chat_template and not talk.templated
            hint = "; --chat-template asks under its chat template" if template else ""
            note(f"(the model ended its answer before the first word{hint})")
        return kept.then(message, first.text) if first.text or first.complete else kept


def _typed() -> Iterator[str]:
    """Lines of a terminal, with its editing and history where the system has them."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401
    # Line editing needs to know its prompt; a file of answers should not hold it.
    prompt = "> " if sys.stdout.isatty() else ""
    while True:
        try:
            if not prompt:
                typer.echo("> ", nl=False, err=True)
            yield input(prompt)
        except EOFError:
            typer.echo()
            return
        except KeyboardInterrupt:
            note("\n(Ctrl-D leaves)")
        except UnicodeDecodeError as error:
            note(f"that is not UTF-8 text (byte {error.start})")


def _piped() -> Iterator[str]:
    for number, line in enumerate(sys.stdin.buffer, start=1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise DataError(f"stdin:{number}: not UTF-8 text (byte {error.start})") from error
