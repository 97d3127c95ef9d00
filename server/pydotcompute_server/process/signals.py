"""The signals that the daemon heeds, as a queue."""

from __future__ import annotations

import faulthandler
import queue
import signal
from types import FrameType
from typing import TextIO

__all__ = ["Signals"]

HEEDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Signals:
    """Collects the signals that the process gets, for its main thread.

    Python runs signal handlers in the main thread alone, and lets nobody else set them. So the daemon's main thread
    does nothing but wait for signals and watch the event loop, which runs in another thread, and every kernel with it.
    That way no kernel can keep a signal from the daemon: `signal.signal`, `signal.set_wakeup_fd` and the loop's
    `add_signal_handler` raise ValueError or RuntimeError in a kernel, and a kernel that never gives up the event loop
    does not hold up the main thread. No signal is blocked for that, as `signal.sigwait` would need, so the programs
    that a kernel starts get their signals as always.

    A signal to end interrupts a file that is being loaded: it raises KeyboardInterrupt until `defer` is called.

    Args:
        patience: the seconds after such an interrupt until the process is ended by force.
        stderr: where it is then said what the process was doing.
    """

    def __init__(self, patience: float, stderr: TextIO) -> None:
        self._patience = patience
        self._stderr = stderr
        self._deferred = False
        self._queue: queue.SimpleQueue[signal.Signals | None] = queue.SimpleQueue()
        self.asked_to_end = False
        """True once there was a SIGTERM or a SIGINT."""

    def install(self) -> None:
        """Heed the signals from now on, whatever was set before. Call this in the main thread.

        A shell starts background jobs with SIGINT ignored, `nohup` a program with SIGHUP ignored, and a file of kernels
        may have set handlers while it was loaded.
        """
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HEEDED)
        for number in HEEDED:
            signal.signal(number, self._note)

    def defer(self) -> None:
        """Leave all signals to `wait` from now on."""
        self._deferred = True

    def _note(self, number: int, _frame: FrameType | None) -> None:
        # A SimpleQueue is one that a signal handler may put into while its own thread is using it.
        self._queue.put(signal.Signals(number))
        if number == signal.SIGHUP:
            return
        self.asked_to_end = True
        if not self._deferred:
            # A file may ignore the interrupt. Then this ends the process, without Python, which is busy.
            faulthandler.dump_traceback_later(self._patience, exit=True, file=self._stderr)
            raise KeyboardInterrupt

    def wait(self, seconds: float) -> signal.Signals | None:
        """Return the next signal; None after so many seconds, or when `wake` is called."""
        try:
            return self._queue.get(timeout=max(0.0, seconds))
        except queue.Empty:
            return None

    def wake(self) -> None:
        """Let `wait` return. Any thread may call this."""
        self._queue.put(None)
