"""The lifeline: a pipe by which a worker ends when the process ends for which it works.

The process keeps the end for writing, and nobody else has it. So the pipe is closed when that process ends, however it
ends, and then the system itself kills whoever holds on to the pipe: the actor can neither hinder nor delay it. The
parent of a worker is a template, which may die before; so `PR_SET_PDEATHSIG` would not do.
"""

from __future__ import annotations

import fcntl
import os
import signal

__all__ = ["hold_on"]


def hold_on(lifeline: int) -> None:
    """Let this process be killed when the lifeline is closed.

    Args:
        lifeline: a descriptor of the end for reading. It may be shared with other processes.
    """
    # Whom the system is to signal is kept with the open file, so each process opens one of its own.
    own = os.open(f"/proc/self/fd/{lifeline}", os.O_RDONLY | os.O_NONBLOCK)
    fcntl.fcntl(own, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(own, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(own, fcntl.F_SETFL, os.O_NONBLOCK | os.O_ASYNC)
    try:
        os.read(own, 1)  # Nobody writes to it.
    except BlockingIOError:
        return
    os.kill(os.getpid(), signal.SIGKILL)  # It was closed before.
