"""The commands that keep daemons under names: `pydotcompute context add`, `use`, `ls` and `rm`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from pydotcompute_client.cli import tables
from pydotcompute_client.cli.connection import PROGRAM, Connection
from pydotcompute_client.cli.failures import BadInput, Failure
from pydotcompute_client.cli.output import echo_json
from pydotcompute_client.cli.parameters import pass_daemon
from pydotcompute_client.contexts import CONTEXTS_VARIABLE, SETTINGS, Contexts, check_context_name, write_contexts

__all__ = ["COMMANDS", "NOT_KEPT"]

NOT_KEPT = {
    "token": "--token: a context keeps no token; write it to a file, and name that with --token-file",
    "insecure": "--insecure: no context allows plain text; give it with the commands that need it",
    "context": "--context: a context is not made from another one; give the options that it is to keep",
}
"""The options of the connection that a context does not keep, with the error for each."""


@click.group()
def context() -> None:
    """Keep daemons under names: address, TLS and token.

    The context in use counts wherever neither --target nor PYDOTCOMPUTE_TARGET says where the daemon is.
    """


@context.command()
@click.argument("name")
@pass_daemon
def add(daemon: Connection, name: str) -> None:
    """Keep the options --target, --tls, --tls-… and --token-file of this command as a context.

    The first context is in use from then on.
    """
    check_context_name(name)
    for option, error in NOT_KEPT.items():
        if option in daemon.typed:
            raise BadInput(error)
    if "target" not in daemon.typed:
        raise BadInput("--target is missing: where does the daemon listen?")
    contexts = daemon.contexts
    contexts.by_name[name] = {key: _plain(daemon.typed[key]) for key in SETTINGS if key in daemon.typed}
    contexts.current = contexts.current or name
    write_contexts(daemon.contexts_path, contexts)


def _plain(value: Any) -> Any:
    return os.path.abspath(value) if isinstance(value, Path) else value


@context.command()
@click.argument("name")
@pass_daemon
def use(daemon: Connection, name: str) -> None:
    """Use this context from now on."""
    contexts = daemon.contexts
    _require(contexts, name)
    contexts.current = name
    write_contexts(daemon.contexts_path, contexts)


@context.command()
@pass_daemon
def ls(daemon: Connection) -> None:
    """List the contexts; * marks the one in use."""
    contexts = daemon.contexts
    if daemon.as_json:
        found = [{"name": name, "current": name == contexts.current, **each} for name, each in contexts.by_name.items()]
        echo_json({"contexts": found})
    else:
        tables.show_contexts(contexts.current, contexts.by_name)


@context.command()
@click.argument("name")
@pass_daemon
def rm(daemon: Connection, name: str) -> None:
    """Forget a context. If it was in use, none is."""
    contexts = daemon.contexts
    _require(contexts, name)
    del contexts.by_name[name]
    if contexts.current == name:
        contexts.current = ""
    write_contexts(daemon.contexts_path, contexts)


def _require(contexts: Contexts, name: str) -> None:
    if name not in contexts.by_name:
        known = ", ".join(contexts.by_name) or f"none; `{PROGRAM} context add` makes one, in {CONTEXTS_VARIABLE}"
        raise Failure(f"there is no context {name!r}; there are {known}")


COMMANDS = (context,)
