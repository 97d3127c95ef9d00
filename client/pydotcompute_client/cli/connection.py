"""The command line's connection to a daemon: its address, its credentials, and its calls."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click
import grpc
from google.protobuf.message import Message

from pydotcompute.exceptions import ConnectionLostError, InvalidConfigurationError
from pydotcompute.v1 import kernel_service_pb2 as kernel_pb
from pydotcompute.v1.dead_letter_service_pb2_grpc import DeadLetterServiceStub
from pydotcompute.v1.kernel_service_pb2_grpc import KernelServiceStub
from pydotcompute.v1.message_service_pb2_grpc import MessageServiceStub
from pydotcompute.v1.telemetry_service_pb2_grpc import TelemetryServiceStub
from pydotcompute.wire.addresses import DEFAULT_PORT
from pydotcompute.wire.errors import from_rpc_error
from pydotcompute_client.cli.failures import BadInput, TimedOut
from pydotcompute_client.contexts import Contexts, read_contexts
from pydotcompute_client.interceptors import AddMetadata
from pydotcompute_client.targets import proxy_options, proxy_variable, with_proxy
from pydotcompute_client.tokens import sender

__all__ = ["CALL_SECONDS", "CONTEXTS_VARIABLE", "DEFAULT_TARGET", "PROGRAM", "Connection"]

R = TypeVar("R")
P = TypeVar("P", kernel_pb.ListKernelsResponse, kernel_pb.ListKernelTypesResponse)

PROGRAM = "pydotcompute"
CONTEXTS_VARIABLE = "PYDOTCOMPUTE_CONTEXTS"
"""Names the file of contexts."""
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
        return Path(os.environ.get(CONTEXTS_VARIABLE) or Path(click.get_app_dir(PROGRAM)) / "contexts.toml")

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

    @property
    def uses_tls(self) -> bool:
        """True if any option asks for TLS: none of them is ever ignored in favour of plain text."""
        names = ("tls", "tls_ca", "tls_name", "tls_certificate", "tls_key")
        return any(self._settings.get(name) for name in names)

    def _token(self) -> str | None:
        """Return the token, None for none. BadInput if there are two, or its file cannot be read."""
        settings = self._settings
        token, file = settings.get("token"), self._file("token_file")
        if token is not None and file is not None:
            if ("token" in self.typed) == ("token_file" in self.typed):
                raise BadInput("--token and --token-file: give one of them")
            file = None if "token" in self.typed else file
        return token if file is None else _read("--token-file", file).decode("ascii", "replace")

    @cached_property
    def channel(self) -> grpc.Channel:
        """The channel to the daemon, which connects with the first call.

        BadInput if a file for TLS is not valid, or if others could read the token on its way.
        """
        options: list[tuple[str, Any]] = [("grpc.max_receive_message_length", -1), *proxy_options(self.target)]
        try:
            metadata = sender(self._token(), self.target, encrypted=self.uses_tls)
        except InvalidConfigurationError as error:
            raise BadInput(f"the token for {self.target}: {error.problem}") from None
        if self.uses_tls:
            credentials = _credentials(self._file("tls_ca"), self._file("tls_certificate"), self._file("tls_key"))
            if (name := self._settings.get("tls_name")) is not None:
                options.append(("grpc.ssl_target_name_override", name))
            channel = grpc.secure_channel(self.target, credentials, options)
        else:
            channel = grpc.insecure_channel(self.target, options)
        self._closed_at_end.append(channel)
        return grpc.intercept_channel(channel, AddMetadata(metadata())) if metadata() else channel

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
            meaning = with_proxy(meaning)
        raise meaning from None

    def describe(self, kernel_id: str) -> kernel_pb.DescribeKernelResponse:
        """Return the daemon's description of a kernel, or of a kernel type. Raises as `call`."""
        return self.call(self.kernels.DescribeKernel, kernel_pb.DescribeKernelRequest(kernel_id=kernel_id))


def _credentials(ca: Path | None, certificate: Path | None, key: Path | None) -> grpc.ChannelCredentials:
    """Return the credentials of a channel over TLS.

    The files are checked here: gRPC would report a bad file only on stderr, and call the daemon unreachable.

    Args:
        ca: PEM file of the only authority to trust; None for the authorities that the system trusts.
        certificate: PEM file of the client's certificate chain.
        key: PEM file of the certificate's key, without a passphrase.

    Raises:
        BadInput: a file cannot be read or is not valid, or only one of certificate and key is given.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if ca is None:
        source, roots = "--tls", _system_roots()
    else:
        source, roots = f"--tls-ca {ca}", _read("--tls-ca", ca)
    try:
        context.load_verify_locations(cadata=roots.decode("ascii", "ignore"))  # Comments may be in any script.
    except (ssl.SSLError, ValueError):  # ValueError for an empty text.
        hint = "; SSL_CERT_FILE or --tls-ca can name a file that has one" if ca is None else ""
        raise BadInput(f"{source}: there is no certificate of an authority, in PEM form{hint}") from None
    if certificate is None and key is None:
        return grpc.ssl_channel_credentials(roots)
    if certificate is None or key is None:
        raise BadInput("--tls-certificate and --tls-key go together")
    pair = (_read("--tls-key", key), _read("--tls-certificate", certificate))
    try:
        context.load_cert_chain(certificate, key, password=lambda: "")
    except ssl.SSLError as error:
        why = error.reason or "they are not both in PEM form, without a passphrase"
        raise BadInput(f"--tls-certificate {certificate} with --tls-key {key}: {why}") from None
    return grpc.ssl_channel_credentials(roots, *pair)


def _read(option: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"{option} {path}: {error.strerror}") from None


def _system_roots() -> bytes:
    """Return the certificates that OpenSSL's programs trust here, in PEM form. gRPC would use a list of its own."""
    paths = ssl.get_default_verify_paths()
    files = [] if paths.cafile is None else [Path(paths.cafile)]
    if paths.capath is not None:
        files += sorted(Path(paths.capath).glob("*.[0-9]"))  # OpenSSL uses such names.
    return b"\n".join(_read("--tls:", file) for file in files if file.is_file())
