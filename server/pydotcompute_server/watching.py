"""Loads the files of kernels again whenever they change, for development."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterable
from pathlib import Path

from pydotcompute.exceptions import PyDotComputeError
from pydotcompute_server.reloading import Reloader

__all__ = ["reload_on_change"]

logger = logging.getLogger(__name__)


async def reload_on_change(reloader: Reloader) -> None:
    """Load all files again whenever a Python file in one of their folders changes. The log says what happened."""
    watchfiles = importlib.import_module("watchfiles")
    folders = watched_folders(reloader.sources)
    logger.info("watching for changes", extra={"folders": folders})
    async for changes in watchfiles.awatch(*folders, watch_filter=watchfiles.PythonFilter(), step=100):
        files = sorted({path for _, path in changes})
        logger.info("files have changed, and are loaded again", extra={"files": files})
        try:
            await reloader.reload()
        except PyDotComputeError as error:
            logger.error("what was loaded before goes on: %s", error)


def watched_folders(sources: Iterable[str]) -> list[str]:
    """Return the folders of these sources. That of a module is the current one, where modules may be."""
    folders = {str(path if path.is_dir() else path.parent) for path in (Path(source).resolve() for source in sources)}
    return sorted(folders)
