"""The daemon that the remote figures are measured on."""

import sys
from pathlib import Path

LAUNCH_NOTHING = [
    str(Path(sys.executable).with_name("pydotcompute-server")),
    str(Path(__file__).with_name("calculator_kernel.py")),
    "--listen=127.0.0.1:0",
]
"""The command that serves the calculator's type."""

DAEMON = [*LAUNCH_NOTHING, "--launch=all"]
"""The same, with one calculator that is active at once."""
