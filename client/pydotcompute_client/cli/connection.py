"""The command line's connection to a daemon: its address, its credentials, and its calls."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import grpc
from google.protobuf.message import Message

from pydotcompute.exceptions import ConnectionLostError
from pydotcompute.v1 import kernel_service_pb2 as kernel_pb
from pydotcompute.v1.client_service_pb2_grpc import ClientServiceStub
from pydotcompute.v1.dead_letter_service_pb2_grpc import DeadLetterServiceStub
from pydotcompute.v1.kernel_service_pb2_grpc import KernelServiceStub
from pydotcompute.v1.message_service_pb2_grpc import MessageServiceStub
from pydotcompute.v1.telemetry_service_pb2_grpc import TelemetryServiceStub
from pydotcompute.wire.addresses import DEFAULT_PORT
from pydotcompute.wire.errors import from_rpc_error
from pydotcompute_client.channels import USER_AGENT
from pydotcompute_client.cli.failures import BadInput, TimedOut
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
        self.tls_ca: Path | None = None
        self.tls_name: str | None = None
        self.tls_certificate: Path | None = None
        self.tls_key: Path | None = None

    @property
    def uses_tls(self) -> bool:
        """True if any option asks for TLS: none of them is ever ignored in favour of plain text."""
        return self.tls or any((self.tls_ca, self.tls_name, self.tls_certificate, self.tls_key))

    @cached_property
    def channel(self) -> grpc.Channel:
        """The channel to the daemon, which connects with the first call. BadInput if a file for TLS is not valid."""
        options: list[tuple[str, Any]] = [
            ("grpc.max_receive_message_length", -1),
            ("grpc.primary_user_agent", USER_AGENT),
            *proxy_options(self.target),
        ]
        if not self.uses_tls:
            return grpc.insecure_channel(self.target, options)
        credentials = _credentials(self.tls_ca, self.tls_certificate, self.tls_key)
        if self.tls_name is not None:
            options.append(("grpc.ssl_target_name_override", self.tls_name))
        return grpc.secure_channel(self.target, credentials, options)

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
