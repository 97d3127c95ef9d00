"""The daemon's process: a thread for the event loop, and the main thread, which watches it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib.util
import inspect
import logging
import os
import resource
import signal
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from time import monotonic
from typing import TextIO

from pydotcompute.ring_kernels.declaration import KernelType
from pydotcompute_server.daemon import Daemon
from pydotcompute_server.observe.holder import find_holder
from pydotcompute_server.observe.watchdog import Watchdog, say
from pydotcompute_server.process.signals import Signals
from pydotcompute_server.settings import Settings

__all__ = ["Process", "exit_soon", "settle_memory"]

logger = logging.getLogger(__name__)

FORCED = 3
"""The exit code of a process that was ended by force."""
LOOKS = 4
"""How many times the main thread looks at the event loop in the time after which a stall is logged."""
AGAIN = 0.5
"""Seconds after which a second SIGINT is a second wish. Programs that start programs may pass one on twice."""
LAST_LOG = 0.3
"""Seconds that the last log line has before the process is ended."""
NAMED = 10
"""How many kernels the last log line names."""


class Process:
    """Runs a daemon until a signal ends it.

    Args:
        settings: the settings of the daemon.
        kernel_types: the kernel types that can be launched.
        signals: the signals of the process, which are installed.
        stdout: where the daemon says on which address it listens.
    """

    def __init__(
        self, settings: Settings, kernel_types: Mapping[str, KernelType], signals: Signals, stdout: TextIO
    ) -> None:
        self._limits = settings.limits
        self._signals = signals
        self._stdout = stdout
        self._daemon = Daemon(settings, kernel_types)
        self._sources = {inspect.unwrap(each.func).__code__.co_filename for each in kernel_types.values()}
        self._started: Future[asyncio.AbstractEventLoop] = Future()
        self._ended = False
        self._error: BaseException | None = None
        self._first_at: float | None = None  # When the first signal to end came.

    def run(self) -> None:
        """Run the daemon to its end. The main thread calls this.

        Raises:
            ListenError, PyDotComputeError: the daemon cannot start; see `Daemon.start`.
        """
        thread = threading.Thread(target=self._run_loop, name="event loop", daemon=True)
        thread.start()
        loop = self._started.result()
        watchdog = Watchdog(loop, partial(find_holder, loop, thread.ident or 0, self._sources), self._limits.stall)
        while not self._ended:
            number = self._signals.wait(min(self._limits.stall / LOOKS, self._time_left()))
            watchdog.look()
            if number is not None:
                self._heed(number, loop, watchdog)
            if self._time_left() <= 0 and not self._ended:
                self._end_by_force(
                    f"the daemon has not ended {self._limits.overtime} s after its grace period", watchdog
                )
        thread.join(min(self._limits.last_resort, self._time_left()))
        code = 0 if self._error is None else 1
        if not thread.is_alive():
            exit_soon(
                min(self._limits.last_resort, self._time_left()), code
            )  # A kernel's own thread must not keep the process alive.
        elif self._error is None:
            os._exit(code)  # An actor ignores its cancellation.
        else:
            exit_soon(LAST_LOG, code)
        if self._error is not None:
            raise self._error

    # -- the main thread -----------------------------------------------------------------------------------------------

    def _time_left(self) -> float:
        """Return the seconds until the process is ended by force."""
        if self._first_at is None:
            return float("inf")
        return max(0.0, self._first_at + self._limits.grace + self._limits.overtime - monotonic())

    def _heed(self, number: signal.Signals, loop: asyncio.AbstractEventLoop, watchdog: Watchdog) -> None:
        if number is signal.SIGHUP:
            say(logger.info, "SIGHUP: what may have changed is read again")
            with contextlib.suppress(RuntimeError):  # The loop is closed: the daemon has just ended.
                loop.call_soon_threadsafe(self._daemon.reload)
        elif self._first_at is None:
            self._first_at = monotonic()
            with contextlib.suppress(RuntimeError):  # The loop is closed: the daemon has just ended.
                loop.call_soon_threadsafe(self._daemon.stop)
        elif number is signal.SIGINT and monotonic() - self._first_at >= AGAIN:
            self._end_by_force("SIGINT came again", watchdog)

    def _end_by_force(self, why: str, watchdog: Watchdog) -> None:
        holder = watchdog.holder
        where = "" if holder is None else f"; {holder} holds the event loop at {holder.place}"
        kernels = self._daemon.running_kernel_ids
        left = ", ".join([*map(repr, kernels[:NAMED]), *(["…"] if len(kernels) > NAMED else [])]) or "none"
        say(logger.error, "ended by force: %s%s; kernels that have not ended: %s", why, where, left).join(LAST_LOG)
        os._exit(FORCED)

    # -- the thread of the event loop ----------------------------------------------------------------------------------

    def _run_loop(self) -> None:
        try:
            with asyncio.Runner(loop_factory=_loop_factory()) as runner:
                loop = runner.get_loop()
                self._started.set_result(loop)
                task = loop.create_task(self._serve())
                while not task.done():
                    try:
                        loop.run_until_complete(task)
                    except (KeyboardInterrupt, SystemExit) as error:
                        # A task that a kernel has started, or a callback, has raised it. That stops the loop, but
                        # nothing is lost: the loop goes on where it was.
                        logger.error(
                            "code of a kernel raised %s: the daemon goes on", type(error).__name__, exc_info=error
                        )
        except BaseException as error:
            if not self._started.done():
                self._started.set_exception(error)
            else:  # The daemon has ended, and this is what a kernel did while the loop was closed.
                logger.error("the event loop did not close in good order", exc_info=error)

    async def _serve(self) -> None:
        """Run the daemon. This never raises: `run` must hear of an error before the loop is closed."""
        try:
            _allow_open_files()
            await self._daemon.start()
            settle_memory()
            print(f"listening on {self._daemon.address}", file=self._stdout, flush=True)
            await self._daemon.run()
            # What is left goes with the process. With very many kernels, to collect it as garbage would take seconds.
            gc.freeze()
        except BaseException as error:
            self._error = error
        finally:
            self._ended = True
            self._signals.wake()


def exit_soon(seconds: float, code: int) -> None:
    """End the process after so many seconds, if it is still there."""
    timer = threading.Timer(seconds, os._exit, (code,))
    timer.daemon = True
    timer.start()


def _allow_open_files() -> None:
    """Raise the limit of open files to the most that the system allows.

    Each connection takes one file, and a connection with shared memory takes more.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    # The system refuses "unlimited" where that is more than its own limit.
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def settle_memory() -> None:
    """Make the garbage collector run less often, and skip the objects that live as long as the daemon.

    Messages come and go without reference cycles. Under load the collector took a tenth of the daemon's time; with
    these settings it takes less than a hundredth.

    The event loop waits for each collection. The first two thresholds keep those of the second generation at 15,000
    objects, about 7 ms. With 200,000 objects they were the longest turns of the loop while thousands of sessions were
    opened, and they do not find more that way: an object is looked at once in each generation.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000, 2, 2_000)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return the factory of uvloop's event loop, or None if uvloop is not installed."""
    if importlib.util.find_spec("uvloop") is None:
        return None
    import uvloop

    return uvloop.new_event_loop
