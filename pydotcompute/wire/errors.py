"""Errors as `google.rpc.Status`, and back.

A status carries an `ErrorInfo` of our domain with the error's reason, and one detail message. The fields of the detail
message are those of the exception class. The table `ERRORS` below says which detail message each exception class has.
The status of an error about a message also carries a `BadRequest`, and that of a limit a `RetryInfo` if it makes sense
to try again: for clients that know only `google.rpc`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from pydotcompute.exceptions import (
    BackendUnavailableError,
    CircularAskError,
    ConnectionLostError,
    InvalidConfigurationError,
    KernelAlreadyExistsError,
    KernelFailedError,
    KernelNotFoundError,
    KernelStateError,
    LimitExceededError,
    MemoryExhaustedError,
    MessageDeserializationError,
    MessageError,
    MessageSerializationError,
    MessageTooLargeError,
    MessageTypeError,
    NotAuthenticatedError,
    NotPermittedError,
    PyDotComputeError,
    QueueFullError,
    QueueTimeoutError,
    RequestWithdrawnError,
    SessionLostError,
    Violation,
)
from pydotcompute.v1 import errors_pb2
from pydotcompute.wire.durations import duration

__all__ = ["DOMAIN", "ERRORS", "from_rpc_error", "from_status", "to_status"]

DOMAIN = "pydotcompute"

ERRORS: dict[type[PyDotComputeError], tuple[int, type[Message]]] = {
    KernelNotFoundError: (code_pb2.NOT_FOUND, errors_pb2.KernelNotFoundDetail),
    KernelAlreadyExistsError: (code_pb2.ALREADY_EXISTS, errors_pb2.KernelAlreadyExistsDetail),
    KernelStateError: (code_pb2.FAILED_PRECONDITION, errors_pb2.KernelStateDetail),
    ConnectionLostError: (code_pb2.UNAVAILABLE, errors_pb2.ConnectionLostDetail),
    KernelFailedError: (code_pb2.ABORTED, errors_pb2.KernelFailedDetail),
    QueueFullError: (code_pb2.RESOURCE_EXHAUSTED, errors_pb2.QueueFullDetail),
    QueueTimeoutError: (code_pb2.DEADLINE_EXCEEDED, errors_pb2.QueueTimeoutDetail),
    MessageTypeError: (code_pb2.INVALID_ARGUMENT, errors_pb2.MessageTypeDetail),
    MessageSerializationError: (code_pb2.INVALID_ARGUMENT, errors_pb2.MessageSerializationDetail),
    MessageDeserializationError: (code_pb2.INVALID_ARGUMENT, errors_pb2.MessageDeserializationDetail),
    BackendUnavailableError: (code_pb2.FAILED_PRECONDITION, errors_pb2.BackendUnavailableDetail),
    InvalidConfigurationError: (code_pb2.INVALID_ARGUMENT, errors_pb2.InvalidConfigurationDetail),
    LimitExceededError: (code_pb2.RESOURCE_EXHAUSTED, errors_pb2.LimitExceededDetail),
    MemoryExhaustedError: (code_pb2.RESOURCE_EXHAUSTED, errors_pb2.MemoryExhaustedDetail),
    MessageTooLargeError: (code_pb2.INVALID_ARGUMENT, errors_pb2.MessageTooLargeDetail),
    SessionLostError: (code_pb2.NOT_FOUND, errors_pb2.SessionLostDetail),
    NotAuthenticatedError: (code_pb2.UNAUTHENTICATED, errors_pb2.NotAuthenticatedDetail),
    NotPermittedError: (code_pb2.PERMISSION_DENIED, errors_pb2.NotPermittedDetail),
    CircularAskError: (code_pb2.FAILED_PRECONDITION, errors_pb2.CircularAskDetail),
    RequestWithdrawnError: (code_pb2.CANCELLED, errors_pb2.RequestWithdrawnDetail),
}
"""The status code and the detail message of each error class that crosses the wire."""

LONGEST_STATUS = 6_000
"""The most bytes of a status in the trailing metadata of a call. All the metadata together may take 8 KiB."""
SHORTENINGS = ((600, 30), (200, 20), (60, 10), (20, 5))
"""The most characters of a text and the most items of a list in a status. The first pair that makes it fit is used."""

_GRPCS_OWN = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    # A connection that breaks during a call gives one of these too. Errors that the daemon itself sends have details.
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
)

_BY_DETAIL = {detail.DESCRIPTOR.full_name: (error, detail) for error, (_, detail) in ERRORS.items()}


def to_status(error: BaseException) -> status_pb2.Status:
    """Return an error as a status, shortened to `LONGEST_STATUS`. An error not in `ERRORS` becomes INTERNAL."""
    entry = ERRORS.get(type(error))  # type: ignore[arg-type]
    if entry is None:
        text = f"{type(error).__name__}: {error}"
        return status_pb2.Status(code=code_pb2.INTERNAL, message=text[: SHORTENINGS[0][0]])
    assert isinstance(error, PyDotComputeError)
    for longest, most in SHORTENINGS:
        status = _status(error, *entry, longest, most)
        # The text travels twice: in the details, which are in base64, and percent-encoded beside them.
        if status.ByteSize() * 4 // 3 + len(quote(status.message)) <= LONGEST_STATUS:
            break
    return status


def _status(
    error: PyDotComputeError, code: int, detail_class: type[Message], longest: int, most: int
) -> status_pb2.Status:
    def short(value: Any) -> Any:
        if isinstance(value, str):
            return value if len(value) <= longest else value[: longest - 1] + "…"
        if isinstance(value, Violation):
            return errors_pb2.Violation(path=short(value.path), problem=short(value.problem))
        if isinstance(value, tuple):
            more = len(value) - most
            if more > 0 and isinstance(value[0], Violation):
                value = (*value[:most], Violation("…", f"and {more} more"))
            elif more > 0:
                value = (*value[:most], "…")
            return [short(each if isinstance(each, Violation) else str(each)) for each in value]
        return value

    status = status_pb2.Status(code=code, message=short(str(error)))
    details: list[Message] = [
        error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN),
        detail_class(**{name: short(getattr(error, name)) for name in error.fields}),
    ]
    if isinstance(error, MessageError):
        violations = [
            error_details_pb2.BadRequest.FieldViolation(field=each.path, description=each.problem)
            for each in short(error.violations)
        ]
        details.append(error_details_pb2.BadRequest(field_violations=violations))
    if isinstance(error, LimitExceededError) and error.retry_after is not None:
        details.append(error_details_pb2.RetryInfo(retry_delay=duration(error.retry_after)))
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def from_status(status: status_pb2.Status) -> PyDotComputeError:
    """Return the error from which `to_status` made this status; for any other status a plain `PyDotComputeError`."""
    for packed in status.details:
        entry = _BY_DETAIL.get(packed.type_url.rpartition("/")[2])
        if entry is not None:
            error_class, detail_class = entry
            detail = detail_class()
            packed.Unpack(detail)
            return error_class(*(_field(detail, name) for name in error_class.fields))
    return PyDotComputeError(f"{code_pb2.Code.Name(status.code)}: {status.message}")


def _field(detail: Message, name: str) -> Any:
    if detail.DESCRIPTOR.fields_by_name[name].has_presence and not detail.HasField(name):
        return None
    return _plain(getattr(detail, name))


def _plain(value: Any) -> Any:
    if isinstance(value, errors_pb2.Violation):
        return Violation(value.path, value.problem)
    return (
        value if isinstance(value, str | int | float) or not isinstance(value, Sequence) else tuple(map(_plain, value))
    )


_CLOSED_AT_ONCE = "Socket closed", "Connection reset"
"""What gRPC says of a connection that the other side has closed as soon as it was made."""


def from_rpc_error(error: grpc.RpcError, target: str) -> PyDotComputeError:
    """Return the error for a failed call to the daemon at `target`.

    This is the daemon's own error if the call has one. It is `ConnectionLostError` if gRPC itself has failed.
    """
    assert isinstance(error, grpc.Call | grpc.aio.AioRpcError)
    try:
        status = rpc_status.from_call(error)
    except ValueError:  # The metadata does not fit the call: perhaps a proxy has answered.
        status = None
    if status is not None:
        known = from_status(status)
        return ConnectionLostError(target, known.problem) if type(known) is ConnectionLostError else known
    details = error.details() or ""
    if error.code() in _GRPCS_OWN:
        if "failed to connect" in details and any(text in details for text in _CLOSED_AT_ONCE):
            details += "; a daemon does that if it has as many connections as its max_connections, or expects TLS"
        return ConnectionLostError(target, details or error.code().name)
    return PyDotComputeError(f"{error.code().name}: {details}")
