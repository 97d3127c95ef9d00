"""The command `pydotcompute`, with which people and shell scripts use the kernels of a daemon."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

# gRPC reads this variable when it is imported, so no import above may import gRPC. With it, gRPC prints nothing on
# stderr, and the command reports a failed connection in one line of its own.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import click
from click.core import ParameterSource

from pydotcompute import __version__
from pydotcompute.exceptions import (
    ConnectionLostError,
    InvalidConfigurationError,
    PyDotComputeError,
    SessionLostError,
)
from pydotcompute_client.cli import (
    clients,
    conformance,
    contexts,
    dead_letters,
    kernels,
    messages,
    proto,
    tls,
    tokens,
)
from pydotcompute_client.cli.completion import COMPLETERS
from pydotcompute_client.cli.connection import DEFAULT_TARGET, PROGRAM, Connection
from pydotcompute_client.cli.failures import Failure, TimedOut, Unreachable
from pydotcompute_client.targets import checked_target

__all__ = ["main"]

INTERRUPTED = 130
"""The exit code after Ctrl-C."""

EPILOG = """\b
TLS:
  Any of the --tls options asks for TLS, and if one but --tls-name is given,
  --tls-directory does not count. A container can have the variables of the
  daemon and these: PYDOTCOMPUTE_TLS_DIRECTORY and PYDOTCOMPUTE_INSECURE are for
  both. Others that its health check may need are PYDOTCOMPUTE_TLS_NAME, if the
  daemon's certificate is not for the address in PYDOTCOMPUTE_TARGET, such as
  127.0.0.1; PYDOTCOMPUTE_TLS_CA; and if the daemon has a --tls-client-ca,
  PYDOTCOMPUTE_TLS_CLIENT_CERTIFICATE and PYDOTCOMPUTE_TLS_CLIENT_KEY.

\b
Exit codes:
  0    done
  1    the daemon refused; `health`: not serving
  2    wrong usage, or a body that is no JSON of the kernel's input type
  3    the daemon cannot be reached
  4    nothing came in time
  130  interrupted"""


def _remember(ctx: click.Context, param: click.Parameter, value: str | Path | bool | None) -> None:
    """Store a global option in the `Connection`. An option given after the command comes last, and wins."""
    if value == "":
        raise click.BadParameter("it is empty.", ctx, param)
    # Click ignores an empty variable. A file that a script failed to name must not turn encryption off.
    if value in (None, False) and isinstance(param.envvar, str) and os.environ.get(param.envvar) == "":
        raise click.BadParameter(f"the variable {param.envvar} is empty; unset it, or give it a value.", ctx, param)
    if value not in (None, False) and param.name:
        source = ctx.get_parameter_source(param.name)
        connection = ctx.ensure_object(Connection)
        if source is not ParameterSource.DEFAULT:
            connection.given[param.name] = value
        if source is ParameterSource.COMMANDLINE:
            connection.typed[param.name] = value


class _Target(click.types.StringParamType):
    """An address of a daemon."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the target for gRPC. Fails if the value is no address."""
        try:
            return checked_target(value) if value else value
        except InvalidConfigurationError as error:
            self.fail(f"{value!r} is {error.problem}.", param, ctx)


_DIRECTORY = {"type": click.Path(exists=True, file_okay=False, path_type=Path), "metavar": "DIR"}
_FILE = {"type": click.Path(exists=True, dir_okay=False, path_type=Path), "metavar": "FILE"}

GLOBAL_OPTIONS: dict[str, dict[str, Any]] = {
    "--target": {
        "envvar": "PYDOTCOMPUTE_TARGET",
        "default": DEFAULT_TARGET,
        "show_default": True,
        "type": _Target(),
        "metavar": "HOST:PORT",
        "help": "Where the daemon listens; also unix:PATH.",
    },
    "--context": {
        "envvar": "PYDOTCOMPUTE_CONTEXT",
        "metavar": "NAME",
        "help": "What `context add` keeps under this name, in place of --target and the like.",
    },
    "--json": {"is_flag": True, "help": "Print JSON, for programs."},
    "--tls": {
        "envvar": "PYDOTCOMPUTE_TLS",
        "is_flag": True,
        "help": "Use TLS, and trust whom this machine trusts.",
    },
    "--tls-directory": {
        "envvar": "PYDOTCOMPUTE_TLS_DIRECTORY",
        "help": "Use TLS with the tls.crt, tls.key and ca.crt in it, as `tls init` makes them.",
        **_DIRECTORY,
    },
    "--tls-ca": {
        "envvar": "PYDOTCOMPUTE_TLS_CA",
        "help": "Use TLS, and trust this authority alone; PEM.",
        **_FILE,
    },
    "--tls-name": {
        "envvar": "PYDOTCOMPUTE_TLS_NAME",
        "metavar": "NAME",
        "help": "The name that the daemon's certificate is for, if it is not the target's.",
    },
    "--tls-certificate": {
        "envvar": "PYDOTCOMPUTE_TLS_CLIENT_CERTIFICATE",
        "help": "The certificate chain to present, if the daemon asks for one; PEM.",
        **_FILE,
    },
    "--tls-key": {
        "envvar": "PYDOTCOMPUTE_TLS_CLIENT_KEY",
        "help": "The key of that certificate; PEM, without a passphrase.",
        **_FILE,
    },
    "--insecure": {
        "envvar": "PYDOTCOMPUTE_INSECURE",
        "is_flag": True,
        "help": "Speak plain text if there is nothing in the TLS directory.",
    },
    "--token": {
        "envvar": "PYDOTCOMPUTE_TOKEN",
        "metavar": "TOKEN",
        "help": "The token that says who you are. Others on this machine can see it: a file is better.",
    },
    "--token-file": {
        "envvar": "PYDOTCOMPUTE_TOKEN_FILE",
        "help": "The file with the token that says who you are.",
        **_FILE,
    },
}
"""The options that can be given before the command and after it."""


def _global_options(*, before_command: bool) -> list[click.Parameter]:
    """Return the global options for the program itself, or for one of its commands."""
    options: list[click.Parameter] = []
    for name, settings in GLOBAL_OPTIONS.items():
        if before_command:
            settings = {**settings, "show_envvar": "envvar" in settings}
        else:
            # Only the option before the command has the variable and the default. Here they would replace a value that
            # was given before the command.
            settings = {key: value for key, value in settings.items() if key not in ("envvar", "default")}
            settings["hidden"] = name.startswith(("--tls", "--insecure", "--token", "--context"))
            if name == "--target":
                settings["help"] = f"As before the command, as are --tls, --token and --context: {PROGRAM} --help."
        names = [name, "as_json"] if name == "--json" else [name]
        options.append(click.Option(names, callback=_remember, expose_value=False, **settings))
    return options


class _Program(click.Group):
    """Gives each command the global options, and each error its line and its exit code."""

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """Add a command, or a group of commands, with the global options."""
        for command in (cmd, *(cmd.commands.values() if isinstance(cmd, click.Group) else ())):
            command.params.extend(_global_options(before_command=False))
        super().add_command(cmd, name)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, and turn each error into a line on stderr and an exit code."""
        try:
            return super().invoke(ctx)
        except PyDotComputeError as error:
            if isinstance(error, ConnectionLostError) and not isinstance(error, SessionLostError):
                raise Unreachable(f"{error}; {_hint(ctx.ensure_object(Connection))}") from None
            failure = TimedOut if isinstance(error, TimeoutError) else Failure
            raise failure(f"{error} (at {ctx.ensure_object(Connection).target})") from None
        except RecursionError:
            # Only what the daemon sends can be so deep: the types of messages, or a body.
            raise Failure(f"too many messages inside each other (at {ctx.ensure_object(Connection).target})") from None
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)


def _hint(daemon: Connection) -> str:
    """Return a hint at the usual causes when the daemon cannot be reached."""
    if daemon.chosen_tls is not None:
        return (
            "is pydotcompute-server running there, and does it speak TLS? --tls-ca says whom to trust, --tls-name for "
            "which name its certificate is, --tls-certificate and --tls-key who you are; --tls-directory says all"
        )
    return (
        "is pydotcompute-server running there? --target or PYDOTCOMPUTE_TARGET say where it is, "
        "--tls, --tls-ca or --tls-directory that it speaks TLS"
    )


@click.group(cls=_Program, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
@click.pass_context
def main(ctx: click.Context) -> None:
    """Launch, use and watch the kernels of a pydotcompute daemon."""
    ctx.call_on_close(ctx.ensure_object(Connection).close)


@click.command()
@click.argument("shell", type=click.Choice([*COMPLETERS]))
def completion(shell: str) -> None:
    """Print a script that completes commands, options and kernels.

    \b
    bash:  eval "$(pydotcompute completion bash)"                     in ~/.bashrc
    zsh:   eval "$(pydotcompute completion zsh)"                      in ~/.zshrc
    fish:  pydotcompute completion fish > ~/.config/fish/completions/pydotcompute.fish
    """  # noqa: D301  # Click needs the character \b itself: it keeps the lines of a paragraph.
    click.echo(COMPLETERS[shell](main, {}, PROGRAM, f"_{PROGRAM.upper()}_COMPLETE").source())


main.params[:0] = _global_options(before_command=True)
for command in (
    *kernels.COMMANDS,
    *messages.COMMANDS,
    *dead_letters.COMMANDS,
    *clients.COMMANDS,
    *proto.COMMANDS,
    *contexts.COMMANDS,
    *tokens.COMMANDS,
    *tls.COMMANDS,
    *conformance.COMMANDS,
    completion,
):
    main.add_command(command)
