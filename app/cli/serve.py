"""``logpost serve``: the server, with an option for every setting."""

from __future__ import annotations

import sys
from typing import Any, get_args

import click
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from app.serve import run
from app.settings import Settings, SettingsError, option, variable


def _serve(**options: Any) -> None:
    """Run the server until SIGTERM or Ctrl-C; a second one hurries it.

    Without LOGPOST_DATABASE_URL it runs a Postgres of its own in the data directory. One line on standard output says
    when the server is ready and where; logs go to standard error. Every setting is an environment variable too, and an
    option wins over its variable. Times are in milliseconds where the name ends in -ms.
    """
    try:
        settings = Settings.load(options)
    except SettingsError as error:
        for line in error.lines:
            click.echo(line, err=True)
        sys.exit(2)
    sys.exit(run(settings))


def _option(name: str, field: FieldInfo) -> click.Option:
    """The text goes to Settings as it is: there is one place that knows what is valid, and it names the option."""
    note = f"[{variable(name)}{_default(field)}]"
    if field.annotation is bool:
        negative = "" if name == "insecure" else f"/--no-{option(name).removeprefix('--')}"
        return click.Option([option(name) + negative], is_flag=True, default=None, help=f"{field.description} {note}")
    return click.Option([option(name)], metavar=_metavar(field), help=f"{field.description} {note}")


def _default(field: FieldInfo) -> str:
    if field.annotation is bool:
        return "=" + str(int(field.default))
    return "" if field.default in (None, "", PydanticUndefined) else f"={field.default}"


def _metavar(field: FieldInfo) -> str:
    kinds = set(get_args(field.annotation)) or {field.annotation}
    if int in kinds:
        return "NUMBER"
    if SecretStr in kinds:
        return "KEY"
    words = [kind for kind in kinds if isinstance(kind, str)]
    return "|".join(word for word in get_args(field.annotation) if word in words) if words else "TEXT"


serve = click.Command(
    name="serve",
    callback=_serve,
    help=_serve.__doc__,
    params=[_option(name, field) for name, field in Settings.model_fields.items()],
)
