"""The command `pydotcompute-server`."""

from __future__ import annotations

import faulthandler
import logging
import os
from collections.abc import Callable
from dataclasses import fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import click

from pydotcompute import __version__
from pydotcompute.exceptions import InvalidConfigurationError, PyDotComputeError
from pydotcompute.printable import escaped
from pydotcompute.ring_kernels.declaration import Isolation
from pydotcompute.schema import lock
from pydotcompute.wire.certificates import require_known_variables
from pydotcompute_server.access.access import Access
from pydotcompute_server.daemon import ListenError
from pydotcompute_server.describing.process import describe_kernel_types
from pydotcompute_server.limits import Limits
from pydotcompute_server.loading import LoadError, load_kernel_types
from pydotcompute_server.process.logs import LogFormat, logging_to_stderr
from pydotcompute_server.process.main import Process, exit_soon
from pydotcompute_server.process.signals import Signals
from pydotcompute_server.process.standard_files import StandardFiles
from pydotcompute_server.settings import MissingSettingError, Settings
from pydotcompute_server.transport.exposure import require_protection
from pydotcompute_server.transport.renewal import read_files

__all__ = ["main"]

Command = TypeVar("Command", bound=Callable[..., None])

logger = logging.getLogger(__name__)

_file = click.Path(exists=True, dir_okay=False, path_type=Path)
_directory = click.Path(exists=True, file_okay=False, path_type=Path)


class Failure(click.ClickException):
    """Ends the program with one line on stderr."""

    def __init__(self, text: str) -> None:
        super().__init__(escaped(" ".join(line.strip() for line in text.splitlines())))

    def show(self, file: Any = None) -> None:
        """Print the line to stderr."""
        click.echo(f"pydotcompute-server: {self.format_message()}", file, err=True)


class WrongUsage(Failure):
    """Ends the program with one line on stderr, and exit code 2: the command line itself is wrong."""

    exit_code = 2


class _Program(click.Command):
    """A Click command that reports wrong usage in one line, where Click prints three."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Parse the arguments. WrongUsage if they are wrong."""
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.UsageError as error:
            raise WrongUsage(error.format_message()) from None


def _read_limits(texts: tuple[str, ...]) -> dict[str, float]:
    """Return the limits that the texts `NAME=VALUE` set. BadParameter if there is no such limit, or it is no number."""
    known = {field.name: field for field in fields(Limits)}
    limits: dict[str, float] = {}
    for text in texts:
        name, _, value = text.partition("=")
        name = name.strip().replace("-", "_")
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            raise click.BadParameter(f"{text!r}: there is no limit of this name; {hint}")
        try:
            limits[name] = int(value) if isinstance(known[name].default, int) else float(value)
        except ValueError:
            raise click.BadParameter(f"{text!r}: the value is not a number of this kind") from None
    return limits


def _refuse_empty(ctx: click.Context, param: click.Parameter, value: Path | None) -> Path | None:
    """Return the value of an option. BadParameter if it comes from a variable that is empty, which Click ignores.

    So a file that a script failed to name does not turn encryption off.
    """
    variable = f"{ctx.auto_envvar_prefix}_{param.name}".upper()
    if value is None and os.environ.get(variable) == "":
        raise click.BadParameter(f"the variable {variable} is empty; unset it, or name a file.")
    return value


def _mode(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """Return permissions that are written in octal. BadParameter if they are none."""
    try:
        return None if value is None else int(value, 8)
    except ValueError:
        raise click.BadParameter(f"{value!r} is no octal number, such as 660.") from None


def _limit(name: str, least: int, text: str) -> Callable[[Command], Command]:
    """Return the option that sets this limit to a number of at least `least`. `text` is its help."""
    default = getattr(Limits, name)
    number = click.IntRange(min=least) if isinstance(default, int) else click.FloatRange(min=least)
    return click.option(f"--{name.replace('_', '-')}", default=default, type=number, show_envvar=True, help=text)


@click.command(cls=_Program, context_settings={"auto_envvar_prefix": "PYDOTCOMPUTE", "show_default": True})
@click.argument("kernels", nargs=-1, required=True, metavar="KERNELS...", envvar="PYDOTCOMPUTE_KERNELS")
@click.option(
    "--listen", default="127.0.0.1:50051", show_envvar=True, help="HOST:PORT or unix:PATH; port 0 is any free port."
)
@click.option(
    "--launch",
    multiple=True,
    metavar="TYPE",
    show_envvar=True,
    help="Launch and activate this kernel type at start; `all` means every type. Repeatable.",
)
@click.option(
    "--isolation",
    default="none",
    type=click.Choice(["none", "process"]),
    show_envvar=True,
    help="`process` runs each actor in a worker process, and the daemon imports no file of kernels.",
)
@click.option(
    "--reload",
    is_flag=True,
    show_envvar=True,
    help="Load the files of KERNELS again whenever they change, for development; with --isolation process.",
)
@_limit("grace", 0, "Seconds that the daemon has to finish its work when it is asked to end.")
@_limit("max_message_bytes", 1, "Length of the longest message body, in bytes.")
@_limit(
    "memory_bytes",
    0,
    "Bytes for the bodies of all messages that wait; 0: half of the machine's memory or of the cgroup's limit.",
)
@_limit("session_timeout", 0, "Seconds that a client's session is kept after its connection has broken.")
@_limit(
    "shared_memory_bytes",
    0,
    "Bytes of memory shared in each session with a client of the same host and user, per direction; 0: none.",
)
@_limit("max_connections", 1, "Connections; one more is closed at once.")
@_limit("max_kernels", 1, "Kernels that are launched and not terminated; one more is refused.")
@_limit("max_sessions", 1, "Sessions of clients with kernels; one more is refused.")
@click.option(
    "--limit",
    multiple=True,
    metavar="NAME=VALUE",
    callback=lambda _context, _parameter, texts: _read_limits(texts),
    show_envvar=True,
    help="Set another limit of the daemon, such as client_ids=100; docs/server.md lists them. Repeatable.",
)
@click.option(
    "--proto-lock",
    type=_file,
    show_envvar=True,
    help="File pydotcompute.lock of `pydotcompute proto export`; fields keep the numbers that are in it.",
)
@click.option(
    "--tls-directory",
    type=_directory,
    callback=_refuse_empty,
    show_envvar=True,
    help="Directory with tls.crt, tls.key and ca.crt, as `pydotcompute tls init` makes it, instead of the next three.",
)
@click.option(
    "--tls-certificate",
    type=_file,
    callback=_refuse_empty,
    show_envvar=True,
    help="PEM file of the certificate chain.",
)
@click.option(
    "--tls-key", type=_file, callback=_refuse_empty, show_envvar=True, help="PEM file of the certificate's key."
)
@click.option(
    "--tls-client-ca",
    type=_file,
    callback=_refuse_empty,
    show_envvar=True,
    help="PEM file of the authority whose certificates clients must present.",
)
@click.option(
    "--access",
    type=_file,
    callback=_refuse_empty,
    show_envvar=True,
    help="TOML file that says which role each principal has; see docs/security.md.",
)
@click.option(
    "--tokens",
    type=_file,
    callback=_refuse_empty,
    show_envvar=True,
    help="File of the tokens with which clients say who they are; `pydotcompute token new` writes it.",
)
@click.option(
    "--audit-log",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=_refuse_empty,
    show_envvar=True,
    help="File for the audit log: who has done what, and what was refused. Without it, the log has both.",
)
@click.option(
    "--insecure",
    is_flag=True,
    show_envvar=True,
    help="Let strangers in: listen to other machines although there is no TLS, or nobody has to prove who they are.",
)
@click.option(
    "--socket-mode",
    callback=_mode,
    metavar="OCTAL",
    show_envvar=True,
    help="Permissions of the file of unix:PATH: who may connect; 600, the daemon's user alone, if absent.",
)
@click.option("--log-level", default="info", type=click.Choice(["debug", "info", "warning", "error"]), show_envvar=True)
@click.option("--log-format", default="text", type=click.Choice(["text", "json"]), show_envvar=True)
@click.version_option(__version__)
def main(
    kernels: tuple[str, ...],
    listen: str,
    launch: tuple[str, ...],
    isolation: Isolation,
    reload: bool,
    grace: float,
    max_message_bytes: int,
    memory_bytes: int,
    session_timeout: float,
    shared_memory_bytes: int,
    max_connections: int,
    max_kernels: int,
    max_sessions: int,
    limit: dict[str, float],
    proto_lock: Path | None,
    tls_directory: Path | None,
    tls_certificate: Path | None,
    tls_key: Path | None,
    tls_client_ca: Path | None,
    access: Path | None,
    tokens: Path | None,
    audit_log: Path | None,
    insecure: bool,
    socket_mode: int | None,
    log_level: str,
    log_format: LogFormat,
) -> None:
    """Serve the ring kernels that KERNELS declare, over gRPC.

    KERNELS are .py files, directories of .py files, or names of modules, which may be in the current directory. If
    there are none on the command line, the daemon takes them from the environment variable PYDOTCOMPUTE_KERNELS,
    separated by spaces.

    The first line of standard output is `listening on ADDRESS`. The log and the output of kernels go to standard error.

    SIGTERM and SIGINT end the daemon in good order, with exit code 0. A second after the grace period it is ended by
    force, with exit code 3; a second Ctrl-C does that at once.
    """
    try:
        require_known_variables(os.environ)
        limits = Limits(
            grace=grace,
            max_message_bytes=max_message_bytes,
            memory_bytes=memory_bytes,
            session_timeout=session_timeout,
            shared_memory_bytes=shared_memory_bytes,
            max_connections=max_connections,
            max_kernels=max_kernels,
            max_sessions=max_sessions,
        )
        limits = replace(limits, **limit)  # type: ignore[arg-type]  # Limits checks each value itself.
        settings = Settings(
            listen=listen,
            launch=launch,
            isolation=isolation,
            kernels=kernels if isolation == "process" else (),
            reload=reload,
            limits=limits,
            tls_directory=tls_directory,
            tls_certificate=tls_certificate,
            tls_key=tls_key,
            tls_client_ca=tls_client_ca,
            access=access,
            tokens=tokens,
            audit_log=audit_log,
            insecure=insecure,
            socket_mode=socket_mode,
        )
        require_protection(settings)
        if settings.tls is not None:
            read_files(settings.tls)
        Access(settings).close()  # A file that is not valid is told before the kernels are loaded.
    except InvalidConfigurationError as error:
        if error.parameter in limit:
            raise WrongUsage(f"--limit {error.parameter}={error.value}: {error.problem}") from None
        raise WrongUsage(_as_option(error)) from None
    with logging_to_stderr(log_level, log_format, limits) as files:
        # A crash in C prints the stacks of all threads. To descriptor 2, each line would become an event of the log.
        faulthandler.enable(2 if log_format == "json" else files.stderr)
        signals = Signals(limits.grace + limits.overtime, files.stderr)
        signals.install()
        try:
            _run(kernels, proto_lock, settings, signals, files)
        except (LoadError, ListenError, PyDotComputeError, KeyboardInterrupt) as error:
            if signals.asked_to_end and isinstance(error, LoadError | KeyboardInterrupt):
                pass  # The signal has interrupted the loading of a file.
            elif log_format == "text":
                raise Failure(str(error)) from None
            else:
                logger.error("%s", error)
                raise SystemExit(Failure.exit_code) from None
    exit_soon(limits.last_resort, 0)  # A thread that a file of kernels has started must not keep the process alive.


def _as_option(error: InvalidConfigurationError) -> str:
    """Return the text of an error about a limit or a setting, in the words of the command line."""

    def option(name: str) -> str:
        return f"--{name.replace('_', '-')}"

    if isinstance(error, MissingSettingError):
        return f"{option(error.parameter)} is missing: {option(error.needed_by)} has no effect without it"
    if error.parameter in os.environ:
        return f"the variable {error.parameter} has no effect: {error.problem}"
    value = "" if isinstance(getattr(Settings, error.parameter, None), bool) else f" {error.value}"
    return f"{option(error.parameter)}{value}: {error.problem}"


def _run(
    kernels: tuple[str, ...], proto_lock: Path | None, settings: Settings, signals: Signals, files: StandardFiles
) -> None:
    """Load the kernels, and serve them until a signal ends the daemon."""
    lock.use(lock.Lock() if proto_lock is None else lock.read(proto_lock))
    if settings.isolation == "process":
        kernel_types = describe_kernel_types(kernels, settings.limits.worker_start)
    else:
        kernel_types = load_kernel_types(kernels)
    signals.install()  # Again, because a file may have set handlers of its own.
    unknown = [name for name in settings.launch if name != "all" and name not in kernel_types]
    if unknown:
        declared = ", ".join(sorted(kernel_types))
        raise LoadError(f"--launch {unknown[0]}: no such kernel type; declared are {declared}")
    signals.defer()
    if not signals.asked_to_end:
        Process(settings, kernel_types, signals, files.stdout).run()
