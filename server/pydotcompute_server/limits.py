"""The bounds of the daemon, in one place.

The limits of one mailbox belong to its kernel (`RingKernelConfig`), and what a runtime keeps to `RuntimeLimits`. What
may be under way over `Exchange` is the same at both ends: `pydotcompute.wire.exchange.limits`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import isfinite

from pydotcompute.exceptions import InvalidConfigurationError

__all__ = ["Limits"]

LEAST_SHARED_BYTES = 1 << 20
"""With less shared memory, next to nothing goes there."""

_MAY_BE_ZERO = {"shared_memory_bytes", "session_timeout", "answer_margin", "grace", "last_calls", "last_resort"}


@dataclass(frozen=True)
class Limits:
    """How much the daemon takes, keeps, and waits for. Times are in seconds.

    Raises:
        InvalidConfigurationError: with this limit a daemon cannot work.
    """

    # Messages.
    max_message_bytes: int = 64 << 20
    """The longest body of a message, in either direction. A longer request is refused with `MESSAGE_INVALID`; a longer
    answer becomes a dead letter, and its caller is told: by a refusal over `Exchange`, else by `INTERNAL`."""
    shared_memory_bytes: int = 0
    """Memory that a client of the same host and user may share, for each conversation and direction; 0 for none."""
    mailbox_bytes: int = 256 << 20
    """The bytes of large messages in one mailbox. Beyond them the mailbox takes no message from streams for a while."""
    large_message_bytes: int = 4_096
    """A message of at least this length is large."""

    # Sessions and connections.
    session_timeout: float = 60.0
    """How long a client's conversation with a kernel lives on when its connection has broken."""
    sessions_kept: int = 4_096
    """How many conversations whose connection has broken are kept; the one that broke first goes first."""
    messages_at_once: int = 256
    """How many messages of a conversation are put into a mailbox, or made ready to be sent, before others have their
    turn."""
    read_ahead: int = 512
    """How many messages a client may have under way though the mailbox is full, while other clients send to it too.
    With less, each of many clients would have frames of a few messages."""
    farewell: float = 1.0
    """How long a client has to end its side of a stream when the daemon has said `bye`."""
    keepalive: float = 30.0
    """How long a connection may be silent before the daemon asks whether the client is still there."""
    keepalive_timeout: float = 10.0
    """How long the client has to answer that."""

    # A kernel's own service: `Stream`.
    stream_requests: int = 16_384
    """Requests of one `Stream` that wait for their replies, and replies that wait to be sent; then it is not read from.
    It is several mailboxes full, for an actor may collect that many before it answers any."""
    stream_replies: int = 32_768
    """Replies of one `Stream` that wait to be sent before a further one to any request finds no room, which ends the
    stream with `QUEUE_FULL`: the kernel cannot wait for room, for it has other callers."""

    # The unary calls.
    client_ids: int = 1_000
    """`client_id`s of one kernel that have replies kept for them; the one that was quiet longest is forgotten first."""
    returned_messages: int = 10_000
    """How many messages of one kernel are remembered as having been in a response before."""
    sent_ids: int = 10_000
    """How many ids of messages that one kernel was sent are remembered, so that no message is put twice."""
    sent_ids_time: float = 600.0
    """How long such an id is remembered."""
    longest_lease: float = 600.0
    """The longest lease of a `Receive`."""
    acknowledged_deliveries: int = 10_000
    """How many acknowledged deliveries of one kernel are remembered, so that to acknowledge one again is no error."""
    answer_margin: float = 0.1
    """What is left of a call's deadline, at most, when the daemon gives up, so that its answer arrives in time."""

    # The other services.
    dead_letters_default_page: int = 100
    """Dead letters of a page, if the request does not say."""
    dead_letters_page: int = 1_000
    """Dead letters of a page, whatever the request says."""
    dead_letters_page_bytes: int = 512 << 10
    """The bytes of a page with more than one dead letter."""
    shortest_watch_interval: float = 0.01
    """The time between two snapshots of `WatchTelemetry`, at least."""
    unknown_name_characters: int = 200
    """How many characters of the name of a method that does not exist are looked at, and quoted."""
    unknown_names_told: int = 30
    """How many names of methods that do exist the answer to such a call has."""
    log_line_characters: int = 16_384
    """How many characters a kernel can print without the end of a line before they are logged all the same."""

    # The end.
    grace: float = 10.0
    """How long the daemon may take to finish what is under way when it ends."""
    last_calls: float = 1.0
    """How much of `grace` calls have to end, once all kernels have ended: the calls that are left are streams that only
    their clients end."""
    last_resort: float = 0.5
    """How long the process of the command may take to end of itself when the daemon has ended."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            problem = _problem(value, is_count=isinstance(field.default, int), may_be_zero=field.name in _MAY_BE_ZERO)
            if problem is not None:
                raise InvalidConfigurationError(field.name, value, problem)
        if 0 < self.shared_memory_bytes < LEAST_SHARED_BYTES:
            problem = f"at least {LEAST_SHARED_BYTES} are of use"
            raise InvalidConfigurationError("shared_memory_bytes", self.shared_memory_bytes, problem)
        if self.dead_letters_default_page > self.dead_letters_page:
            problem = f"more than dead_letters_page, which is {self.dead_letters_page}"
            raise InvalidConfigurationError("dead_letters_default_page", self.dead_letters_default_page, problem)


def _problem(value: object, *, is_count: bool, may_be_zero: bool) -> str | None:
    """What is wrong with the value of a limit; None if nothing is."""
    if isinstance(value, bool) or not isinstance(value, int if is_count else int | float):
        return "not a whole number" if is_count else "not a number"
    least = "it is at least 0" if may_be_zero else "it is more than 0"
    if not isfinite(value):
        return f"not finite; {least}"
    return least if value < 0 or (value == 0 and not may_be_zero) else None
