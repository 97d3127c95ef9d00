"""How many connections the daemon may have."""

from __future__ import annotations

import logging
import resource

from pydotcompute_server.limits import Limits

__all__ = ["connections_allowed"]

logger = logging.getLogger(__name__)

OTHER_FILES = 64
"""Open files that the daemon keeps for other things than connections, besides an eighth of all."""


def connections_allowed(limits: Limits) -> int:
    """Return how many connections gRPC may accept: `max_connections`, or fewer if the daemon may not open enough files.

    Without a free file, a daemon accepts no connection and closes none either: clients would wait without an answer.
    """
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return limits.max_connections
    room = max(1, files - files // 8 - OTHER_FILES)
    if room < limits.max_connections:
        text = "the daemon may not open enough files for max_connections"
        logger.warning(text, extra={"max_connections": limits.max_connections, "open_files": files, "allowed": room})
    return min(room, limits.max_connections)
