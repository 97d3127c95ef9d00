"""A daemon with a sampler in it: SIGUSR1 starts it, SIGUSR2 writes what it has.

The samples go to the file that the environment variable BENCHMARK_SAMPLES names, as JSON. The event loop runs in the
main thread, and not in one of its own as with `pydotcompute-server`: a sampler sees without distortion only the thread
that Python's signal handlers run in.

    python profiled_daemon.py KERNELS [none|process]

The second argument says where the actors run, as `--isolation` of the daemon.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
from pathlib import Path

from raw_echo import fastest_loop
from sampler import Sampler

from pydotcompute.ring_kernels.declaration import Isolation
from pydotcompute_server import Daemon, Settings, load_kernel_types
from pydotcompute_server.process.main import settle_memory

SAMPLES_FILE = "BENCHMARK_SAMPLES"


def install(file: Path) -> None:
    """Makes the process heed the two signals."""
    sampler = Sampler()

    def write(*_: object) -> None:
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps(vars(sampler.stop())))
        partial.rename(file)

    signal.signal(signal.SIGUSR1, lambda *_: sampler.start())
    signal.signal(signal.SIGUSR2, write)


async def serve(kernels: str, isolation: Isolation) -> None:
    """Serves until SIGTERM."""
    daemon = Daemon(Settings(listen="127.0.0.1:0", launch=["all"], isolation=isolation), load_kernel_types([kernels]))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, daemon.stop)
    with contextlib.redirect_stdout(sys.stderr):  # The address is the only line on standard output.
        await daemon.start()
        settle_memory()
        print(f"listening on {daemon.address}", file=sys.__stdout__, flush=True)
        await daemon.run()


if __name__ == "__main__":
    install(Path(os.environ[SAMPLES_FILE]))
    with asyncio.Runner(loop_factory=fastest_loop()) as runner:
        runner.run(serve(sys.argv[1], "process" if "process" in sys.argv[2:] else "none"))
