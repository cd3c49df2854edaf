"""The command line: ``logpost serve``, and the commands of a client.

A command's module is imported when the command runs, so that ``logpost publish`` does not pay for the server's
libraries. To add a command, write it with click in a module here and name it in ``COMMANDS``.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

import click

# Command → where it is. In the order of the help page.
COMMANDS = {
    "serve": "app.cli.serve:serve",
    "topics": "app.cli.topics:topics",
    "groups": "app.cli.groups:groups",
    "publish": "app.cli.publish:publish",
    "pull": "app.cli.pull:pull",
    "tail": "app.cli.tail:tail",
    "listen": "app.cli.listen:listen",
    "forward": "app.cli.forward:forward",
    "lag": "app.cli.lag:lag",
    "dead-letters": "app.cli.dead_letters:dead_letters",
    "keys": "app.cli.keys:keys",
}


class LazyGroup(click.Group):
    """A group of commands that are imported when they are asked for."""

    def __init__(self, *, commands: Mapping[str, str], **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self._places = commands

    def list_commands(self, _context: click.Context) -> list[str]:
        return list(self._places)

    def get_command(self, _context: click.Context, name: str) -> click.Command | None:
        place = self._places.get(name)
        if place is None:
            return None
        module, _, attribute = place.partition(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command


main = LazyGroup(
    name="logpost",
    commands=COMMANDS,
    help="Durable publish/subscribe over plain HTTP, on Postgres.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
click.version_option(package_name="logpost", message="%(prog)s %(version)s")(main)
