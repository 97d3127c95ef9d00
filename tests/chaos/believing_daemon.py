"""A daemon that takes each client for whom it says to be, with the kernels of the attacks.

    python -m tests.chaos.believing_daemon [NAME=VALUE ...]

The arguments are limits. It says `listening on ADDRESS`, and ends with SIGTERM.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import uvloop

from pydotcompute_server import Daemon, Limits, Settings, load_kernel_types
from pydotcompute_server.process.main import settle_memory
from tests.chaos.attacks import KERNELS
from tests.principals import believing


async def main(*limits: str) -> None:
    """Serve until SIGTERM."""
    given = {name: int(value) for name, _, value in (each.partition("=") for each in limits)}
    settings = Settings(listen="127.0.0.1:0", launch=KERNELS, limits=Limits(**given))
    kernel_types = load_kernel_types([str(Path(__file__).with_name("attack_kernels.py"))])
    daemon = Daemon(settings, kernel_types, steps=[believing])
    await daemon.start()
    settle_memory()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, daemon.stop)
    print(f"listening on {daemon.address}", flush=True)
    await daemon.run()


if __name__ == "__main__":
    # Loop and garbage collector are those of the command, because they decide how long a turn of the loop takes.
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(*sys.argv[1:]))
