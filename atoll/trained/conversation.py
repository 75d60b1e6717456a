"""A conversation with a trained language model: what was said, and the prompt that it makes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from atoll.errors import DataError, ModelError
from atoll.models.checks import reads_at_most
from atoll.models.texts import prompt_of
from atoll.trained.load_run import TrainedRun
from atoll.trained.predict import asked

__all__ = ["Conversation", "Turn", "begun", "check_talks", "longest_row", "prompt_ids", "shortened"]


@dataclass(frozen=True)
class Turn:
    """What the user asked, and what the model answered."""

    asked: str
    answered: str


@dataclass(frozen=True)
class Conversation:
    """Everything that a prompt is made of.

    templated: turns are messages under the tokenizer's chat template; else the conversation is one
        text, in which each message is asked as the rows of training were.
    """

    templated: bool
    turns: tuple[Turn, ...] = ()
    system: str | None = None

    def then(self, message: str, answer: str) -> Conversation:
        """The conversation after one more turn."""
        return replace(self, turns=(*self.turns, Turn(message, answer)))

    def under(self, system: str | None) -> Conversation:
        """The conversation with another system message, or none.

        Raises:
            DataError: where there is no place for one.
        """
        if system and not self.templated:
            raise DataError(
                "this run is asked in plain text, as its rows were, and that has no place for a "
                "system message; only chats under a chat template have one"
            )
        return replace(self, system=system or None)


def check_talks(run: TrainedRun) -> None:
    """Refuse a model that writes no text.

    Raises:
        ModelError: for any model that is no causal language model.
    """
    if run.setup.base.auto_class != "AutoModelForCausalLM":
        raise ModelError(
            f"{run.path} was trained for {run.setup.experiment.model.task} and writes no text; "
            f'`atoll predict {run.path} --text "..."` says what it makes of a text'
        )


def begun(run: TrainedRun, *, system: str | None, chat_template: bool) -> Conversation:
    """A conversation without turns, asked as the rows of training were.

    chat_template: under the tokenizer's chat template, whatever those rows were.

    Raises:
        DataError: where there is no chat template, or no place for a system message.
    """
    if chat_template and not run.setup.base.tokenizer.chat_template:
        raise DataError(
            f"the tokenizer of {run.setup.base.source.hub_id} has no chat template; leave out "
            "--chat-template to ask in plain text"
        )
    return Conversation(templated=run.chat or chat_template).under(system)


def longest_row(run: TrainedRun) -> int:
    """The most tokens that the model reads, its answer included."""
    return reads_at_most(run.setup.base.backbone, run.setup.base.tokenizer)


def shortened(
    run: TrainedRun, talk: Conversation, message: str, *, room: int, drop_oldest: bool
) -> tuple[Conversation, list[int]]:
    """The conversation that fits, and its prompt.

    room: tokens to keep for the answer, where turns are dropped for it.

    Raises:
        DataError: when it is too long and no turn may be dropped, or none is left to drop.
    """
    limit = longest_row(run)
    # Half of what the model reads, at least, is for the conversation.
    most = limit - min(room, limit // 2)
    ids = prompt_ids(run, talk, message)
    while drop_oldest and talk.turns and len(ids) > most:
        talk = replace(talk, turns=talk.turns[1:])
        ids = prompt_ids(run, talk, message)
    if len(ids) < limit:
        return talk, ids
    if talk.turns:
        raise DataError(
            f"the conversation is {len(ids)} tokens long, but the model reads at most {limit}; "
            "/reset begins a new one, and with --drop-oldest its oldest turns are forgotten"
        )
    raise DataError(
        f"this message is {len(ids)} tokens long, but the model reads at most {limit}, its answer "
        "included; ask something shorter"
    )


def prompt_ids(run: TrainedRun, talk: Conversation, message: str) -> list[int]:
    """The tokens before the answer to a message.

    Raises:
        DataError: when the chat template does not take the conversation.
    """
    tokenizer = run.setup.base.tokenizer
    if talk.templated:
        messages = [{"role": "system", "content": talk.system}] if talk.system else []
        for turn in talk.turns:
            messages.append({"role": "user", "content": turn.asked})
            messages.append({"role": "assistant", "content": turn.answered})
        messages.append({"role": "user", "content": message})
        return prompt_of(tokenizer, {"messages": messages})
    # A text goes on in the next line; prompts follow each other as blocks.
    between = "\n" if run.kind.startswith("text") else "\n\n"
    ids = list[int]()
    for turn in talk.turns:
        ids += _plain(run, turn.asked, first=not ids)
        ids += tokenizer(turn.answered + between, add_special_tokens=False)["input_ids"]
    return ids + _plain(run, message, first=not ids)


def _plain(run: TrainedRun, message: str, *, first: bool) -> list[int]:
    """A message as the rows of training were asked; only the first one begins a text."""
    tokenizer = run.setup.base.tokenizer
    ids = prompt_of(tokenizer, asked(run, {"text": message}))
    begins = ids[:1] == [tokenizer.bos_token_id]
    return ids if first or not begins else ids[1:]
