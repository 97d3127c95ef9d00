"""The daemon that the command line talks to, and the ways in which talking to it ends the command."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click
import grpc
from google.protobuf.message import Message

from pydotcompute.exceptions import ConnectionLostError, Violation
from pydotcompute.v1 import kernel_service_pb2 as kernel_pb
from pydotcompute.v1.dead_letter_service_pb2_grpc import DeadLetterServiceStub
from pydotcompute.v1.kernel_service_pb2_grpc import KernelServiceStub
from pydotcompute.v1.message_service_pb2_grpc import MessageServiceStub
from pydotcompute.v1.telemetry_service_pb2_grpc import TelemetryServiceStub
from pydotcompute.wire.errors import from_rpc_error
from pydotcompute_client.cli import tls as cli_tls

__all__ = [
    "CALL_SECONDS",
    "DEFAULT_TARGET",
    "PROGRAM",
    "BadBody",
    "BadInput",
    "Daemon",
    "Failure",
    "TimedOut",
    "Unreachable",
]

R = TypeVar("R")

PROGRAM = "pydotcompute"
DEFAULT_TARGET = "127.0.0.1:50051"

CALL_SECONDS = 10.0
"""What a call may take, in addition to what it is told to wait for."""


class Failure(click.ClickException):
    """Ends the command with one line on stderr, and with the exit code of its class."""

    exit_code = 1

    def __init__(self, text: str) -> None:
        super().__init__(" ".join(line.strip() for line in text.splitlines()))

    def show(self, file: Any = None) -> None:
        click.echo(f"error: {self.format_message()}", file, err=True)


class BadInput(Failure):
    """A body or a file that is not what it should be."""

    exit_code = 2


class BadBody(BadInput):
    """A body that is not of the kernel's input type: after the one line, one for each thing that is wrong with it."""

    def __init__(self, text: str, violations: Iterable[Violation]) -> None:
        super().__init__(text)
        self.violations = [" ".join(f"{path}: {problem}".split()) for path, problem in violations]

    def show(self, file: Any = None) -> None:
        super().show(file)
        for violation in self.violations:
            click.echo(f"  {violation}", file, err=True)


class Unreachable(Failure):
    exit_code = 3


class TimedOut(Failure):
    exit_code = 4


class Daemon:
    """The daemon to talk to, as the options say, and the form for what it answers."""

    def __init__(self) -> None:
        self.target = DEFAULT_TARGET
        self.as_json = False
        self.tls = False
        self.tls_ca: Path | None = None
        self.tls_name: str | None = None
        self.tls_certificate: Path | None = None
        self.tls_key: Path | None = None

    @property
    def uses_tls(self) -> bool:
        """Whether any option asks for TLS: none of them is ever ignored in favour of plain text."""
        return self.tls or any((self.tls_ca, self.tls_name, self.tls_certificate, self.tls_key))

    @cached_property
    def channel(self) -> grpc.Channel:
        """Connects with the first call. BadInput if the files for TLS are not what they should be."""
        options: list[tuple[str, Any]] = [("grpc.max_receive_message_length", -1)]
        if not self.uses_tls:
            return grpc.insecure_channel(self.target, options)
        try:
            credentials = cli_tls.credentials(self.tls_ca, self.tls_certificate, self.tls_key)
        except ValueError as error:
            raise BadInput(str(error)) from None
        if self.tls_name is not None:
            options.append(("grpc.ssl_target_name_override", self.tls_name))
        return grpc.secure_channel(self.target, credentials, options)

    @cached_property
    def kernels(self) -> KernelServiceStub:
        return KernelServiceStub(self.channel)

    @cached_property
    def messages(self) -> MessageServiceStub:
        return MessageServiceStub(self.channel)

    @cached_property
    def telemetry(self) -> TelemetryServiceStub:
        return TelemetryServiceStub(self.channel)

    @cached_property
    def dead_letters(self) -> DeadLetterServiceStub:
        return DeadLetterServiceStub(self.channel)

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
