"""A daemon under test: its calls, and the kernels that a case has launched there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic, sleep
from typing import Any
from uuid import uuid4

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import status_pb2
from grpc_status import rpc_status

from pydotcompute.v1 import kernel_service_pb2 as kernel_pb
from pydotcompute.v1 import message_service_pb2 as pb
from pydotcompute.v1 import telemetry_service_pb2 as telemetry_pb
from pydotcompute.v1.kernel_service_pb2_grpc import KernelServiceStub
from pydotcompute.v1.message_service_pb2_grpc import MessageServiceStub
from pydotcompute.v1.telemetry_service_pb2_grpc import TelemetryServiceStub
from pydotcompute.wire.durations import duration
from pydotcompute_client.conformance.probes import TYPE
from pydotcompute_client.conformance.results import BrokenError, Result, require
from pydotcompute_client.conformance.talk import LONGEST_CALL, Talk, reason_of

__all__ = ["KERNEL_TYPE", "Case", "Daemon", "check"]

KERNEL_TYPE = "conformance"
"""The name of the kernel type in `kernels`."""


class Daemon:
    """What one case does with a daemon."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._kernels = KernelServiceStub(channel)
        self._telemetry = TelemetryServiceStub(channel)
        self.messages = MessageServiceStub(channel)
        self._launched: list[str] = []
        self._talks: list[Talk] = []

    def call(self, method: Callable[..., Any], request: Any) -> Any:
        """Return the answer to a request. Raises BrokenError if it is an error."""
        try:
            return method(request, timeout=LONGEST_CALL)
        except grpc.RpcError as error:
            raise BrokenError(f"{_name(request)} fails: {reason_of(_status(error))}: {_text(error)}") from None

    def refusal(self, method: Callable[..., Any], request: Any) -> status_pb2.Status:
        """Return the status with which a request fails. Raises BrokenError if it does not."""
        try:
            method(request, timeout=LONGEST_CALL)
        except grpc.RpcError as error:
            return _status(error)
        raise BrokenError(f"{_name(request)} succeeds")

    def launch(self, *, activate: bool = True, **config: Any) -> str:
        """Launch a kernel of the tests' type, and return its id."""
        kernel_id = f"{KERNEL_TYPE}-{uuid4().hex[:12]}"
        request = kernel_pb.LaunchRequest(
            kernel_id=kernel_id, kernel_type=KERNEL_TYPE, config=kernel_pb.KernelConfig(**config)
        )
        self.call(self._kernels.Launch, request)
        self._launched.append(kernel_id)
        if activate:
            self.call(self._kernels.Activate, kernel_pb.ActivateRequest(kernel_id=kernel_id))
        return kernel_id

    def pause(self, kernel_id: str) -> None:
        """Hand nothing to the kernel from now on."""
        self.call(self._kernels.Deactivate, kernel_pb.DeactivateRequest(kernel_id=kernel_id))

    def go_on(self, kernel_id: str) -> None:
        """End the pause."""
        self.call(self._kernels.Reactivate, kernel_pb.ReactivateRequest(kernel_id=kernel_id))

    def terminate(self, kernel_id: str) -> None:
        """End a kernel, which handles first what is in its mailbox."""
        self.call(self._kernels.Terminate, kernel_pb.TerminateRequest(kernel_id=kernel_id, timeout=duration(5)))

    def until(self, kernel_id: str, **counters: int) -> None:
        """Wait until the kernel's telemetry has these figures."""
        until = monotonic() + LONGEST_CALL
        request = telemetry_pb.GetTelemetryRequest(kernel_ids=[kernel_id])
        while True:
            now = self.call(self._telemetry.GetTelemetry, request).kernels[0]
            found = {name: getattr(now, name) for name in counters}
            if found == counters:
                return
            require(monotonic() < until, f"the telemetry has {found}, and not {counters}")
            sleep(0.01)

    def talk(self) -> Talk:
        """Return a session that has not begun yet."""
        self._talks.append(Talk(self.messages))
        return self._talks[-1]

    def message(self, body: bytes, message_id: str = "") -> pb.Message:
        """Return a message of the unary calls."""
        return pb.Message(message_id=message_id, body=AnyMessage(type_url=f"type.googleapis.com/{TYPE}", value=body))

    def close(self) -> None:
        """Cut all streams, and end all kernels."""
        for talk in self._talks:
            talk.cut()
        for kernel_id in self._launched:
            self.terminate(kernel_id)


@dataclass(frozen=True)
class Case:
    """Something that a daemon has to do."""

    name: str
    rule: str
    """What it has to do, in words."""
    try_it: Callable[[Daemon], None]
    """Raises BrokenError if the daemon does something else."""


def check(case: Case, channel: grpc.Channel) -> Result:
    """Try a case with the daemon that this channel leads to."""
    daemon = Daemon(channel)
    problem = None
    try:
        try:
            case.try_it(daemon)
        finally:
            daemon.close()
    except BrokenError as broken:
        problem = str(broken)
    return Result(case.name, case.rule, problem)


def _status(error: grpc.RpcError) -> status_pb2.Status:
    call: Any = error
    return rpc_status.from_call(call) or status_pb2.Status(code=call.code().value[0], message=call.details())


def _text(error: grpc.RpcError) -> str:
    call: Any = error
    return str(call.details())


def _name(request: Any) -> str:
    return str(request.DESCRIPTOR.name).removesuffix("Request")
