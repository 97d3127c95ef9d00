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
from pydotcompute_client.contexts import Contexts, contexts_path, read_contexts
from pydotcompute_client.credentials import TLS, channel_credentials, channel_options, choose
from pydotcompute_client.diagnosis import find_tls_problem
from pydotcompute_client.interceptors import AddMetadata
from pydotcompute_client.targets import proxy_options, proxy_variable, with_proxy
from pydotcompute_client.tokens import sender

__all__ = ["CALL_SECONDS", "DEFAULT_TARGET", "PROGRAM", "Connection"]

R = TypeVar("R")
P = TypeVar("P", kernel_pb.ListKernelsResponse, kernel_pb.ListKernelTypesResponse)

PROGRAM = "pydotcompute"
DEFAULT_TARGET = f"127.0.0.1:{DEFAULT_PORT}"

CALL_SECONDS = 10.0
"""Seconds that a call may take, in addition to the time that it is told to wait."""


class Connection:
    """A connection to the daemon that the global options name."""

    def __init__(self) -> None:
        self.given: dict[str, Any] = {}
        """The global options that are given, on the command line or by variables, by their names."""
        self.typed: dict[str, Any] = {}
        """Those of them that are on the command line."""
        self._closed_at_end: list[grpc.Channel] = []

    @property
    def as_json(self) -> bool:
        """True if programs are to read what is printed."""
        return bool(self.given.get("as_json"))

    @property
    def contexts_path(self) -> Path:
        """The file of contexts."""
        return contexts_path()

    @cached_property
    def contexts(self) -> Contexts:
        """The contexts that are kept. BadInput if their file is not valid."""
        try:
            return read_contexts(self.contexts_path)
        except InvalidConfigurationError as error:
            raise BadInput(f"{error.value}: {error.problem}") from None

    @cached_property
    def _settings(self) -> dict[str, Any]:
        """What is given, and beneath it what the context says. BadInput if there is no such context.

        If a target is given, no context counts: what lets somebody in at one daemon is not shown to another.
        """
        name = self.given.get("context")
        if "target" in self.given:
            if "context" in self.typed and "target" in self.typed:
                raise BadInput("--context and --target: give one of them")
            if "context" not in self.typed:
                return self.given
        name = name or self.contexts.current
        if not name:
            return self.given
        settings = self.contexts.by_name.get(name)
        if settings is None:
            known = ", ".join(self.contexts.by_name) or "none"
            raise BadInput(f"there is no context {name!r} in {self.contexts_path}; there are {known}")
        given = {key: value for key, value in self.given.items() if key != "target"}
        if "token" in given:
            settings = {key: value for key, value in settings.items() if key != "token_file"}
        return {**settings, **given}

    @property
    def target(self) -> str:
        """Where the daemon listens."""
        return str(self._settings.get("target", DEFAULT_TARGET))

    def _file(self, name: str) -> Path | None:
        value = self._settings.get(name)
        return None if value is None else Path(value)

    @cached_property
    def chosen_tls(self) -> TLS | None:
        """What the options ask for: none of them is ever ignored in favour of plain text. BadInput if one is wrong."""
        try:
            require_known_variables(os.environ)
            return choose(
                tls=bool(self._settings.get("tls")),
                directory=self._file("tls_directory"),
                ca=self._file("tls_ca"),
                certificate=self._file("tls_certificate"),
                key=self._file("tls_key"),
                name=self._settings.get("tls_name"),
                insecure=bool(self._settings.get("insecure")),
            )
        except InvalidConfigurationError as error:
            raise _in_words_of_options(error) from None

    def _token(self) -> str | None:
        """Return the token, None for none. BadInput if there are two, or its file cannot be read."""
        settings = self._settings
        token, file = settings.get("token"), self._file("token_file")
        if token is not None and file is not None:
            if ("token" in self.typed) == ("token_file" in self.typed):
                raise BadInput("--token and --token-file: give one of them")
            file = None if "token" in self.typed else file
        if file is None:
            return token
        try:
            return file.read_text(encoding="ascii", errors="replace")
        except OSError as error:
            raise BadInput(f"--token-file {file}: {error.strerror}") from None

    @cached_property
    def channel(self) -> grpc.Channel:
        """The channel to the daemon, which connects with the first call.

        BadInput if a file for TLS is not valid, or if others could read the token on its way.
        """
        options: list[tuple[str, Any]] = [
            ("grpc.max_receive_message_length", -1),
            ("grpc.primary_user_agent", USER_AGENT),
            *proxy_options(self.target),
        ]
        try:
            metadata = sender(self._token(), self.target, encrypted=self.chosen_tls is not None)()
        except InvalidConfigurationError as error:
            raise BadInput(f"the token for {self.target}: {error.problem}") from None
        if self.chosen_tls is None:
            channel = grpc.insecure_channel(self.target, options)
        else:
            try:
                credentials = channel_credentials(self.chosen_tls)
            except InvalidConfigurationError as error:
                raise _in_words_of_options(error) from None
            options += channel_options(self.chosen_tls, self.target)
            channel = grpc.secure_channel(self.target, credentials, options)
        self._closed_at_end.append(channel)
        return grpc.intercept_channel(channel, AddMetadata(metadata)) if metadata else channel

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
        for channel in self._closed_at_end:
            channel.close()

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
