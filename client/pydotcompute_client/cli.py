"""The command `pydotcompute`: a daemon's kernels, for people and for shell scripts."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click
import grpc
from click.shell_completion import CompletionItem, get_completion_class
from google.protobuf import json_format
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pydotcompute import __version__
from pydotcompute.exceptions import ConnectionLostError, PyDotComputeError
from pydotcompute.schema.descriptors import TypePool
from pydotcompute.v1 import kernel_service_pb2 as kernel_pb
from pydotcompute.v1 import message_service_pb2 as message_pb
from pydotcompute.v1 import telemetry_service_pb2 as telemetry_pb
from pydotcompute.v1.kernel_service_pb2_grpc import KernelServiceStub
from pydotcompute.v1.message_service_pb2_grpc import MessageServiceStub
from pydotcompute.v1.telemetry_service_pb2_grpc import TelemetryServiceStub
from pydotcompute.wire.errors import from_rpc_error
from pydotcompute.wire.kernels import strategy_to_proto
from pydotcompute_client import display

__all__ = ["main"]

R = TypeVar("R")

PROGRAM = "pydotcompute"
DEFAULT_TARGET = "127.0.0.1:50051"

CALL_SECONDS = 10.0
"""What a call may take, in addition to what it is told to wait for."""
LAUNCH_SECONDS = 120.0
"""What Launch may take: a kernel may compile for its GPU, or load a model."""
HEALTH_SECONDS = 3.0
"""What a health check may take: less than those who check allow it."""
COMPLETION_SECONDS = 1.0
"""What a person who presses TAB waits at most."""
LONGEST_SECONDS = 1e9
"""What --timeout takes: more than anybody waits, and less than a deadline can be."""

INTERRUPTED = 130

EXIT_CODES = """\b
Exit codes:
  0    done
  1    the daemon refused; `health`: not serving
  2    wrong usage, or a body that is no JSON of the kernel's input type
  3    the daemon cannot be reached
  4    nothing came in time
  130  interrupted"""


class Failure(click.ClickException):
    """Ends the command with one line on stderr, and with the exit code of its class."""

    exit_code = 1

    def __init__(self, text: str) -> None:
        super().__init__(" ".join(line.strip() for line in text.splitlines()))

    def show(self, file: Any = None) -> None:
        click.echo(f"error: {self.format_message()}", file, err=True)


class BadBody(Failure):
    exit_code = 2


class Unreachable(Failure):
    exit_code = 3


class TimedOut(Failure):
    exit_code = 4


class Daemon:
    """The daemon to talk to, as the options say, and the form for what it answers."""

    def __init__(self) -> None:
        self.target = DEFAULT_TARGET
        self.as_json = False

    @cached_property
    def channel(self) -> grpc.Channel:
        """Connects with the first call."""
        return grpc.insecure_channel(self.target, [("grpc.max_receive_message_length", -1)])

    @cached_property
    def kernels(self) -> KernelServiceStub:
        return KernelServiceStub(self.channel)

    @cached_property
    def messages(self) -> MessageServiceStub:
        return MessageServiceStub(self.channel)

    @cached_property
    def telemetry(self) -> TelemetryServiceStub:
        return TelemetryServiceStub(self.channel)

    def close(self) -> None:
        """Disconnects, if there was a call."""
        if "channel" in vars(self):
            self.channel.close()

    def call(self, method: Callable[..., R], request: Message, seconds: float = CALL_SECONDS) -> R:
        """The answer to one request.

        Raises:
            PyDotComputeError: the daemon's, or ConnectionLostError.
            Failure: the daemon does not answer.
        """
        try:
            return method(request, timeout=seconds)
        except grpc.RpcError as error:
            self.fail(error, seconds)

    def fail(self, error: grpc.RpcError, seconds: float) -> NoReturn:
        """Raises what a failed call stands for; see `call`."""
        meaning = from_rpc_error(error, self.target)
        assert isinstance(error, grpc.Call)
        if isinstance(meaning, ConnectionLostError) and error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            raise TimedOut(f"no answer from {self.target} within {seconds:g} s") from None
        raise meaning from None

    def describe(self, kernel_id: str) -> kernel_pb.DescribeKernelResponse:
        """What there is to know of a kernel, or of a kernel type."""
        return self.call(self.kernels.DescribeKernel, kernel_pb.DescribeKernelRequest(kernel_id=kernel_id))


def _remember(ctx: click.Context, param: click.Parameter, value: str | bool | None) -> None:
    """Puts a global option where the commands find it. One that is given after the command comes last, and wins."""
    if value == "":
        raise click.BadParameter("it is empty.", ctx, param)
    if value not in (None, False) and param.name:
        setattr(ctx.ensure_object(Daemon), param.name, value)


_target = click.option(
    "--target",
    envvar="PYDOTCOMPUTE_TARGET",
    default=DEFAULT_TARGET,
    show_default=True,
    show_envvar=True,
    metavar="HOST:PORT",
    callback=_remember,
    expose_value=False,
    help="Where the daemon listens; also unix:PATH.",
)
_as_json = click.option(
    "--json", "as_json", is_flag=True, callback=_remember, expose_value=False, help="Print JSON, for programs."
)


class _Program(click.Group):
    """Gives each command the global options, and each error its line and its exit code."""

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        options: list[tuple[list[str], dict[str, Any]]] = [
            (["--target"], {"metavar": "HOST:PORT", "help": f"As before the command: {PROGRAM} --help."}),
            (["--json", "as_json"], {"is_flag": True, "help": "Print JSON, for programs."}),
        ]
        for names, settings in options:
            cmd.params.append(click.Option(names, callback=_remember, expose_value=False, **settings))
        super().add_command(cmd, name)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ConnectionLostError as error:
            hint = "is pydotcompute-server running there? --target or PYDOTCOMPUTE_TARGET say where it is"
            raise Unreachable(f"{error}; {hint}") from None
        except PyDotComputeError as error:
            failure = TimedOut if isinstance(error, TimeoutError) else Failure
            raise failure(f"{error} (at {ctx.ensure_object(Daemon).target})") from None
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)


@click.group(cls=_Program, epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@_target
@_as_json
@click.version_option(__version__)
@click.pass_context
def main(ctx: click.Context) -> None:
    """Launch, use and watch the kernels of a pydotcompute daemon."""
    ctx.call_on_close(ctx.ensure_object(Daemon).close)


pass_daemon = click.make_pass_decorator(Daemon, ensure=True)


# -- parameters --------------------------------------------------------------------------------------------------------


def _complete_kernels(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """The ids of the daemon's kernels; none if there is no daemon."""
    return _complete(ctx, incomplete, kernels=True, types=ctx.command.name in ("describe", "launch"))


def _complete_types(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    return _complete(ctx, incomplete, kernels=False, types=True)


def _complete(ctx: click.Context, incomplete: str, *, kernels: bool, types: bool) -> list[CompletionItem[str]]:
    daemon = ctx.ensure_object(Daemon)
    found: dict[str, str] = {}
    try:
        if types:
            listed = daemon.call(daemon.kernels.ListKernelTypes, kernel_pb.ListKernelTypesRequest(), COMPLETION_SECONDS)
            found.update((kernel_type.name, "kernel type") for kernel_type in listed.kernel_types)
        if kernels:
            running = daemon.call(daemon.kernels.ListKernels, kernel_pb.ListKernelsRequest(), COMPLETION_SECONDS)
            found.update((kernel.kernel_id, display.state_name(kernel.state)) for kernel in running.kernels)
    except (ConnectionLostError, TimedOut):
        return []  # There is no place to say so: the shell would take it for a completion.
    return [CompletionItem(name, help=text) for name, text in found.items() if name.startswith(incomplete)]


def _checked_seconds(ctx: click.Context, param: click.Parameter, seconds: float) -> float:
    if not 0 <= seconds <= LONGEST_SECONDS:
        raise click.BadParameter(f"{seconds} is not from 0 to {LONGEST_SECONDS:g}.", ctx, param)
    return seconds


def _seconds(name: str, default: float, text: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """An option that is a time."""
    return click.option(
        name, type=float, default=default, callback=_checked_seconds, metavar="SECONDS", show_default=True, help=text
    )


def _duration(seconds: float) -> Duration:
    return Duration(seconds=int(seconds), nanos=int(seconds % 1 * 1e9))


_kernel = click.argument("kernel", shell_complete=_complete_kernels)
_body = click.argument("body", required=False)
_priority = click.option("--priority", type=click.IntRange(0, 255), help="The higher the sooner.  [default: 128]")
_client_id = click.option(
    "--client-id", default="", metavar="TEXT", help="Replies to what is sent with this text are received with it."
)


# -- output ------------------------------------------------------------------------------------------------------------


def _document(message: Message, types: TypePool | None = None) -> dict[str, Any]:
    """A message in protobuf's JSON form, with the names and the fields of its `.proto`."""
    return json_format.MessageToDict(
        message,
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
        descriptor_pool=None if types is None else types.pool,
    )


def _echo_json(document: Any) -> None:
    click.echo(json.dumps(document, ensure_ascii=False))


def _show_message(
    daemon: Daemon, response: message_pb.AskResponse | message_pb.ReceiveResponse, types: TypePool
) -> None:
    """With --json the whole message; else its body alone, in the form in which `ask` takes one."""
    document = _document(response, types)
    if not daemon.as_json:
        document = document["message"]["body"]
        document.pop("@type", None)
    _echo_json(document)


Changed = (
    kernel_pb.LaunchResponse
    | kernel_pb.ActivateResponse
    | kernel_pb.DeactivateResponse
    | kernel_pb.ReactivateResponse
    | kernel_pb.TerminateResponse
)


def _show_change(daemon: Daemon, response: Changed) -> None:
    if daemon.as_json:
        _echo_json(_document(response))
    else:
        click.echo(f"{response.kernel.kernel_id} is {display.state_name(response.kernel.state)}")


# -- kernels -----------------------------------------------------------------------------------------------------------


@main.command()
@pass_daemon
def ps(daemon: Daemon) -> None:
    """List the kernels that are launched."""
    response = daemon.call(daemon.kernels.ListKernels, kernel_pb.ListKernelsRequest())
    if daemon.as_json:
        _echo_json(_document(response))
    else:
        display.show_kernels(response.kernels)


@main.command()
@pass_daemon
def types(daemon: Daemon) -> None:
    """List the kernel types that can be launched."""
    response = daemon.call(daemon.kernels.ListKernelTypes, kernel_pb.ListKernelTypesRequest())
    if daemon.as_json:
        _echo_json(_document(response))
    else:
        display.show_types(response.kernel_types)


@main.command()
@_kernel
@pass_daemon
def describe(daemon: Daemon, kernel: str) -> None:
    """Tell all of a kernel or a kernel type."""
    response = daemon.describe(kernel)
    if daemon.as_json:
        _echo_json(_document(response))
    else:
        display.show_description(kernel, response)


@main.command()
@_kernel
@click.option(
    "--type",
    "kernel_type",
    default="",
    metavar="TYPE",
    shell_complete=_complete_types,
    help="What to launch.  [default: the type named KERNEL]",
)
@click.option(
    "--input-queue-size",
    type=click.IntRange(1, 2**32 - 1),
    help="Messages that the input mailbox holds.  [default: as declared]",
)
@click.option(
    "--output-queue-size",
    type=click.IntRange(1, 2**32 - 1),
    help="Messages that the output mailbox holds.  [default: as declared]",
)
@click.option(
    "--backpressure",
    type=click.Choice(["block", "reject", "drop_oldest"]),
    help="What happens when the input mailbox is full.  [default: as declared]",
)
@click.option("--activate", is_flag=True, help="Activate it as well.")
@pass_daemon
def launch(
    daemon: Daemon,
    kernel: str,
    kernel_type: str,
    input_queue_size: int | None,
    output_queue_size: int | None,
    backpressure: Any,
    activate: bool,
) -> None:
    """Set up a kernel whose id is KERNEL.

    It takes messages from now on, and handles them once it is activated.
    """
    config = kernel_pb.KernelConfig(
        input_queue_size=input_queue_size or 0,
        output_queue_size=output_queue_size or 0,
        backpressure_strategy=message_pb.BACKPRESSURE_STRATEGY_UNSPECIFIED
        if backpressure is None
        else strategy_to_proto(backpressure),
    )
    request = kernel_pb.LaunchRequest(kernel_id=kernel, kernel_type=kernel_type, config=config)
    response: Changed = daemon.call(daemon.kernels.Launch, request, LAUNCH_SECONDS)
    if activate:
        response = daemon.call(daemon.kernels.Activate, kernel_pb.ActivateRequest(kernel_id=kernel))
    _show_change(daemon, response)


@main.command()
@_kernel
@pass_daemon
def activate(daemon: Daemon, kernel: str) -> None:
    """Begin to hand messages to a launched kernel."""
    _show_change(daemon, daemon.call(daemon.kernels.Activate, kernel_pb.ActivateRequest(kernel_id=kernel)))


@main.command()
@_kernel
@pass_daemon
def deactivate(daemon: Daemon, kernel: str) -> None:
    """Pause a kernel: messages queue up."""
    _show_change(daemon, daemon.call(daemon.kernels.Deactivate, kernel_pb.DeactivateRequest(kernel_id=kernel)))


@main.command()
@_kernel
@pass_daemon
def reactivate(daemon: Daemon, kernel: str) -> None:
    """End a kernel's pause."""
    _show_change(daemon, daemon.call(daemon.kernels.Reactivate, kernel_pb.ReactivateRequest(kernel_id=kernel)))


@main.command()
@_kernel
@_seconds("--timeout", 5.0, "How long the kernel may take to end by itself.")
@pass_daemon
def terminate(daemon: Daemon, kernel: str, timeout: float) -> None:
    """End a kernel."""
    request = kernel_pb.TerminateRequest(kernel_id=kernel, timeout=_duration(timeout))
    _show_change(daemon, daemon.call(daemon.kernels.Terminate, request, timeout + CALL_SECONDS))


# -- messages ----------------------------------------------------------------------------------------------------------


def _types(described: kernel_pb.DescribeKernelResponse) -> TypePool:
    """The types of what a kernel takes and sends."""
    pool = TypePool()
    for message_type in (described.input_type, described.output_type):
        pool.add_files(message_type.files.file)
    return pool


def _message(
    kernel: str, described: kernel_pb.DescribeKernelResponse, types: TypePool, body: str | None, priority: int | None
) -> message_pb.Message:
    """The message that the command line spells.

    Raises:
        UsageError: it spells none; shows one.
        BadBody: it is not of the kernel's input type; says what is wrong where.
        Failure: the kernel takes no messages from elsewhere.
    """
    name = described.input_type.full_name
    if not name:
        raise Failure(f"kernel {kernel!r} is declared without an input_type: it can only be used in-process")
    if body is None:
        command = click.get_current_context().command_path
        sample = f"{command} {shlex.quote(kernel)} {shlex.quote(described.sample_json)}"
        raise click.UsageError(f"a body is missing, for example:\n\n  {sample}\n\nor - for stdin, or @FILE")
    hint = f"`{PROGRAM} describe {shlex.quote(kernel)}` tells its fields"
    try:
        document = json.loads(_read(body))
    except (ValueError, RecursionError) as error:
        raise BadBody(f"the body is no JSON: {error}; {hint}") from None
    if not isinstance(document, dict):
        raise BadBody(f"the body is no JSON object with the fields of {name}; {hint}")
    stated = str(document.pop("@type", name)).rpartition("/")[2]
    if stated != name:
        raise BadBody(f"the body is of type {stated}, and kernel {kernel!r} takes {name}")
    value = types.message_class(name)()
    try:
        # Not ParseDict: only Parse turns whatever goes wrong into a ParseError.
        json_format.Parse(json.dumps(document), value, descriptor_pool=types.pool)
    except json_format.ParseError as error:
        problem = " ".join(str(error).split()).removesuffix(".")
        raise BadBody(f"the body is no {name}: {problem}; {hint}") from None
    message = message_pb.Message(priority=priority)
    message.body.Pack(value)
    return message


def _read(body: str) -> str | bytes:
    """The text of an argument that is the body itself, `-` for stdin or `@FILE`."""
    if body == "-":
        return sys.stdin.buffer.read()
    if not body.startswith("@"):
        return body
    try:
        return Path(body[1:]).read_bytes()
    except OSError as error:
        raise BadBody(f"cannot read {body[1:]}: {error.strerror}") from None


@main.command()
@_kernel
@_body
@_priority
@_seconds("--timeout", 10.0, "How long to wait for the reply.")
@pass_daemon
def ask(daemon: Daemon, kernel: str, body: str | None, priority: int | None, timeout: float) -> None:
    """Send a request and print its reply.

    BODY is JSON, such as '{"a": 10, "b": 5}', or - for stdin, or @FILE. Without one, an example is shown.
    """
    described = daemon.describe(kernel)
    types = _types(described)
    message = _message(kernel, described, types, body, priority)
    request = message_pb.AskRequest(kernel_id=kernel, message=message, timeout=_duration(timeout))
    _show_message(daemon, daemon.call(daemon.messages.Ask, request, timeout + CALL_SECONDS), types)


@main.command()
@_kernel
@_body
@_priority
@_seconds("--timeout", 10.0, "How long to wait for room in the mailbox.")
@_client_id
@pass_daemon
def send(daemon: Daemon, kernel: str, body: str | None, priority: int | None, timeout: float, client_id: str) -> None:
    """Put a message into a kernel's mailbox and print its id.

    BODY is JSON, such as '{"a": 10, "b": 5}', or - for stdin, or @FILE. Without one, an example is shown.
    """
    described = daemon.describe(kernel)
    message = _message(kernel, described, _types(described), body, priority)
    request = message_pb.SendRequest(kernel_id=kernel, message=message, timeout=_duration(timeout), client_id=client_id)
    response = daemon.call(daemon.messages.Send, request, timeout + CALL_SECONDS)
    if daemon.as_json:
        _echo_json(_document(response))
    else:
        click.echo(response.message_id)


@main.command()
@_kernel
@_seconds("--timeout", 10.0, "How long to wait for each message.")
@_client_id
@click.option(
    "--count", type=click.IntRange(min=1), default=1, show_default=True, help="Messages to receive; each is one line."
)
@pass_daemon
def receive(daemon: Daemon, kernel: str, timeout: float, client_id: str, count: int) -> None:
    """Take a message from a kernel and print it.

    It is a reply to what was sent with the same --client-id, or an output that nobody has received yet.
    """
    types = _types(daemon.describe(kernel))
    request = message_pb.ReceiveRequest(kernel_id=kernel, timeout=_duration(timeout), client_id=client_id)
    for _ in range(count):
        _show_message(daemon, daemon.call(daemon.messages.Receive, request, timeout + CALL_SECONDS), types)


# -- watching ----------------------------------------------------------------------------------------------------------


@main.command()
@click.argument("kernels", nargs=-1, metavar="[KERNEL]...", shell_complete=_complete_kernels)
@click.option("--watch", is_flag=True, help="Go on until interrupted; with --json, each snapshot is one line.")
@_seconds("--interval", 1.0, "The time between snapshots, with --watch.")
@pass_daemon
def telemetry(daemon: Daemon, kernels: tuple[str, ...], watch: bool, interval: float) -> None:
    """Show what the named kernels, or all, have done."""
    if watch:
        snapshots = _snapshots(daemon, kernels, interval)
        if daemon.as_json:
            for snapshot in snapshots:
                _echo_json(_document(snapshot))
        else:
            display.watch_telemetry(snapshot.kernels for snapshot in snapshots)
        return
    request = telemetry_pb.GetTelemetryRequest(kernel_ids=kernels)
    response = daemon.call(daemon.telemetry.GetTelemetry, request)
    if daemon.as_json:
        _echo_json(_document(response))
    else:
        display.show_telemetry(response.kernels)


def _snapshots(
    daemon: Daemon, kernels: tuple[str, ...], interval: float
) -> Iterator[telemetry_pb.WatchTelemetryResponse]:
    request = telemetry_pb.WatchTelemetryRequest(kernel_ids=kernels, interval=_duration(interval))
    try:
        yield from daemon.telemetry.WatchTelemetry(request)
    except grpc.RpcError as error:
        daemon.fail(error, interval)


@main.command()
@click.argument("kernel", default="", shell_complete=_complete_kernels)
@pass_daemon
def health(daemon: Daemon, kernel: str) -> None:
    """Check that the daemon, or KERNEL, is serving.

    A kernel is once it is activated, until it ends or fails; a pause changes nothing.
    """
    what = f"kernel {kernel!r}" if kernel else "the daemon"
    check = health_pb2_grpc.HealthStub(daemon.channel).Check
    try:
        response = check(health_pb2.HealthCheckRequest(service=kernel), timeout=HEALTH_SECONDS)
    except grpc.RpcError as error:
        if isinstance(error, grpc.Call) and error.code() is grpc.StatusCode.NOT_FOUND:
            hint = f"`{PROGRAM} ps` lists those that are"
            raise Failure(f"{what} is not launched at {daemon.target}; {hint}") from None
        daemon.fail(error, HEALTH_SECONDS)
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(response.status)
    if daemon.as_json:
        _echo_json(_document(response))
    elif response.status == health_pb2.HealthCheckResponse.SERVING:
        click.echo(status)
    if response.status != health_pb2.HealthCheckResponse.SERVING:
        raise Failure(f"{what} at {daemon.target} is {status}")


# -- completion --------------------------------------------------------------------------------------------------------


@main.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a script that completes commands, options and kernels.

    \b
    bash:  eval "$(pydotcompute completion bash)"                     in ~/.bashrc
    zsh:   eval "$(pydotcompute completion zsh)"                      in ~/.zshrc
    fish:  pydotcompute completion fish > ~/.config/fish/completions/pydotcompute.fish
    """
    completer = get_completion_class(shell)
    assert completer is not None  # Click has one for each of the choices.
    click.echo(completer(main, {}, PROGRAM, f"_{PROGRAM.upper()}_COMPLETE").source())
