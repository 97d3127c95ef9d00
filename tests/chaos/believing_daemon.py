"""A daemon that takes each client for whom it says to be, with the kernels of the attacks.

    python -m tests.chaos.believing_daemon [NAME=VALUE ...]

The arguments are limits. It says `listening on ADDRESS`, and ends with SIGTERM.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from pydotcompute_server import Daemon, Limits, Settings, load_kernel_types
from tests.chaos.attacks import KERNELS
from tests.principals import believing


async def main(*limits: str) -> None:
    """Serve until SIGTERM."""
    given = {name: int(value) for name, _, value in (each.partition("=") for each in limits)}
    settings = Settings(listen="127.0.0.1:0", launch=KERNELS, limits=Limits(**given))
    kernel_types = load_kernel_types([str(Path(__file__).with_name("attack_kernels.py"))])
    daemon = Daemon(settings, kernel_types, steps=[believing])
    await daemon.start()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, daemon.stop)
    print(f"listening on {daemon.address}", flush=True)
    await daemon.run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
