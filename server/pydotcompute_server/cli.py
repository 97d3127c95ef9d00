"""The command `pydotcompute-server`."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib.util
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from pydotcompute import __version__
from pydotcompute.exceptions import InvalidConfigurationError, PyDotComputeError
from pydotcompute.ring_kernels.declaration import KernelType
from pydotcompute.schema import lock
from pydotcompute_server.daemon import Daemon, ListenError
from pydotcompute_server.limits import Limits
from pydotcompute_server.loading import LoadError, load_kernel_types
from pydotcompute_server.logs import LogFormat, configure
from pydotcompute_server.settings import Settings

__all__ = ["main"]

_file = click.Path(exists=True, dir_okay=False, path_type=Path)


class Failure(click.ClickException):
    """Ends the program with one line on stderr."""

    def __init__(self, text: str) -> None:
        super().__init__(" ".join(line.strip() for line in text.splitlines()))

    def show(self, file: Any = None) -> None:
        click.echo(f"pydotcompute-server: {self.format_message()}", file, err=True)


class WrongUsage(Failure):
    """Ends it likewise, for what can be seen from the command line alone."""

    exit_code = 2


class _Program(click.Command):
    """Without Click's three lines for wrong usage."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.UsageError as error:
            raise WrongUsage(error.format_message()) from None


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
    help="Launch and activate this kernel type at start; `all`: every one. Repeatable.",
)
@click.option(
    "--grace",
    default=Limits.grace,
    type=click.FloatRange(min=0),
    show_envvar=True,
    help="Seconds to finish what is under way when asked to end.",
)
@click.option(
    "--max-message-bytes",
    default=Limits.max_message_bytes,
    type=click.IntRange(min=1),
    show_envvar=True,
    help="The longest message body.",
)
@click.option(
    "--session-timeout",
    default=Limits.session_timeout,
    type=click.FloatRange(min=0),
    show_envvar=True,
    help="Seconds that a client's conversation lives on when its connection has broken.",
)
@click.option(
    "--shared-memory-bytes",
    default=Limits.shared_memory_bytes,
    type=click.IntRange(min=0),
    show_envvar=True,
    help="Memory that a client of the same host and user may share, for each conversation and direction; 0: none.",
)
@click.option(
    "--proto-lock",
    type=_file,
    show_envvar=True,
    help="The pydotcompute.lock of `pydotcompute proto export`: fields keep the numbers that it says.",
)
@click.option("--tls-certificate", type=_file, show_envvar=True, help="PEM file of the certificate chain.")
@click.option("--tls-key", type=_file, show_envvar=True, help="PEM file of the certificate's key.")
@click.option(
    "--tls-client-ca",
    type=_file,
    show_envvar=True,
    help="PEM file of the authority whose certificates clients must present.",
)
@click.option("--log-level", default="info", type=click.Choice(["debug", "info", "warning", "error"]), show_envvar=True)
@click.option("--log-format", default="text", type=click.Choice(["text", "json"]), show_envvar=True)
@click.version_option(__version__)
def main(
    kernels: tuple[str, ...],
    listen: str,
    launch: tuple[str, ...],
    grace: float,
    max_message_bytes: int,
    session_timeout: float,
    shared_memory_bytes: int,
    proto_lock: Path | None,
    tls_certificate: Path | None,
    tls_key: Path | None,
    tls_client_ca: Path | None,
    log_level: str,
    log_format: LogFormat,
) -> None:
    """Serve the ring kernels that KERNELS declare, over gRPC.

    KERNELS are .py files, directories of them, or names of importable modules; without any, those that the environment
    variable PYDOTCOMPUTE_KERNELS lists, separated by spaces.

    The first line of standard output is `listening on ADDRESS`; the log, and what kernels print, go to standard error.

    SIGTERM and SIGINT end the daemon in good order, within the grace period and about a second, with exit code 0.
    """
    if (tls_certificate is None) != (tls_key is None):
        raise WrongUsage("--tls-certificate and --tls-key go together")
    try:
        limits = Limits(
            grace=grace,
            max_message_bytes=max_message_bytes,
            session_timeout=session_timeout,
            shared_memory_bytes=shared_memory_bytes,
        )
    except InvalidConfigurationError as error:
        option = error.parameter.replace("_", "-")
        raise WrongUsage(f"--{option} {error.value}: {error.problem}") from None
    # Until there is a daemon to stop, the end is an exception, so that it also interrupts a file that loads for long.
    for number in (signal.SIGTERM, signal.SIGINT):  # A shell starts background jobs with SIGINT ignored.
        signal.signal(number, signal.default_int_handler)
    configure(log_level, log_format, limits)
    try:
        lock.use(lock.Lock() if proto_lock is None else lock.read(proto_lock))
        kernel_types = load_kernel_types(kernels)
        unknown = [name for name in launch if name != "all" and name not in kernel_types]
        if unknown:
            declared = ", ".join(sorted(kernel_types))
            raise LoadError(f"--launch {unknown[0]}: no such kernel type; declared are {declared}")
        settings = Settings(
            listen=listen,
            launch=launch,
            limits=limits,
            tls_certificate=tls_certificate,
            tls_key=tls_key,
            tls_client_ca=tls_client_ca,
        )
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_serve(settings, kernel_types))
    except KeyboardInterrupt:
        return
    except (LoadError, ListenError, PyDotComputeError) as error:
        raise Failure(str(error)) from None


def _allow_open_files() -> None:
    """As many as the system lets this process have, as servers do: each connection takes one, and more with shared
    memory.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # Where "unlimited" is more than the kernel's own limit.
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _settle_memory() -> None:
    """Spare the collector what stays to the end, and let it look at young objects in larger portions: messages under
    way come and go without cycles. It took a tenth of the daemon's time under load, and so takes less than a hundredth.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 100)


async def _serve(settings: Settings, kernel_types: dict[str, KernelType]) -> None:
    _allow_open_files()
    daemon = Daemon(settings, kernel_types)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, daemon.stop)
    await daemon.start()
    _settle_memory()
    # Past `sys.stdout`, from which everything goes to the log.
    print(f"listening on {daemon.address}", file=sys.__stdout__, flush=True)
    await daemon.run()
    # All is done: an actor that heeds not even its cancellation, or a thread, shall not keep the process alive.
    last_resort = threading.Timer(settings.limits.last_resort, os._exit, (0,))
    last_resort.daemon = True
    last_resort.start()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Uvloop's event loop where it is installed."""
    if importlib.util.find_spec("uvloop") is None:
        return None
    import uvloop

    return uvloop.new_event_loop
