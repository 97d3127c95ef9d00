"""What the clients of the chaos tests have in common as processes of their own."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import traceback
from dataclasses import asdict
from typing import Any, NoReturn, Protocol

__all__ = ["Stoppable", "tell", "until_stopped"]


class Stoppable(Protocol):
    """A client that a signal stops."""

    stopping: bool
    report: Any

    async def run(self) -> None:
        """Make requests until all are made, or `stopping` is set."""


async def until_stopped(client: Stoppable) -> None:
    """Run a client, which SIGTERM stops. What it raises is a problem of its report."""

    def stop() -> None:
        client.stopping = True

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)
    try:
        await client.run()
    except Exception:
        client.report.wrong(traceback.format_exc())


def tell(report: Any) -> NoReturn:
    """Print a report as a line of JSON, and exit: with code 1 if there are problems."""
    print(json.dumps(asdict(report)), flush=True)
    sys.exit(1 if report.problems else 0)
