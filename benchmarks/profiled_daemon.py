"""`pydotcompute-server` with a sampler in it: SIGUSR1 starts it, SIGUSR2 writes what it has.

The samples go to the file that the environment variable BENCHMARK_SAMPLES names, as JSON.
"""

import json
import os
import signal
import sys
from pathlib import Path

from sampler import Sampler

from pydotcompute_server.cli import main
from pydotcompute_server.process import EVENT_LOOP

SAMPLES_FILE = "BENCHMARK_SAMPLES"


def install(file: Path) -> None:
    """Makes the process heed the two signals."""
    sampler = Sampler(EVENT_LOOP)

    def write(*_: object) -> None:
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps(vars(sampler.stop())))
        partial.rename(file)

    signal.signal(signal.SIGUSR1, lambda *_: sampler.start())
    signal.signal(signal.SIGUSR2, write)


if __name__ == "__main__":
    install(Path(os.environ[SAMPLES_FILE]))
    sys.argv[0] = "pydotcompute-server"
    main()
