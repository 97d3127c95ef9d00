"""Who may do what at one daemon: its step, and the files behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager

from pydotcompute_server.access.files import Policies
from pydotcompute_server.access.step import AccessStep
from pydotcompute_server.calls.pipeline import Step
from pydotcompute_server.settings import Settings

__all__ = ["Access"]


class Access:
    """Decides who may do what. Without any setting for it, everybody may do everything, and there is no step.

    Raises:
        InvalidConfigurationError: a file cannot be read, or is not valid.
    """

    def __init__(self, settings: Settings) -> None:
        files = settings.access, settings.tokens
        self._policies = Policies(*files) if any((*files, settings.tls_client_ca)) else None

    def steps(self, typed: Collection[str], sees_service: Callable[[str], bool]) -> Sequence[Step]:
        """Return the steps that calls pass. For the arguments see `AccessStep`."""
        return () if self._policies is None else (AccessStep(self._policies, typed, sees_service),)

    def reload(self) -> None:
        """Read the files again. If one of them is not valid, log it, and keep to what they said before."""
        if self._policies is not None:
            self._policies.reload()

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Read the files again whenever they change, as long as the `async with` block runs."""
        if self._policies is None:
            yield
            return
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self._policies.watch())
            try:
                yield
            finally:
                task.cancel()
