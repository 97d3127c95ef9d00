"""Cases of the unary calls."""

from __future__ import annotations

from uuid import uuid4

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.struct_pb2 import Struct
from google.rpc import error_details_pb2

from pydotcompute.v1 import message_service_pb2 as pb
from pydotcompute.wire.durations import duration
from pydotcompute_client.conformance.daemon import Case, Daemon
from pydotcompute_client.conformance.probes import number_in, probe
from pydotcompute_client.conformance.results import require
from pydotcompute_client.conformance.talk import reason_of

__all__ = ["UNARY"]


def _ask(daemon: Daemon) -> None:
    kernel_id, message_id = daemon.launch(), str(uuid4())
    request = pb.AskRequest(kernel_id=kernel_id, message=daemon.message(probe(7), message_id))
    reply = daemon.call(daemon.messages.Ask, request).message
    require(number_in(reply.body.value) == 7, f"the reply is {reply.body.value!r}")
    require(reply.correlation_id == message_id, f"it answers {reply.correlation_id!r}, and not {message_id!r}")


def _struct(daemon: Daemon) -> None:
    kernel_id, body, packed = daemon.launch(), Struct(), AnyMessage()
    body.update({"number": 7, "note": "as JSON"})
    packed.Pack(body)
    reply = daemon.call(daemon.messages.Ask, pb.AskRequest(kernel_id=kernel_id, message=pb.Message(body=packed)))
    require(number_in(reply.message.body.value) == 7, f"the reply is {reply.message.body.value!r}")


def _send_and_receive(daemon: Daemon) -> None:
    kernel_id = daemon.launch()
    for number in (1, 2):
        daemon.call(daemon.messages.Send, _sending(daemon, kernel_id, number, client_id=f"client {number}"))
    for number in (2, 1):
        request = pb.ReceiveRequest(kernel_id=kernel_id, client_id=f"client {number}", timeout=duration(10))
        found = number_in(daemon.call(daemon.messages.Receive, request).message.body.value)
        require(found == number, f"client {number} has received the reply to client {found}")


def _send_again(daemon: Daemon) -> None:
    kernel_id = daemon.launch()
    request = _sending(daemon, kernel_id, 1, message_id=str(uuid4()))
    first, second = (daemon.call(daemon.messages.Send, request) for _ in range(2))
    require(first.message_id == second.message_id == request.message.message_id, "the answers have other ids")
    daemon.call(daemon.messages.Receive, pb.ReceiveRequest(kernel_id=kernel_id, timeout=duration(10)))
    daemon.until(kernel_id, messages_processed=1, queue_depth=0)


def _lease(daemon: Daemon) -> None:
    kernel_id = daemon.launch()
    daemon.call(daemon.messages.Send, _sending(daemon, kernel_id, 1))
    request = pb.ReceiveRequest(kernel_id=kernel_id, lease=duration(0.1), timeout=duration(10))
    first = daemon.call(daemon.messages.Receive, request)
    second = daemon.call(daemon.messages.Receive, request)
    require(not first.redelivered, "the first has `redelivered`")
    require(second.redelivered, "the second has no `redelivered`")
    require(first.message == second.message, "another message came")


def _unknown_kernel(daemon: Daemon) -> None:
    status = daemon.refusal(daemon.messages.Ask, pb.AskRequest(kernel_id=f"nobody-{uuid4().hex}"))
    require(reason_of(status) == "KERNEL_NOT_FOUND", f"the reason is {reason_of(status)}")


def _bad_body(daemon: Daemon) -> None:
    request = pb.AskRequest(kernel_id=daemon.launch(), message=daemon.message(b"\xff"))
    status = daemon.refusal(daemon.messages.Ask, request)
    require(reason_of(status) == "MESSAGE_INVALID", f"the reason is {reason_of(status)}")
    found = error_details_pb2.BadRequest()
    require(any(detail.Unpack(found) for detail in status.details), "the status has no google.rpc.BadRequest")
    paths = [violation.field for violation in found.field_violations]
    require(paths == ["$.message.body"], f"the paths are {paths}")


def _time_out(daemon: Daemon) -> None:
    request = pb.ReceiveRequest(kernel_id=daemon.launch(), timeout=duration(0.01))
    status = daemon.refusal(daemon.messages.Receive, request)
    require(reason_of(status) == "QUEUE_TIMEOUT", f"the reason is {reason_of(status)}")


def _not_active(daemon: Daemon) -> None:
    kernel_id = daemon.launch(activate=False)
    status = daemon.refusal(daemon.messages.Send, _sending(daemon, kernel_id, 1))
    require(reason_of(status) == "KERNEL_STATE_INVALID", f"the reason is {reason_of(status)}")


def _sending(daemon: Daemon, kernel_id: str, number: int, client_id: str = "", message_id: str = "") -> pb.SendRequest:
    message = daemon.message(probe(number), message_id)
    return pb.SendRequest(kernel_id=kernel_id, message=message, client_id=client_id)


UNARY = (
    Case("ask", "`Ask` returns the reply, whose correlation id is the id of the request.", _ask),
    Case("struct", "A body may be a `google.protobuf.Struct`.", _struct),
    Case("client-ids", "A reply goes to the `Receive` with the `client_id` of its `Send`.", _send_and_receive),
    Case("send-again", "A `Send` that is repeated with its id puts one message.", _send_again),
    Case("lease", "What is not acknowledged within its lease comes again, with `redelivered`.", _lease),
    Case("unknown-kernel", "A kernel that does not exist is KERNEL_NOT_FOUND.", _unknown_kernel),
    Case("bad-body", "A body that cannot be read is MESSAGE_INVALID, with a `BadRequest` and its path.", _bad_body),
    Case("time-out", "A `Receive` to which nothing comes is QUEUE_TIMEOUT.", _time_out),
    Case("not-active", "A kernel that was never activated is KERNEL_STATE_INVALID.", _not_active),
)
"""The cases, in the order in which they are tried."""
