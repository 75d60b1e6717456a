"""Parse, call, print. Heavy imports wait until a command needs them."""

from __future__ import annotations

import errno
import os
import re
import sys
from typing import Annotated

import click
import typer

from atoll import __version__
from atoll.cli.audit import audit
from atoll.cli.certs import certs
from atoll.cli.chat import chat
from atoll.cli.client import client
from atoll.cli.data import data
from atoll.cli.doctor import doctor
from atoll.cli.egress import egress
from atoll.cli.evaluate import evaluate
from atoll.cli.export import export
from atoll.cli.federation import with_port
from atoll.cli.plan import plan
from atoll.cli.predict import predict
from atoll.cli.privacy import privacy
from atoll.cli.process import INTERRUPTED
from atoll.cli.recipes import init, recipes
from atoll.cli.report import report
from atoll.cli.run import run
from atoll.cli.schema import schema
from atoll.cli.server import server
from atoll.cli.status import logs, status, stop
from atoll.errors import AtollError, out_of_memory

__all__ = ["app", "guarded", "silence"]

MEMORY = (
    "not enough memory; lower train.group_size, a batch size or data.max_length (`atoll plan FILE` "
    "tells what each saves)"
)
CONTEXT = {"help_option_names": ["-h", "--help"]}
app = typer.Typer(
    name="atoll",
    help="Federated foundation models: fine-tune over data that never leaves its owner.",
    epilog="Start with: atoll run quickstart. Exit codes: 0 done; 2 experiment file or command "
    "line; 3 data; 4 model; 5 payload; 6 run directory; 7 too few clients; 8 certificates; 9 a "
    "site's policy; 10 a promise of privacy; 130 interrupted.",
    invoke_without_command=True,
    context_settings=CONTEXT,
    add_completion=False,
    pretty_exceptions_enable=False,
    # Plain help is there in half of the time.
    rich_markup_mode=None,
)
app.command("run", context_settings=CONTEXT)(run)
app.command("plan", context_settings=CONTEXT)(plan)
app.command("eval", context_settings=CONTEXT)(evaluate)
app.command("predict", context_settings=CONTEXT)(predict)
app.command("chat", context_settings=CONTEXT)(chat)
app.command("audit", context_settings=CONTEXT)(audit)
app.command("report", context_settings=CONTEXT)(report)
app.command("export", context_settings=CONTEXT)(export)
app.command("recipes", context_settings=CONTEXT)(recipes)
app.command("init", context_settings=CONTEXT)(init)
app.command("schema", context_settings=CONTEXT)(schema)
app.command("doctor", context_settings=CONTEXT)(doctor)
app.command("server", context_settings=CONTEXT)(server)
app.command("status", context_settings=CONTEXT)(status)
app.command("stop", context_settings=CONTEXT)(stop)
app.command("logs", context_settings=CONTEXT)(logs)
app.add_typer(client, name="client")
app.add_typer(data, name="data")
app.add_typer(certs, name="certs")
app.add_typer(egress, name="egress")
app.add_typer(privacy, name="privacy")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"atoll {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it and exit.")
    ] = False,
    traceback: Annotated[
        bool, typer.Option("--traceback", help="Show where in the code an error comes from.")
    ] = False,
) -> None:
    # `guarded` takes --traceback away: it must know even when parsing fails.
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def guarded(arguments: list[str]) -> int:
    """Run a command and turn what goes wrong into a sentence and an exit code."""
    arguments = with_port(arguments)
    if "--traceback" in arguments:
        arguments = [word for word in arguments if word != "--traceback"]
        return int(app(arguments, prog_name="atoll", standalone_mode=False) or 0)
    try:
        code = int(app(arguments, prog_name="atoll", standalone_mode=False) or 0)
        sys.stdout.flush()
        # Typer turns Ctrl-C into a code.
        return _fail("interrupted", code) if code == INTERRUPTED else code
    except AtollError as error:
        return _fail(str(error), error.exit_code)
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "atoll"
        return _fail(f"{_once(error.format_message())}\nSee `{command} --help`.", error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        return _fail("interrupted", INTERRUPTED)
    except OSError as error:
        return _fail_to_write(error)
    except Exception as error:  # The last resort: a defect of ours, or of a library.
        if out_of_memory(error):
            return _fail(MEMORY, 1)
        what = f"{type(error).__name__}: {error}"
        again = "run `atoll --traceback ...` to see where, and please report it"
        return _fail(f"this should not have happened: {what}\n{again}", 1)


def _once(message: str) -> str:
    """Without a sentence said twice: click and typer both guess at what was meant."""
    return " ".join(dict.fromkeys(re.split(r"(?<=[.?]) ", message)))


def _fail(message: str, code: int) -> int:
    label = click.style("Error:", fg="red", bold=True)
    click.echo(f"{label} {message}", err=True)
    return code


def silence() -> None:
    """Drop what stdout still holds: it would be tried again, and complained about, at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail_to_write(error: OSError) -> int:
    """Standard output, most often: the reader has gone, or the disk behind it is full."""
    silence()
    if error.errno == errno.EPIPE:
        return 0
    return _fail(str(error), 6)
