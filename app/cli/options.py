"""What every client command takes (the server, the API key, JSON or not), and how it fails: one line, exit 1."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from app.cli.batch import LineError
from app.cli.client import CallError, Client, Problem
from app.cli.output import Output

DEFAULT_URL = "http://127.0.0.1:8080"
# The statuses of requests that are wrong in themselves: their faults say where. Those of others repeat the detail.
REFUSED = (400, 413, 415, 422)

Command = Callable[..., Any]


class Failed(click.ClickException):
    """Ends the command: ``logpost: <code>: <what happened>`` on stderr, exit code 1."""

    def show(self, file: Any = None) -> None:
        click.echo(f"logpost: {self.format_message()}", file=file or sys.stderr)


def connected(command: Command) -> Command:
    """Gives a command its ``client`` and ``output`` in front of its own arguments, and the options for them."""
    return _connected(command, ("--api-key", "--key"))


def connected_publisher(command: Command) -> Command:
    """The same where ``--key`` is a message's key."""
    return _connected(command, ("--api-key",))


def _connected(command: Command, key_options: tuple[str, ...]) -> Command:
    @click.option(
        "--url", envvar="LOGPOST_URL", default=DEFAULT_URL, show_default=True, show_envvar=True,
        help="Where the server is.",
    )  # fmt: skip
    @click.option(
        *key_options, "api_key", envvar="LOGPOST_KEY", show_envvar=True,
        help="The API key, sent as a bearer token.",
    )  # fmt: skip
    @click.option("--json", "as_json", is_flag=True, help="Print JSON lines, as when the output is not a terminal.")
    @functools.wraps(command)
    def run(*args: Any, url: str, api_key: str | None, as_json: bool, **kwargs: Any) -> Any:
        try:
            with Client(url, api_key) as client:
                return command(client, Output(as_json=as_json), *args, **kwargs)
        except Problem as problem:
            raise Failed(sentence(problem)) from problem
        except (CallError, LineError) as error:
            raise Failed(str(error)) from error
        except UnicodeEncodeError as error:
            raise Failed(f"an argument is not UTF-8 ({error.reason})") from error

    return run


def sentence(problem: Problem) -> str:
    """The problem in one line; of a refusal every fault that its detail does not name already."""
    parts = [str(problem)]
    for fault in problem.faults if problem.status in REFUSED else ():
        words = [str(fault[name]) for name in ("field", "path", "reason") if fault.get(name)]
        if not all(word in problem.detail for word in words):
            parts.append(": ".join(words))
    return " | ".join(part.replace("\n", " ") for part in parts)


def document_option(command: Command) -> Command:
    """``--config``: a whole configuration, for what has no option of its own."""
    return click.option(
        "--config", "document", metavar="JSON|@FILE", callback=_document,
        help="The configuration as JSON, or @ and the name of a file with it (@- is stdin); other options go on top.",
    )(command)  # fmt: skip


def confirm(question: str, *, yes: bool) -> None:
    """Asks before something that cannot be undone, where there is somebody to ask."""
    if not yes and sys.stdin.isatty() and sys.stdout.isatty():
        click.confirm(question, abort=True)


def placed(document: dict[str, Any], given: Mapping[str, Any], places: Mapping[str, str]) -> dict[str, Any]:
    """``document`` with every option that was given at its place, a dotted name; None was not given."""
    for option, value in given.items():
        if value is None:
            continue
        *parents, last = places[option].split(".")
        place = document
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise click.UsageError(f"{parent} in --config is not an object")
        place[last] = value
    return document


def _document(_context: click.Context, _parameter: click.Parameter, value: str | None) -> dict[str, Any]:
    if value is None:
        return {}
    try:
        if value == "@-":
            value = sys.stdin.read()
        elif value.startswith("@"):
            value = Path(value[1:]).read_text(encoding="utf-8")
        document = json.loads(value)
    except (OSError, ValueError) as error:
        raise click.BadParameter(str(error)) from error
    if not isinstance(document, dict):
        raise click.BadParameter("must be a JSON object")
    return document
