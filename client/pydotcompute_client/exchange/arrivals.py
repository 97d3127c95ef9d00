"""The messages that come from the daemon in a session: replies for their callers, outputs for receiving tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any
from uuid import UUID

from pydotcompute.exceptions import MessageError
from pydotcompute.messages.ids import uuids_from_bytes
from pydotcompute.protobuf.codec import Codec
from pydotcompute.ring_kernels.mail.callers import Caller, Unanswered
from pydotcompute.ring_kernels.mail.mailbox import Mailbox
from pydotcompute.ring_kernels.mail.replies import Replies
from pydotcompute.v1 import message_service_pb2 as pb
from pydotcompute.wire.exchange.batches import read
from pydotcompute.wire.exchange.bodies import Bodies
from pydotcompute.wire.exchange.flow import Incoming
from pydotcompute.wire.exchange.limits import WINDOW, WINDOW_BYTES
from pydotcompute_client.exchange.acks import Acks

__all__ = ["Arrivals", "Outputs"]


class Outputs(Mailbox[Any]):
    """The outputs that the daemon has sent. `on_taken` is called with each output that a task takes."""

    def __init__(self, kernel_id: str) -> None:
        super().__init__(kernel_id, WINDOW)
        self.on_taken: Callable[[Any], None] | None = None

    def get_nowait(self) -> Any:
        """Take the next output, as `Mailbox.get_nowait` does, and call `on_taken` with it."""
        item = super().get_nowait()
        if item is not None and self.on_taken is not None:
            self.on_taken(item)
        return item


class Arrivals:
    """Takes in batches, delivers their messages, and has them acknowledged."""

    def __init__(self, replies: Replies[Any], acks: Acks) -> None:
        self.incoming = Incoming()
        self.codecs: list[Codec[Any]] = []
        """The codecs of the kernel's message types, in the daemon's order."""
        self.bodies: Bodies | None = None
        """The way in which bodies travel in this session; None until the session is open."""
        self._replies = replies
        self._acks = acks
        self._kept_back: dict[int, list[Any]] = {}  # Request → replies that wait for that request's reply.
        self.grant()

    def grant(self) -> None:
        """Allow the daemon to send as much as it ever may have under way."""
        self.incoming.grant(WINDOW, WINDOW_BYTES)

    def take_batch(self, batch: pb.Batch) -> None:
        """Take in a batch, and deliver its messages. Who waits for one that cannot be read is told.

        Raises:
            ProtocolError: the batch breaks the rules.
        """
        bodies, message_ids, priorities, correlation_ids, types = read(batch, len(self.codecs), self.bodies)
        again = self.incoming.receive(batch.first_sequence, list(map(len, bodies)))
        codecs = self.codecs
        messages: list[Any]
        unreadable = False
        try:
            if len(batch.types) <= 1:
                decode = codecs[batch.types[0] if batch.types else 0].decode
                messages = list(map(decode, bodies, message_ids, priorities, correlation_ids))
            else:
                messages = [
                    codecs[kind].decode(body, message_id, priority, answers)
                    for body, message_id, priority, answers, kind in zip(
                        bodies, message_ids, priorities, correlation_ids, types, strict=True
                    )
                ]
        except MessageError:
            unreadable = True
            each = zip(types, bodies, message_ids, priorities, correlation_ids, strict=True)
            messages = [_decoded(codecs[kind], *parts) for kind, *parts in each]  # type: ignore[arg-type]
        replies, outputs = self._replies, set(batch.outputs)
        self._acks.arrived(batch.first_sequence, messages, self.incoming.received, self.incoming.received_bytes)
        later = self._later_replies(batch.before_replies_to) if batch.before_replies_to else None
        if (
            not (again or later or outputs or unreadable)
            and len(messages) > 1
            and batch.correlation_ids
            and not batch.uncorrelated
        ):
            keys = [message.correlation_id.int for message in messages]
            if replies.deliver_all(messages, keys):
                return
        for index in range(again, len(messages)):
            message = messages[index]
            if index in outputs:
                self._acks.output_arrived(batch.first_sequence + index, message)
                replies.outputs.put_anyway(message, priorities[index])
                replies.wanted.notify()
            elif unreadable and isinstance(message, Unanswered):
                self._acks.undeliverable(message)
                replies.fail(message.message_id, message.error)
            elif not (later and self._keep_back(message, later)):
                self._deliver(message)
        if batch.body_in_parts and self._kept_back and not outputs:
            self._deliver_kept(self._kept_back.pop(_request_of(messages[0]), ()))

    def _deliver(self, reply: Any) -> None:
        replies = self._replies
        if not replies.deliver(reply):
            replies.outputs.put_anyway(reply, reply.priority)
            replies.wanted.notify()

    def _later_replies(self, message_ids: bytes) -> dict[Caller[Any], int]:
        """Return the callers of these requests, each with its last request. The requests' replies come in parts."""
        keys = [uuid.int for uuid in uuids_from_bytes(message_ids)]
        callers = {self._replies.sender_of(key): key for key in keys}
        return {caller: key for caller, key in callers.items() if caller is not None and not caller.gone}

    def _keep_back(self, reply: Any, later: dict[Caller[Any], int]) -> bool:
        """Keep a reply back until an earlier reply for the same caller has come. Return False if there is none."""
        caller = self._replies.sender_of(_request_of(reply))
        if caller is None or caller not in later:
            return False
        self._kept_back.setdefault(later[caller], []).append(reply)
        return True

    def _deliver_kept(self, replies: Iterable[Any]) -> None:
        for reply in replies:
            self._deliver(reply)

    def take_refused(self, first_sequence: int, count: int) -> int:
        """Count refusals with the messages. Return the number of those that had arrived before."""
        again = self.incoming.receive(first_sequence, [0] * count, free=True)
        nothing = [None] * count
        self._acks.arrived(first_sequence, nothing, self.incoming.received, self.incoming.received_bytes)
        return again

    def return_outputs(self) -> None:
        """Give outputs that no task waits for back to the daemon, for other clients."""
        if not self._acks.outputs_held or self._replies.receiving:
            return
        for output in self._replies.outputs.drain():
            if not self._acks.return_output(output):  # It is a reply to a task that has ended, and stays here.
                self._replies.outputs.put_anyway(output, output.priority)

    def forget_outputs(self) -> None:
        """Drop the outputs that no task has received. The daemon still has them, and gives them to other clients."""
        for output in self._replies.outputs.drain():
            if not self._acks.holds(output):
                self._replies.outputs.put_anyway(output, output.priority)

    def end(self) -> None:
        """Deliver the replies that were kept back, because nothing more comes."""
        self._deliver_kept(chain.from_iterable(self._kept_back.values()))
        self._kept_back.clear()
        if self.bodies is not None:
            self.bodies.close()


def _decoded(codec: Codec[Any], body: Any, message_id: UUID, priority: int, correlation_id: UUID | None) -> Any:
    """Return a message, or what stands for one that this program's class refuses or cannot hold."""
    try:
        return codec.decode(body, message_id, priority, correlation_id)
    except MessageError as error:
        return Unanswered(correlation_id or message_id, error)


def _request_of(reply: Any) -> int:
    """Return the `message_id.int` of the request that a reply answers."""
    key: UUID = reply.message_id if reply.correlation_id is None else reply.correlation_id
    return key.int
