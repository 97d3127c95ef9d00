"""The daemon's side of a session: the part of a client's conversation with a kernel that outlives its stream."""

from __future__ import annotations

import asyncio
from typing import Any

from pydotcompute.ring_kernels.kernel import RingKernel
from pydotcompute.ring_kernels.mail.callers import Caller
from pydotcompute.ring_kernels.mail.delays import UNKNOWN
from pydotcompute.ring_kernels.mail.signals import Signal
from pydotcompute.v1 import message_service_pb2 as pb
from pydotcompute.wire.exchange.batches import keys_of
from pydotcompute.wire.exchange.bodies import Bodies
from pydotcompute.wire.exchange.flow import Incoming
from pydotcompute.wire.exchange.frames import response_part
from pydotcompute.wire.exchange.shared_memory import SharedMemory
from pydotcompute_server.bounds.apart import Apart
from pydotcompute_server.bounds.memory import Memory
from pydotcompute_server.catalog import Catalog
from pydotcompute_server.connected import ConnectedClient
from pydotcompute_server.epoch import Epoch
from pydotcompute_server.exchange.inbound import Inbound
from pydotcompute_server.exchange.outbound import Outbound
from pydotcompute_server.limits import Limits

__all__ = ["Session"]


class Session:
    """One client's conversation with one kernel. One `Conversation` after another carries it."""

    is_session = True

    def __init__(
        self,
        kernel: RingKernel[Any, Any],
        catalog: Catalog,
        opening: pb.Open,
        limits: Limits,
        apart: Apart,
        memory: Memory,
        epoch: Epoch,
        client: ConnectedClient,
    ) -> None:
        self.epoch = epoch
        self.token = epoch.new_token()
        self.kernel = kernel
        self.codecs = catalog.lane_codecs(kernel)
        max_message_bytes = limits.max_message_bytes
        self.max_message_bytes = max_message_bytes
        """Length of the longest body that the client may send, in bytes."""
        self.news = Signal()
        """Notified when there may be something to send to the client."""
        self.caller = caller = Caller[Any](private=True, arrived=self.news, principal=client.owner.principal)
        """The caller that stands for the client at the kernel."""
        incoming = Incoming()
        shares_memory = opening.shared_memory and limits.shared_memory_bytes
        self.bodies = Bodies(
            incoming,
            response_part,
            longest=min(max_message_bytes, opening.max_message_bytes or max_message_bytes),
            longest_received=max_message_bytes,
            part_bytes=opening.part_bytes,
            memory=SharedMemory.create(limits.shared_memory_bytes, self.codecs) if shares_memory else None,
        )
        new_codec = catalog.codec if opening.new_types else None
        self.outbound = Outbound(
            kernel, caller, self.codecs, self.bodies, apart, limits.unacknowledged_bytes, new_codec
        )
        self.inbound = Inbound(
            kernel,
            caller,
            self.codecs[0],
            incoming,
            self.bodies,
            limits,
            apart,
            memory,
            self.outbound.refuse,
            client,
        )
        self._account = account = client.account
        if account is not None:
            account.add(self)
        self.over = False
        self.is_kicked = False
        """True if the session is to end with its stream."""
        self.client = client
        """The client that carries the session, or has carried it last."""
        self.lock = asyncio.Lock()
        """Held by the call that carries the session."""
        self.newest_stream: object = None
        """The context of the stream that carries the session, or is to carry it next."""

    def take_ack(self, ack: pb.Ack) -> None:
        """Take in an acknowledgement of the client, and withdraw the requests that it has given up.

        Raises:
            ProtocolError: the acknowledgement breaks the rules.
        """
        if self.outbound.take_ack(ack):
            self.inbound.withdraw(ack.withdrawn)

    def explain(self, inquiry: pb.Inquiry) -> pb.Explanation:
        """Say why requests of this client are not answered yet. Of a request that is not waiting, nothing is known.

        Raises:
            ProtocolError: the inquiry breaks the rules.
        """
        mail, caller = self.kernel.mail, self.caller
        keys = keys_of(inquiry.message_ids)
        not_yet = self.inbound.places(keys)
        own = {key for key in keys if key in not_yet or mail.replies.sender_of(key) is caller}
        delays = mail.delays.of_all(own, not_yet) if own else {}
        explanation = pb.Explanation()
        for key in keys:
            explanation.delays.add(message_id=key.to_bytes(16), **delays.get(key, UNKNOWN)._asdict())
        if inquiry.receive:
            explanation.delays.add(**mail.delays.of_receive(caller.unanswered)._asdict())
        return explanation

    @property
    def held_bytes(self) -> int:
        """The bytes of all messages of the session, in both directions, that are not in a mailbox."""
        return self.inbound.held_bytes + self.outbound.held_bytes

    @property
    def messages_under_way(self) -> int:
        """The messages of the client that wait in the mailbox or for room in it."""
        in_mailbox = min(self.caller.unanswered, len(self.kernel.mail.inbox))
        return len(self.inbound.pending) + in_mailbox

    @property
    def under_way(self) -> tuple[int, int]:
        """The messages of the client that wait in the mailbox or for room in it, and the bytes of `held_bytes`."""
        return self.messages_under_way, self.held_bytes

    @property
    def traffic(self) -> tuple[int, int, int, int]:
        """The messages received from the client and their bytes, and the messages sent to it and theirs."""
        incoming, outgoing = self.inbound.incoming, self.outbound.outgoing
        return incoming.received, incoming.received_bytes, outgoing.sent, outgoing.sent_bytes

    def carried_by(self, client: ConnectedClient) -> None:
        """Note which client carries the session from now on."""
        if self.client is not client:
            self.client.talks.discard(self)
        self.client = client
        client.talks.add(self)

    @property
    def all_is_sent(self) -> bool:
        """True if the kernel has ended, and everything of it that is for the client has been sent."""
        kernel = self.kernel
        return (
            kernel.gate.has_ended
            and self.outbound.all_is_told
            and not (kernel.mail.outputs.items.size or self.inbound.pending)
        )

    def end(self) -> None:
        """End the session.

        Outputs that the client never acknowledged go to other clients. Such replies become dead letters.
        """
        self.over = True
        self.client.leave(self)
        if self._account is not None:
            self._account.discard(self)
        self.outbound.end()
        self.inbound.end()
        self.bodies.close()
