"""The watch over an event loop: what counts as a stall, and what is logged of it."""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator

import pytest

from pydotcompute_server.observe import watchdog as module
from pydotcompute_server.observe.holder import Holder
from pydotcompute_server.observe.watchdog import Watchdog

SLOW = Holder("ring kernel slow", "slow", "rk.py:57", True)
OTHER = Holder("ring kernel other", "other", "rk.py:91", True)


class Scene:
    """A watchdog with a loop that turns when the test says so, and a clock of the test's own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.holder = SLOW
        self.said: list[str] = []
        self.loop = asyncio.new_event_loop()
        monkeypatch.setattr(module, "monotonic", lambda: self.now)
        monkeypatch.setattr(module, "say", self._say)
        self.watchdog = Watchdog(self.loop, lambda: self.holder, 1.0)

    def _say(self, log: Callable[..., None], text: str, *args: object, **_: object) -> None:
        self.said.append(text % args)

    def pass_time(self, seconds: float) -> None:
        """Let time pass while the loop is held up."""
        for _ in range(round(4 * seconds)):
            self.now += 0.25
            self.watchdog.look()

    def turn(self) -> None:
        """Let the loop turn, and look at it."""
        self.loop.run_until_complete(asyncio.sleep(0))
        self.watchdog.look()


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    scene = Scene(monkeypatch)
    scene.watchdog.look()
    yield scene
    scene.loop.close()


def test_a_loop_that_turns_is_no_stall(scene: Scene) -> None:
    for _ in range(20):
        scene.pass_time(0.75)
        scene.turn()
    assert (scene.said, scene.watchdog.stalls, scene.watchdog.stalled_seconds) == ([], 0, 0.0)
    assert scene.watchdog.holder is None


def test_a_stall_is_told_once_while_it_lasts_and_once_when_it_ends(scene: Scene) -> None:
    for number in (1, 2):
        scene.pass_time(5)
        assert scene.watchdog.holder == SLOW
        scene.turn()
        assert scene.watchdog.holder is None
        assert (scene.watchdog.stalls, scene.watchdog.stalled_seconds) == (number, number * 5.0)
    advice = "make it a plain def, or give the work to a thread, as by asyncio.to_thread"
    assert scene.said == 2 * [
        f"kernel 'slow' has held the event loop for 1.0 s at rk.py:57; {advice}",
        "the event loop turns again; kernel 'slow' held it for 5.0 s in all",
    ]


def test_nobody_is_blamed_for_what_several_tasks_did(scene: Scene) -> None:
    scene.pass_time(0.75)
    scene.holder = OTHER
    scene.pass_time(0.25)
    scene.turn()
    assert scene.said == [
        "more than one task held the event loop for 1.0 s, now kernel 'other' at rk.py:91",
        "the event loop turns again; more than one task held it for 1.0 s in all",
    ]


def test_the_daemon_gets_no_advice_for_kernels(scene: Scene) -> None:
    scene.holder = Holder("Task-1", None, "lane.py:3", False)
    scene.pass_time(1)
    assert scene.said == ["the daemon itself has held the event loop for 1.0 s at lane.py:3"]


def test_time_in_which_nobody_looked_is_no_stall(scene: Scene) -> None:
    scene.now += 60
    scene.watchdog.look()
    scene.pass_time(0.5)
    scene.turn()
    assert scene.said == ["the process did not run for 60.0 s: it was stopped, or C code held Python's lock"]
    assert scene.watchdog.stalls == 0


def test_a_loop_that_is_closed_is_left_alone(scene: Scene) -> None:
    scene.turn()
    scene.loop.close()
    scene.now += 0.25
    scene.watchdog.look()


def test_a_log_that_blocks_holds_nobody_up() -> None:
    blocked, going_on = threading.Event(), threading.Event()

    class Stuck(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            blocked.set()
            going_on.wait()

    logger = logging.getLogger("stuck")
    logger.addHandler(handler := Stuck())
    try:
        thread = module.say(logger.error, "%s", "nobody hears it")
        assert blocked.wait(30)
    finally:
        going_on.set()
        thread.join()
        logger.removeHandler(handler)
