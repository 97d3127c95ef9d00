"""Which messages a kernel was sent lately."""

import pytest

from pydotcompute.exceptions import MessageDeserializationError
from pydotcompute_server.bounds.shares import Owner
from pydotcompute_server.limits import Limits
from pydotcompute_server.unary.sends import Sends

REMEMBERED, SECONDS = 3, 600.0


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 1.0

    def __call__(self) -> float:
        return self.now


OWNER = Owner("a", "ipv4:127.0.0.1:1")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sends(clock: Clock) -> Sends:
    return Sends(Limits(sent_ids=REMEMBERED, sent_ids_time=SECONDS), clock)


def take(sends: Sends, key: int) -> None:
    sends.begin(("a", key), b"digest")
    sends.end(("a", key), OWNER, taken=True)


def test_the_last_ids_are_remembered(sends: Sends) -> None:
    for key in range(REMEMBERED + 1):
        take(sends, key)
    assert not sends.was_taken(("a", 0), b"digest", "Job")
    assert sends.was_taken(("a", 1), b"digest", "Job")
    assert sends.was_taken(("a", REMEMBERED), b"digest", "Job")


def test_an_id_is_remembered_for_its_time(sends: Sends, clock: Clock) -> None:
    take(sends, 1)
    clock.now += SECONDS / 2
    take(sends, 2)
    clock.now += SECONDS / 2
    assert sends.was_taken(("a", 1), b"digest", "Job")
    clock.now += 0.001
    assert not sends.was_taken(("a", 1), b"another", "Job")
    assert sends.was_taken(("a", 2), b"digest", "Job")


def test_an_id_that_is_waiting_is_never_forgotten(sends: Sends, clock: Clock) -> None:
    sends.begin(("a", -1), b"digest")
    for key in range(REMEMBERED + 1):
        take(sends, key)
    clock.now += 2 * SECONDS
    assert sends.is_waiting(("a", -1)) is not None
    with pytest.raises(MessageDeserializationError, match="another message"):
        sends.was_taken(("a", -1), b"another", "Job")


def test_an_id_that_failed_is_forgotten(sends: Sends) -> None:
    sends.begin(("a", 1), b"digest")
    sends.end(("a", 1), OWNER, taken=False)
    assert sends.is_waiting(("a", 1)) is None
    assert not sends.was_taken(("a", 1), b"another", "Job")
