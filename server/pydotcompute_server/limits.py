"""The limits of the daemon, in one place.

They include those of the daemon's runtime, `RuntimeLimits`. Other limits are elsewhere: `RingKernelConfig` has those of
a kernel's mailboxes. `pydotcompute.wire.exchange.limits` has those of `Exchange`, which are the same for the daemon and
the client.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from pydotcompute.exceptions import InvalidConfigurationError
from pydotcompute.ring_kernels.limits import RuntimeLimits

__all__ = ["COUNTS_OF_PRINCIPALS", "Limits", "PrincipalLimits"]

LEAST_SHARED_BYTES = 1 << 20
"""The least shared memory, in bytes: with less, hardly any message would fit."""

_MAY_BE_ZERO = {
    "max_calls_per_principal",
    "max_connections_per_principal",
    "max_kernels_per_principal",
    "messages_under_way_per_principal",
    "bytes_under_way_per_principal",
    "messages_per_second_per_principal",
    "bytes_per_second_per_principal",
    "max_sessions_per_principal",
    "sessions_per_second_per_principal",
    "max_watchers_per_principal",
    "max_leases_per_principal",
    "memory_bytes",
    "shared_memory_bytes",
    "session_timeout",
    "answer_margin",
    "grace",
    "last_calls",
    "last_resort",
}


COUNTS_OF_PRINCIPALS = frozenset(
    ("max_calls", "max_connections", "max_kernels", "max_leases", "max_sessions", "max_watchers")
)
"""The settings of which a principal may have another number than `…_per_principal` gives to each."""


@dataclass(frozen=True, slots=True)
class PrincipalLimits:
    """How much one principal may have under way, and how fast it may come. 0 for no limit.

    The fields of `Limits` whose names end in `_per_principal` say what these numbers mean.
    """

    messages_under_way: int = 0
    """See `Limits.messages_under_way_per_principal`."""
    bytes_under_way: int = 0
    """See `Limits.bytes_under_way_per_principal`."""
    messages_per_second: int = 0
    """See `Limits.messages_per_second_per_principal`."""
    bytes_per_second: int = 0
    """See `Limits.bytes_per_second_per_principal`."""

    @classmethod
    def of_each(cls, limits: Limits) -> PrincipalLimits:
        """Return those that hold for each principal of whom nothing else is said."""
        return cls(**{each.name: getattr(limits, f"{each.name}_per_principal") for each in fields(cls)})


@dataclass(frozen=True)
class Limits(RuntimeLimits):
    """How much the daemon takes and keeps, and how long it waits. Times are in seconds.

    Raises:
        InvalidConfigurationError: a daemon cannot work with this limit.
    """

    # Counts. What is over one of these is refused with `LIMIT_EXCEEDED`.
    max_connections: int = 4_096
    """Connections. One more is closed as soon as it is made. If the daemon may not open enough files, there are
    fewer."""
    max_calls: int = 16_384
    """Calls at the same time, of all clients. A stream is a call as long as it lasts."""
    max_calls_per_principal: int = 0
    """Calls of one principal at the same time. 0 for seven eighths of `max_calls`, so that there is room for others. It
    is counted only if the daemon tells principals apart."""
    max_connections_per_principal: int = 0
    """Connections of one principal over which calls run at the same time. 0 for no limit. All clients that share a Unix
    socket, or come through one connection of a proxy, count as one. It is counted only if the daemon tells principals
    apart."""
    max_calls_per_connection: int = 8_192
    """Calls at the same time over one connection. Further calls wait at the client: gRPC does not send them."""
    max_sessions: int = 8_192
    """Sessions, with and without a connection."""
    max_sessions_per_principal: int = 0
    """Sessions of one principal. 0 for seven eighths of `max_sessions`, so that there is room for others."""
    sessions_per_second_per_principal: int = 0
    """New sessions of one principal in a second. Further ones are opened later. 0 for 100, or for any number if the
    daemon does not tell principals apart."""
    max_sessions_per_connection: int = 1_024
    """Sessions that were opened over one connection. When a connection breaks, the ends of its sessions come before
    anything that other clients send meanwhile, so this is also a bound on how long those wait."""
    max_watchers: int = 2_048
    """Calls of `WatchTelemetry` at the same time, and as many of the health service's `Watch`."""
    max_watchers_per_principal: int = 0
    """Calls of `WatchTelemetry` of one principal at the same time. 0 for seven eighths of `max_watchers`, so that
    there is room for others."""
    max_watchers_per_connection: int = 1_024
    """Calls of `WatchTelemetry` at the same time over one connection."""
    max_kernels_per_principal: int = 0
    """Kernels that one principal has launched and that are not terminated. 0 for seven eighths of `max_kernels`, so
    that there is room for others."""
    max_leases: int = 16_384
    """Leases of one kernel that are open at the same time. There are also at most as many as the kernel's output
    mailbox holds messages; one more than that is refused with `QUEUE_FULL`."""
    max_leases_per_principal: int = 0
    """Leases of one kernel that one principal has. 0 for seven eighths of `max_leases`, so that
    there is room for others."""
    max_leases_per_connection: int = 8_192
    """Leases of one kernel that were granted over one connection and are open."""

    # How much a principal may have, and how fast it may come. Unary calls over one of these are refused with
    # `LIMIT_EXCEEDED`; streams are held back.
    messages_under_way_per_principal: int = 0
    """Messages of one principal that wait in mailboxes, for room in one, or in calls. 0 for no limit."""
    bytes_under_way_per_principal: int = 0
    """Bytes of messages that wait for room, for a client of this principal to take them, or in calls. 0 for no
    limit."""
    messages_per_second_per_principal: int = 0
    """Messages and calls of one principal in a second. After a second without any, as many may come at once. 0 for no
    limit."""
    bytes_per_second_per_principal: int = 0
    """Bytes of messages from one principal in a second, in the same way. 0 for no limit."""

    # Messages.
    memory_bytes: int = 0
    """Memory for the bodies of messages, wherever they wait in the daemon. Over it, messages are refused with
    `MEMORY_EXHAUSTED`. 0 for half of the machine's memory, or of the cgroup's limit if that is less."""
    max_message_bytes: int = 64 << 20
    """Length of the longest message body, in either direction. A longer request is refused with `MESSAGE_INVALID`. A
    longer answer becomes a dead letter; its caller gets a refusal over `Exchange`, or else the status `INTERNAL`."""
    max_message_elements: int = 131_072
    """How many elements a request may have: fields, items of lists, entries of maps, and messages in it with all that
    is in them. The numbers of arrays do not count. A request with more is refused with `LIMIT_EXCEEDED` before it is
    read."""
    max_request_bytes: int = 8 << 20
    """Length of the longest request that comes as a whole: of a unary call, or of a frame of `Exchange`. gRPC reads it
    in the event loop, before the daemon sees it, so it holds up everybody: a longer one gets gRPC's own
    `RESOURCE_EXHAUSTED`. The Python client sends long messages in parts, which have the limit `max_message_bytes`."""
    max_control_bytes: int = 1 << 20
    """Length of the longest request that holds no message of a kernel. A longer one is refused with
    `LIMIT_EXCEEDED`."""
    max_control_items: int = 10_000
    """How many ids such a request may name, in each of its fields."""
    decode_apart_bytes: int = 256 << 10
    """A message of at least this length is read and written in a thread, so that the daemon answers other clients
    meanwhile. If there are messages or texts in its lists, a sixteenth of this length is enough. A message of few
    elements needs no thread, however long it is."""
    decode_threads: int = 1
    """How many such messages are read or written at the same time. They share one interpreter, so more of them are
    hardly faster, and take more of its time from the event loop."""
    shared_memory_bytes: int = 0
    """Memory that each session with a client of the same host and user shares with it, in each direction. 0 for
    none."""
    mailbox_bytes: int = 256 << 20
    """Bytes of large messages in one mailbox. When there are as many, the mailbox takes no large messages from unary
    calls, and no messages from streams, until there are fewer."""
    large_message_bytes: int = 4_096
    """A message is large if its body has at least this length."""

    unacknowledged_bytes: int = 64 << 20
    """Bytes of replies that may wait for one client, not counting the last: in a session until it acknowledges them, in
    a `Stream` until they are sent, for a `client_id` until they are received. At that number the daemon takes no more
    requests from this client."""

    # Sessions and connections.
    session_timeout: float = 60.0
    """How long a session is kept after its connection has broken."""
    sessions_kept: int = 4_096
    """How many sessions without a connection are kept. Of the principal and the connection with most
    of them, the oldest is dropped."""
    messages_at_once: int = 256
    """How many messages of one session are put into a mailbox, or prepared for sending, before other sessions have
    their turn."""
    read_ahead: int = 512
    """How many messages a client may send ahead to a full mailbox, while other clients send to that mailbox too. If
    this were smaller, many clients would send frames of only a few messages each."""
    farewell: float = 1.0
    """How long a client has to end its side of a stream after the daemon has said `bye`."""
    keepalive: float = 30.0
    """How long a connection may be silent before the daemon asks the client for a sign of life."""
    keepalive_timeout: float = 10.0
    """How long the client has to give that sign of life."""
    certificates_checked: float = 10.0
    """How often the daemon looks if the files with its certificates have changed. It also looks when a client
    connects."""
    insecure_warning: float = 3_600.0
    """How often the log says that strangers can use the daemon, if `--insecure` allows it."""

    stalled_reader: float = 30.0
    """How long a client may leave a message unread that the daemon writes to it; and how long it may acknowledge
    nothing while it has as many unacknowledged messages or bytes as it may have. Then its stream ends. A session can be
    resumed on another stream."""
    stalled_parts: float = 30.0
    """How long a client may take from one part of a long body to the next. Then its stream ends, and the session can be
    resumed on another one."""

    # A kernel's own service: `Stream`.
    stream_requests: int = 16_384
    """How many requests of one `Stream` may wait for their replies, with the replies that wait to be sent. At that
    number the daemon stops reading the stream. The limit is several mailboxes full, because an actor may collect that
    many requests before it answers any."""
    stream_replies: int = 32_768
    """How many replies of one `Stream` may wait to be sent. One more ends the stream with `QUEUE_FULL`: the kernel
    cannot wait for room, because it has other callers."""

    # The unary calls.
    client_ids: int = 1_000
    """For how many `client_id`s of one kernel replies are kept. For a new one, another is forgotten: one without any
    reply or request; or else one of the principal that has most of them, which was quiet for `client_id_time`, or is
    the oldest of the connection that has most of those. If there is none of these, the new one is refused with
    `LIMIT_EXCEEDED`."""
    client_id_time: float = 600.0
    """How long the replies to a `client_id` are kept while others need its place."""
    returned_messages: int = 10_000
    """How many messages of one kernel are remembered because they were in a response and came back. When there are
    more, the oldest is forgotten of the principal and the connection with most of them."""
    sent_ids: int = 10_000
    """How many ids of messages to one kernel are remembered, so that no message is put into the mailbox twice. When
    there are more, the oldest is forgotten of the principal and the connection with most of them."""
    sent_ids_time: float = 600.0
    """How long the id of a message is remembered."""
    longest_lease: float = 600.0
    """The longest lease of a `Receive`."""
    acknowledged_deliveries: int = 10_000
    """How many acknowledged deliveries of one kernel are remembered, so that a second acknowledgement is no error. When
    there are more, the oldest is forgotten of the principal and the connection with most of them."""
    answer_margin: float = 0.1
    """How long before a call's deadline the daemon gives up, at most, so that its answer arrives in time."""

    # The other services.
    launches_kept: int = 1_000
    """How many launches are remembered by the `request_id` of their request, so that nothing is launched twice. When
    there are more, the oldest of the connection with most of them is forgotten."""
    launches_kept_time: float = 600.0
    """How long a launch is remembered by the `request_id` of its request."""
    dead_letters_default_page: int = 100
    """How many dead letters a page has if the request names no number."""
    dead_letters_page: int = 1_000
    """How many dead letters a page has at most, even if the request asks for more."""
    dead_letters_page_bytes: int = 512 << 10
    """The most bytes of a page. A page of a single dead letter may have more."""
    list_page: int = 1_000
    """How many kernels or kernel types a page of a list has at most, also if the request asks for more or names no
    number."""
    list_page_bytes: int = 1 << 20
    """The most bytes of such a page. A page of a single entry may have more."""
    shortest_watch_interval: float = 0.01
    """The shortest time between two snapshots of `WatchTelemetry`."""
    snapshots_per_second: int = 2_000
    """How many snapshots `WatchTelemetry` sends in a second, to all clients together. With more clients, each gets
    fewer of them than it asks for."""
    unknown_name_characters: int = 200
    """How many characters of an unknown method's name the daemon looks at and quotes."""
    unknown_names_told: int = 30
    """How many names the daemon lists when it is asked for one that it does not know: of a method, or in a health
    check."""
    log_line_characters: int = 16_384
    """How many characters without a line break a kernel can print before they are logged as one line."""

    stall: float = 1.0
    """How long the event loop may be held up before the log says by whom."""

    # The end.
    grace: float = 10.0
    """How long the daemon may take to finish its work when it ends."""
    overtime: float = 1.0
    """How long after `grace` the process is ended by force, with exit code 3, if the daemon has not ended by then."""
    last_calls: float = 1.0
    """How much of `grace` the last calls have to end, once all kernels have ended. These calls are streams that only
    their clients can end."""
    last_resort: float = 0.5
    """How long the process may take to exit after the daemon has ended. Then it is ended by force."""

    def __post_init__(self) -> None:
        self.check(may_be_zero=_MAY_BE_ZERO)
        if 0 < self.shared_memory_bytes < LEAST_SHARED_BYTES:
            problem = f"at least {LEAST_SHARED_BYTES} are of use"
            raise InvalidConfigurationError("shared_memory_bytes", self.shared_memory_bytes, problem)
        if self.dead_letters_default_page > self.dead_letters_page:
            problem = f"more than dead_letters_page, which is {self.dead_letters_page}"
            raise InvalidConfigurationError("dead_letters_default_page", self.dead_letters_default_page, problem)

    def per_principal(self, name: str) -> int:
        """Return the limit on what one principal has of that which the setting `name` limits."""
        most: int = getattr(self, name)
        return getattr(self, f"{name}_per_principal") or most - most // 8
