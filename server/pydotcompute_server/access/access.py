"""Who may do what at one daemon: its step, and the files behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence

from pydotcompute.exceptions import PyDotComputeError
from pydotcompute_server.access.audit import Audit
from pydotcompute_server.access.files import Policies
from pydotcompute_server.access.step import AccessStep
from pydotcompute_server.calls.pipeline import Step
from pydotcompute_server.settings import Settings

__all__ = ["Access"]

INTERVAL = 1.0
"""Seconds between two looks at the files."""


class Access:
    """Decides who may do what. Without any setting for it, everybody may do everything, and there is no step.

    Raises:
        InvalidConfigurationError: a file cannot be read, or is not valid; or the audit log cannot be written.
    """

    def __init__(self, settings: Settings) -> None:
        configured = settings.access, settings.tokens, settings.tls is not None and settings.tls.client_ca
        self._policies = self._audit = None
        self._step: AccessStep | None = None
        if any(configured) or settings.audit_log is not None:
            self._policies = Policies(settings.access, settings.tokens, is_open=not any(configured))
            self._audit = Audit(settings.audit_log)

    def steps(self, typed: Collection[str], sees_service: Callable[[str], bool]) -> Sequence[Step]:
        """Return the steps that calls pass. For the arguments see `AccessStep`."""
        if self._policies is None or self._audit is None:
            return ()
        self._step = AccessStep(self._policies, self._audit, typed, sees_service)
        return (self._step,)

    def turned_away(self, path: str, peer: str, error: PyDotComputeError) -> None:
        """Note a call that comes to no step; see `AccessStep.turned_away`."""
        if self._step is not None:
            self._step.turned_away(path, peer, error)

    def reload(self) -> None:
        """Read the files again, and open the audit log again.

        If a file is not valid, log it, and keep to what the files said before.
        """
        if self._policies is not None:
            self._policies.reload()
        if self._audit is not None:
            self._audit.reopen()

    def close(self) -> None:
        """Close the audit log."""
        if self._audit is not None:
            self._audit.close()

    async def watch(self) -> None:
        """Read the files again whenever they change, and end the calls that may not go on. This ends when cancelled."""
        while self._policies is not None and self._step is not None:
            await asyncio.sleep(INTERVAL)
            self._policies.reload_if_changed()
            await self._step.review()
