"""The commands that make certificates, without a daemon."""

from __future__ import annotations

import errno
import os
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pydotcompute.wire.addresses import DEFAULT_PORT
from pydotcompute.wire.certificates import AUTHORITY, CERTIFICATE, KEY
from pydotcompute_client.cli.connection import PROGRAM
from pydotcompute_client.cli.failures import BadInput, Failure

if TYPE_CHECKING:
    from pydotcompute_client.authority import Authority

__all__ = ["COMMANDS"]

HERE = ("localhost", "127.0.0.1", "::1")
"""What a daemon is called on its own machine; so its health check reaches it."""

_directory = click.argument("directory", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
_days = click.option(
    "--days", default=365, show_default=True, type=click.IntRange(1, 3650), help="How long the certificates are valid."
)


@click.group()
def tls() -> None:
    """Make certificates for a daemon and its clients."""


def _checked(pattern: str, what: str) -> Any:
    def check(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
        for each in [value] if isinstance(value, str) else value or ():
            if not re.fullmatch(pattern, each, re.ASCII):
                raise click.BadParameter(f"{each!r} is no {what}.", ctx, param)
        return value

    return check


_is_host = _checked(r"(\*\.)?[A-Za-z0-9_]([A-Za-z0-9._-]{0,251}[A-Za-z0-9_])?|[0-9A-Fa-f:.]+", "host name or address")
_is_client = _checked(r"[A-Za-z0-9_@][A-Za-z0-9._@-]{0,63}", "name of letters, digits, and . _ @ -")


@tls.command()
@_directory
@click.option(
    "--name",
    "names",
    multiple=True,
    metavar="HOST",
    callback=_is_host,
    help="A host name or an address by which clients call the daemon, besides localhost. Repeatable.",
)
@click.option(
    "--client",
    "clients",
    multiple=True,
    default=["client"],
    show_default=True,
    metavar="NAME",
    callback=_is_client,
    help="A client to make a certificate for. Repeatable.",
)
@_days
def init(directory: Path, names: tuple[str, ...], clients: tuple[str, ...], days: int) -> None:
    """Make an authority, and certificates that it has signed: the daemon's, and one for each client.

    What is in DIR/server is for the daemon, what is in DIR/clients/NAME for that client. DIR/authority is for nobody:
    whoever has the key in it can make certificates for any name. Nothing that exists is overwritten.
    """
    authority = _authority_module()
    hosts = tuple(dict.fromkeys((*names, *HERE)))
    with _told(directory):
        for place in ("authority", "server", *(f"clients/{client}" for client in clients)):
            if (directory / place).exists():
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(directory / place))
        ours = authority.make(directory / "authority")
        ours.issue_server(directory / "server", hosts, days)
        for client in clients:
            ours.issue_client(directory / "clients" / client, client, days)
    click.echo(f"{directory} has an authority, a certificate of the daemon for {', '.join(hosts)},")
    click.echo(f"and a certificate of each client: {', '.join(clients)}. They are valid for {days} days.")
    click.echo(f"Keep {directory / 'authority'} to yourself: whoever has it can be anybody.")
    click.echo(f"\nDaemon:\n  {PROGRAM}-server KERNELS --listen 0.0.0.0:{DEFAULT_PORT} {_option(directory / 'server')}")
    image = "docker run --rm -p 50051:50051 -v KERNELS:/kernels:ro"
    mount = shlex.quote(f"{(directory / 'server').resolve()}:/tls:ro")
    click.echo(f'\nThe same as a container:\n  {image} -v {mount} --user "$(id -u):$(id -g)" pydotcompute:cpu')
    _echo_client(directory / "clients" / clients[0], hosts[0])


@tls.command()
@_directory
@click.argument("name", callback=_is_client)
@_days
def client(directory: Path, name: str, days: int) -> None:
    """Make a certificate for one more client, in DIR/clients/NAME, with the authority of `tls init`."""
    with _told(directory):
        place = directory / "clients" / name
        _authority(directory).issue_client(place, name, days)
    click.echo(f"{place} has a certificate of the client {name}, valid for {days} days.")
    _echo_client(place, "HOST")


@tls.command()
@_directory
@click.argument("name", required=False, callback=_is_client)
@_days
def renew(directory: Path, name: str | None, days: int) -> None:
    """Replace the daemon's certificate, or that of the client NAME, by one that is valid from now on.

    The key stays. A daemon that runs reads the new certificate by itself, and no connection is lost.
    """
    place = directory / "server" if name is None else directory / "clients" / name
    with _told(directory):
        _authority(directory).renew(place, days)
    click.echo(f"{place / CERTIFICATE} is valid for {days} days from now on.")


def _echo_client(place: Path, host: str) -> None:
    target = f"{host}:{DEFAULT_PORT}"
    files = " ".join(
        f"-{flag} {shlex.quote(str(place / name))}"
        for flag, name in (("cacert", AUTHORITY), ("cert", CERTIFICATE), ("key", KEY))
    )
    click.echo(f"\nClient:\n  {PROGRAM} --target {target} {_option(place)} ps")
    click.echo(f'\nThe same in Python:\n  connect("{target}", tls=TLS.directory({str(place)!r}))')
    click.echo(f"\nThe same with grpcurl:\n  grpcurl {files} {target} list")


def _option(place: Path) -> str:
    return f"--tls-directory {shlex.quote(str(place))}"


def _authority_module() -> type[Authority]:
    """Return the class of authorities. Failure if the library for it is not installed."""
    try:
        from pydotcompute_client.authority import Authority
    except ImportError:
        raise Failure("certificates need the library cryptography: pip install 'pydotcompute-grpc[tls]'") from None
    return Authority


def _authority(directory: Path) -> Authority:
    return _authority_module()(directory / "authority")


@contextmanager
def _told(directory: Path) -> Iterator[None]:
    """Turn what goes wrong with files into one line."""
    try:
        yield
    except FileExistsError as error:
        raise Failure(f"{error.filename} exists, and is not overwritten") from None
    except FileNotFoundError as error:
        raise Failure(f"{error.filename} does not exist; `{PROGRAM} tls init {directory}` makes it") from None
    except OSError as error:
        raise BadInput(f"{error.filename}: {error.strerror}") from None
    except ValueError as error:
        raise BadInput(f"{directory}: {error}") from None


COMMANDS = (tls,)
