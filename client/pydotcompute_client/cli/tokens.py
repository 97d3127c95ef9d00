"""The commands for the daemon's file of tokens: `pydotcompute token new`, `ls` and `revoke`. No daemon is asked."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from pydotcompute.access.roles import Grant, Role, checked_patterns
from pydotcompute.access.token_file import add_token, load_tokens, revoke_tokens
from pydotcompute.access.tokens import Token, fields_of, new_token
from pydotcompute.exceptions import InvalidConfigurationError
from pydotcompute_client.cli import tables
from pydotcompute_client.cli.connection import Connection
from pydotcompute_client.cli.failures import BadInput, Failure
from pydotcompute_client.cli.output import echo_json
from pydotcompute_client.cli.parameters import pass_daemon

__all__ = ["COMMANDS"]

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@click.group()
def token() -> None:
    """Make, list and revoke the tokens with which clients say who they are.

    They are in a file, which the daemon is started with: `pydotcompute-server --tokens FILE`. The daemon reads it
    again when it changes.
    """


_tokens_file = click.option(
    "--file",
    "path",
    required=True,
    envvar="PYDOTCOMPUTE_TOKENS",
    show_envvar=True,
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The daemon's file of tokens.",
)


def _until(ctx: click.Context, param: click.Parameter, text: str) -> datetime | None:
    """Return the time until which a token is valid, None for ever. BadParameter if the text says none."""
    if text == "never":
        return None
    now = datetime.now(UTC).replace(microsecond=0)
    found = re.fullmatch(r"([1-9][0-9]{0,5})([mhdw])", text)
    try:
        if found is not None:
            return now + timedelta(**{_UNITS[found[2]]: int(found[1])})
        until = datetime.fromisoformat(text)
    except (OverflowError, ValueError):
        raise click.BadParameter(f"{text!r} is no time: as 90d, 12h, 2027-01-31 or never.", ctx, param) from None
    until = until.astimezone(UTC)
    if until <= now:
        raise click.BadParameter(f"{text!r} is over.", ctx, param)
    return until


@token.command()
@click.argument("name")
@click.option(
    "--role",
    type=click.Choice([role.word for role in Role]),
    help="What the token is good for. Without it, the daemon's file of roles says so (--access).",
)
@click.option(
    "--kernels",
    multiple=True,
    metavar="PATTERN",
    help="Ids of the kernels for which the role is: * is any characters, ? one. Without it, for all. Repeatable.",
)
@click.option(
    "--types",
    multiple=True,
    metavar="PATTERN",
    help="Names of the kernel types that an operator may launch under these ids. Repeatable.",
)
@click.option(
    "--expires",
    default="90d",
    show_default=True,
    callback=_until,
    metavar="TIME",
    help="When the token ends: after 90d, 12h or 30m, on 2027-01-31, or never.",
)
@_tokens_file
@pass_daemon
def new(
    daemon: Connection,
    name: str,
    role: str | None,
    kernels: tuple[str, ...],
    types: tuple[str, ...],
    expires: datetime | None,
    path: Path,
) -> None:
    """Make a token for NAME, and print it. It is not kept, only its hash, so it is printed only now.

    Somebody may have several tokens: for a new one, make it, hand it out, and revoke the old one.
    """
    if role is None and (kernels or types):
        raise BadInput("--role is missing: --kernels and --types have no effect without it")
    made: list[tuple[str, Token]] = []

    def make(tokens: dict[str, Token]) -> Token:
        grant = None
        if role is not None:
            patterns = checked_patterns("--kernels", kernels or ("*",))
            grant = Grant(Role.of(role), patterns, checked_patterns("--types", types))
        made.append(new_token(name, grant, expires, tokens))
        return made[0][1]

    try:
        add_token(path, make)
    except InvalidConfigurationError as error:
        raise BadInput(_text(error)) from None
    secret, kept = made[0]
    if daemon.as_json:
        echo_json({**fields_of(kept), "token": secret})
    else:
        click.echo(secret)


@token.command()
@_tokens_file
@pass_daemon
def ls(daemon: Connection, path: Path) -> None:
    """List the tokens, without the tokens themselves: nobody has them but those they were handed to."""
    tokens = _load(path).values()
    if daemon.as_json:
        echo_json({"tokens": [fields_of(each) for each in tokens]})
    else:
        tables.show_tokens(tokens, datetime.now(UTC))


@token.command()
@click.argument("tokens", nargs=-1, required=True, metavar="TOKEN-OR-NAME...")
@_tokens_file
def revoke(tokens: tuple[str, ...], path: Path) -> None:
    """Revoke tokens by their ids, or all tokens of a name."""
    known = _load(path)
    ids: set[str] = set()
    for text in tokens:
        found = {each.id for each in known.values() if text in (each.id, each.name)}
        if not found:
            raise Failure(f"there is no token {text!r} in {path}, and no token of that name")
        ids |= found
    try:
        revoke_tokens(path, ids)
    except InvalidConfigurationError as error:
        raise BadInput(_text(error)) from None
    click.echo(f"revoked: {' '.join(sorted(ids))}")


def _load(path: Path) -> dict[str, Token]:
    try:
        return load_tokens(path)
    except InvalidConfigurationError as error:
        raise BadInput(_text(error)) from None


def _text(error: InvalidConfigurationError) -> str:
    return f"{error.value}: {error.problem}" if error.parameter == "file" else str(error)


COMMANDS = (token,)
