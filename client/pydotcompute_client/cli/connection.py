"""The command line's connection to a daemon: its address, its credentials, and its calls."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import grpc
from google.protobuf.message import Message

from pydotcompute.exceptions import ConnectionLostError, InvalidConfigurationError
from pydotcompute.v1 import kernel_service_pb2 as kernel_pb
from pydotcompute.v1.client_service_pb2_grpc import ClientServiceStub
from pydotcompute.v1.dead_letter_service_pb2_grpc import DeadLetterServiceStub
from pydotcompute.v1.kernel_service_pb2_grpc import KernelServiceStub
from pydotcompute.v1.message_service_pb2_grpc import MessageServiceStub
from pydotcompute.v1.server_service_pb2_grpc import ServerServiceStub
from pydotcompute.v1.telemetry_service_pb2_grpc import TelemetryServiceStub
from pydotcompute.wire.addresses import DEFAULT_PORT
from pydotcompute.wire.certificates import require_known_variables
from pydotcompute.wire.errors import from_rpc_error
from pydotcompute_client.channels import USER_AGENT
from pydotcompute_client.cli.failures import BadInput, TimedOut
from pydotcompute_client.credentials import TLS, channel_credentials, channel_options, choose
from pydotcompute_client.diagnosis import find_tls_problem
from pydotcompute_client.targets import proxy_options, proxy_variable, with_proxy

__all__ = ["CALL_SECONDS", "DEFAULT_TARGET", "PROGRAM", "Connection"]

R = TypeVar("R")
P = TypeVar("P", kernel_pb.ListKernelsResponse, kernel_pb.ListKernelTypesResponse)

PROGRAM = "pydotcompute"
DEFAULT_TARGET = f"127.0.0.1:{DEFAULT_PORT}"

CALL_SECONDS = 10.0
"""Seconds that a call may take, in addition to the time that it is told to wait."""


class Connection:
    """A connection to the daemon that the global options name. `as_json` is the value of --json."""

    def __init__(self) -> None:
        self.target = DEFAULT_TARGET
        self.as_json = False
        self.tls = False
        self.tls_directory: Path | None = None
        self.tls_ca: Path | None = None
        self.tls_name: str | None = None
        self.tls_certificate: Path | None = None
        self.tls_key: Path | None = None
        self.insecure = False

    @cached_property
    def chosen_tls(self) -> TLS | None:
        """What the options ask for: none of them is ever ignored in favour of plain text. BadInput if one is wrong."""
        try:
            require_known_variables(os.environ)
            return choose(
                tls=self.tls,
                directory=self.tls_directory,
                ca=self.tls_ca,
                certificate=self.tls_certificate,
                key=self.tls_key,
                name=self.tls_name,
                insecure=self.insecure,
            )
        except InvalidConfigurationError as error:
            raise _in_words_of_options(error) from None

    @cached_property
    def channel(self) -> grpc.Channel:
        """The channel to the daemon, which connects with the first call. BadInput if a file for TLS is not valid."""
        options: list[tuple[str, Any]] = [
            ("grpc.max_receive_message_length", -1),
            ("grpc.primary_user_agent", USER_AGENT),
            *proxy_options(self.target),
        ]
        if self.chosen_tls is None:
            return grpc.insecure_channel(self.target, options)
        try:
            credentials = channel_credentials(self.chosen_tls)
        except InvalidConfigurationError as error:
            raise _in_words_of_options(error) from None
        return grpc.secure_channel(self.target, credentials, options + channel_options(self.chosen_tls, self.target))

    @cached_property
    def kernels(self) -> KernelServiceStub:
        """The stub of KernelService."""
        return KernelServiceStub(self.channel)

    @cached_property
    def messages(self) -> MessageServiceStub:
        """The stub of MessageService."""
        return MessageServiceStub(self.channel)

    @cached_property
    def telemetry(self) -> TelemetryServiceStub:
        """The stub of TelemetryService."""
        return TelemetryServiceStub(self.channel)

    @cached_property
    def server(self) -> ServerServiceStub:
        """The stub of ServerService."""
        return ServerServiceStub(self.channel)

    @cached_property
    def clients(self) -> ClientServiceStub:
        """The stub of ClientService."""
        return ClientServiceStub(self.channel)

    @cached_property
    def dead_letters(self) -> DeadLetterServiceStub:
        """The stub of DeadLetterService."""
        return DeadLetterServiceStub(self.channel)

    def close(self) -> None:
        """Disconnect, if there was a call."""
        if "channel" in vars(self):
            self.channel.close()

    def call(self, method: Callable[..., R], request: Message, seconds: float = CALL_SECONDS) -> R:
        """Return the answer to one request.

        Raises:
            PyDotComputeError: the error that the daemon answers with, or ConnectionLostError.
            TimedOut: the daemon does not answer within `seconds`.
        """
        try:
            return method(request, timeout=seconds)
        except grpc.RpcError as error:
            self.fail(error, seconds)

    def call_all(self, method: Callable[..., P], request: Message) -> P:
        """Return all pages of a list as one answer. Raises as `call`."""
        whole = page = self.call(method, request)
        asked: Any = request
        while page.next_page_token:
            asked.page_token = page.next_page_token
            page = self.call(method, asked)
            whole.MergeFrom(page)
        whole.ClearField("next_page_token")
        return whole

    def fail(self, error: grpc.RpcError, seconds: float) -> NoReturn:
        """Raise the error that a failed call stands for; see `call`."""
        meaning = from_rpc_error(error, self.target)
        assert isinstance(error, grpc.Call)
        if isinstance(meaning, ConnectionLostError) and error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            proxy = proxy_variable(self.target)
            way = "" if proxy is None else f", through the proxy that the environment variable {proxy} names"
            raise TimedOut(f"no answer from {self.target} within {seconds:g} s{way}") from None
        if isinstance(meaning, ConnectionLostError):
            problem = find_tls_problem(self.target, self.chosen_tls)
            meaning = with_proxy(meaning) if problem is None else ConnectionLostError(self.target, problem)
        raise meaning from None

    def describe(self, kernel_id: str) -> kernel_pb.DescribeKernelResponse:
        """Return the daemon's description of a kernel, or of a kernel type. Raises as `call`."""
        return self.call(self.kernels.DescribeKernel, kernel_pb.DescribeKernelRequest(kernel_id=kernel_id))


def _in_words_of_options(error: InvalidConfigurationError) -> BadInput:
    """Return the error about a setting for TLS, in the words of the command line."""

    def option(name: str) -> str:
        return f"--{name.replace('_', '-')}"

    problem = re.sub(r"\btls_\w+", lambda found: option(found[0]), error.problem)
    if error.parameter in os.environ:
        return BadInput(f"the variable {error.parameter} has no effect: {problem}")
    value = "" if error.parameter == "tls" else f" {error.value}"
    return BadInput(f"{option(error.parameter)}{value}: {problem}")
