"""How much each principal has under way, and how fast it may come.

As in `memory`, nothing is charged or paid back for what is under way: every part of the daemon that has messages of a
principal knows how many. An account looks at its parts when it must know, and between two looks adds up what has come.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import astuple, fields, replace
from time import monotonic
from typing import Protocol
from weakref import WeakSet

from pydotcompute.exceptions import LimitExceededError
from pydotcompute.ring_kernels.places import COME_AGAIN
from pydotcompute_server.limits import Limits, PrincipalLimits
from pydotcompute_server.principals import Principal

__all__ = ["Account", "Accounts", "Bucket", "Part"]

UNLIMITED = 1 << 60
PORTION = 0.05
"""The seconds for which credit is given out at once, when it is the rate that holds a client back."""
LOOK_AFTER = 1.0
"""Seconds after which the parts are looked at again, even if little has come."""
LOOK_PAUSE = 4
"""A look is followed by a pause of so many times its length before the next one."""
MOST_ACCOUNTS = 10_000
"""How many principals are remembered that have nothing under way."""


_NAMES = frozenset(each.name for each in fields(PrincipalLimits))


class Bucket:
    """Lets so many of something pass in a second, and as many at once after a second in which nothing passed.

    Args:
        rate: how many pass in a second; 0 for any number.
        clock: returns the time in seconds.
    """

    def __init__(self, rate: int, clock: Callable[[], float] = monotonic) -> None:
        self.rate = rate
        """How many pass in a second; 0 for any number."""
        self._clock = clock
        self._left = float(rate)
        self._at = clock()

    def change(self, rate: int) -> None:
        """Let so many pass in a second from now on. It stays as full as it was, or as deep in debt."""
        self._left = self.left * rate / self.rate if self.rate else float(rate)
        self.rate = rate

    @property
    def left(self) -> float:
        """How many may pass now. It is negative after more have passed than may."""
        now = self._clock()
        self._left = min(self.rate, self._left + (now - self._at) * self.rate)
        self._at = now
        return self._left

    def take(self, count: int) -> None:
        """Note that so many pass."""
        if self.rate:
            self._left = self.left - count

    def seconds_to(self, count: float) -> float:
        """Return the seconds until so many may pass; more than `rate` count as that many."""
        return max(0.0, (min(count, self.rate) - self.left) / self.rate) if self.rate else 0.0


class Part(Protocol):
    """A part of the daemon that has messages of one principal, such as a session."""

    @property
    def messages_under_way(self) -> int:
        """How many messages of the principal wait for their turn."""

    @property
    def under_way(self) -> tuple[int, int]:
        """Those messages, and the bytes that the part keeps for the principal, which takes longer to find out."""


class Account:
    """What one principal has under way, over all its connections, and how fast it comes."""

    def __init__(self, limits: PrincipalLimits, clock: Callable[[], float] = monotonic) -> None:
        self._limits = limits
        self._most = limits.messages_under_way
        self._most_bytes = limits.bytes_under_way
        self._clock = clock
        self._messages = Bucket(limits.messages_per_second, clock)
        self._bytes = Bucket(limits.bytes_per_second, clock)
        self.stated: Mapping[str, int] | None = None
        """`Principal.limits` of the call that came last. It is kept to see that nothing has changed."""
        self._parts: WeakSet[Part] = WeakSet()
        self._calls = self._call_bytes = 0
        self._came = self._came_bytes = 0  # At least what is under way: that of the last look, and what came since.
        self._look_again_at = 0.0
        self._not_before = 0.0

    def hold_to(self, limits: PrincipalLimits, stated: Mapping[str, int]) -> None:
        """Hold the principal to these limits from now on, in its streams that go on too.

        Args:
            stated: see the attribute of this name.
        """
        self.stated = stated
        if limits != self._limits:
            self._limits = limits
            self._most = limits.messages_under_way
            self._most_bytes = limits.bytes_under_way
            self._not_before = 0.0
            self._look()
            self._messages.change(limits.messages_per_second)
            self._bytes.change(limits.bytes_per_second)

    def add(self, part: Part) -> None:
        """Count what this part has of the principal, as long as the part exists."""
        self._parts.add(part)

    def discard(self, part: Part) -> None:
        """Do not count this part any more."""
        self._parts.discard(part)

    @property
    def is_idle(self) -> bool:
        """True if the account has no parts, so that it may be forgotten."""
        return not (len(self._parts) or self._calls)

    # -- under way -----------------------------------------------------------------------------------------------------

    def carry(self, count: int, size: int) -> None:
        """Count so many messages more, or fewer, that are in calls, and their bytes."""
        self._calls += count
        self._call_bytes += size

    def require_room(self, size: int) -> None:
        """Note that a message of `size` bytes comes. Raise LimitExceededError if too much is under way."""
        if self._most and self._came >= self._most and self._look()[0] >= self._most:
            raise LimitExceededError("messages_under_way_per_principal", self._most, self._came + 1, COME_AGAIN)
        most_bytes = self._most_bytes
        if most_bytes and self._came_bytes + size > most_bytes and self._look()[1] + size > most_bytes:
            asked = self._came_bytes + size
            raise LimitExceededError("bytes_under_way_per_principal", most_bytes, asked, COME_AGAIN)
        self._came += 1
        self._came_bytes += size

    def _look(self) -> tuple[int, int]:
        """Look how much is under way, unless the last look was too short a time ago."""
        began = self._clock()
        if began >= self._not_before:
            if self._most_bytes:
                under_way = [part.under_way for part in self._parts]
                self._came = self._calls + sum(messages for messages, _ in under_way)
                self._came_bytes = self._call_bytes + sum(size for _, size in under_way)
            else:
                self._came = self._calls + sum(part.messages_under_way for part in self._parts)
            now = self._clock()
            self._not_before = now + LOOK_PAUSE * (now - began)
            self._look_again_at = now + LOOK_AFTER
        return self._came, self._came_bytes

    # -- rates ---------------------------------------------------------------------------------------------------------

    def require_rate(self, size: int) -> None:
        """Let a call with `size` bytes pass. Raise LimitExceededError if too many have passed just before.

        One that is longer than what may come in a second passes when the bucket is full, and is paid for afterwards.
        """
        _require(self._messages, "messages_per_second_per_principal", 1)
        _require(self._bytes, "bytes_per_second_per_principal", size)
        self._messages.take(1)
        self._bytes.take(size)

    # -- streams -------------------------------------------------------------------------------------------------------

    def came(self, count: int, size: int) -> None:
        """Note that messages with `size` bytes have come in a stream, which had credit for them."""
        self._came += count
        self._came_bytes += size
        self._messages.take(count)
        self._bytes.take(size)

    def credit(self) -> tuple[int, int]:
        """Return for how many messages, and bytes, one stream of the principal may be given credit now."""
        messages = size = UNLIMITED
        if self._most or self._most_bytes:
            came, came_bytes = self._came, self._came_bytes
            if (
                2 * came > (self._most or UNLIMITED)
                or 2 * came_bytes > (self._most_bytes or UNLIMITED)
                or self._clock() > self._look_again_at
            ):
                came, came_bytes = self._look()
            messages = (self._most or UNLIMITED) - came
            size = (self._most_bytes or UNLIMITED) - came_bytes
        if self._messages.rate:
            messages = min(messages, int(self._messages.left))
        if self._bytes.rate:
            size = min(size, int(self._bytes.left))
        streams = max(1, len(self._parts))
        return _share(messages, streams), _share(size, streams)

    @property
    def seconds_to_credit(self) -> float:
        """The seconds after which it makes sense to ask for credit again."""
        return max(PORTION, *(bucket.seconds_to(PORTION * bucket.rate) for bucket in (self._messages, self._bytes)))


def _require(bucket: Bucket, name: str, count: int) -> None:
    if bucket.rate and bucket.left < min(count, bucket.rate):
        asked = round(bucket.rate - bucket.left) + count
        raise LimitExceededError(name, bucket.rate, asked, bucket.seconds_to(count))


def _share(left: int, streams: int) -> int:
    """Return the share of one of so many streams, which is at least 1 if anything is left."""
    return max(1, left // streams) if left > 0 else 0


class Accounts:
    """The accounts of all principals that have limits."""

    def __init__(self, limits: Limits) -> None:
        self._usual = PrincipalLimits.of_each(limits)
        self._accounts: OrderedDict[str, Account] = OrderedDict()
        self.all_are_limited = any(astuple(self._usual))
        """True if the daemon has limits for each principal."""
        self.in_use = self.all_are_limited
        """True if anybody has an account, or will have one with the next call."""

    def of(self, principal: Principal) -> Account | None:
        """Return the account of this principal, held to the limits that it has now; None if it has never had any."""
        account = self._accounts.get(principal.name)
        if account is None and not self.all_are_limited and _NAMES.isdisjoint(principal.limits):
            return None
        if account is not None:
            if account.stated is not principal.limits:
                account.hold_to(self._limits_of(principal), principal.limits)
            self._accounts.move_to_end(principal.name)
            return account
        limits = self._limits_of(principal)
        if not any(astuple(limits)):
            return None
        if len(self._accounts) >= MOST_ACCOUNTS:
            idle = (name for name, each in self._accounts.items() if each.is_idle)
            self._accounts.pop(next(idle, ""), None)
        self.in_use = True
        account = self._accounts[principal.name] = Account(limits)
        account.stated = principal.limits
        return account

    def _limits_of(self, principal: Principal) -> PrincipalLimits:
        stated = {name: value for name, value in principal.limits.items() if name in _NAMES}
        return replace(self._usual, **stated) if stated else self._usual
