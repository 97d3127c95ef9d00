"""What a daemon says of a session that it does not have."""

from __future__ import annotations

import pytest

from pydotcompute_server import epoch
from pydotcompute_server.epoch import Epoch


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time, as the daemons read it."""
    clock = Clock()
    monkeypatch.setattr(epoch, "time", lambda: clock.now)
    return clock


class Clock:
    """A clock that stands still."""

    now = 1_000.0

    def epoch(self, now: float) -> Epoch:
        """A daemon that starts at this time."""
        self.now = now
        return Epoch()

    def token(self, of: Epoch, now: float) -> bytes:
        """The token of a session that begins at this time."""
        self.now = now
        return of.new_token()


def test_every_run_has_a_name_of_its_own_and_every_session_a_token(at: Clock) -> None:
    runs = [at.epoch(1.0) for _ in range(3)]
    assert len({run.name for run in runs}) == 3
    assert len({run.new_token() for run in runs for _ in range(3)}) == 9


def test_a_session_that_the_daemon_had_itself_was_too_long_without_a_stream(at: Clock) -> None:
    one = at.epoch(1.0)
    assert "too long without a stream" in one.why_unknown(at.token(one, 2.0))


def test_a_daemon_that_ran_when_the_session_began_says_that_another_one_has_it(at: Clock) -> None:
    one, two = at.epoch(1.0), at.epoch(2.0)
    assert "another daemon has the session" in two.why_unknown(at.token(one, 3.0))
    assert "another daemon has the session" in one.why_unknown(at.token(two, 3.0))


def test_a_daemon_that_started_later_says_that_it_has_restarted(at: Clock) -> None:
    before = at.token(at.epoch(1.0), 2.0)
    assert "has restarted" in at.epoch(3.0).why_unknown(before)


@pytest.mark.parametrize("token", [b"x", b"\0" * 39, b"\0" * 4_000])
def test_what_is_no_token_is_called_so(at: Clock, token: bytes) -> None:
    assert "not a token" in at.epoch(1.0).why_unknown(token)
