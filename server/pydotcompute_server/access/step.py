"""The step that every call passes: who it is from, and whether they may."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

from pydotcompute.access.roles import Role
from pydotcompute.access.tokens import ANONYMOUS_NAME
from pydotcompute.exceptions import (
    ConnectionLostError,
    KernelNotFoundError,
    NotAuthenticatedError,
    NotPermittedError,
    PyDotComputeError,
)
from pydotcompute_server.access.audit import Audit, is_refusal
from pydotcompute_server.access.files import Policies
from pydotcompute_server.access.identity import Identified, Policy
from pydotcompute_server.access.live import LiveCalls
from pydotcompute_server.access.methods import needed_role
from pydotcompute_server.calls.pipeline import UNKNOWN, Call, Method, Proceed
from pydotcompute_server.principals import ANONYMOUS, Principal, calling_as

__all__ = ["AccessStep"]

LAUNCH = "/pydotcompute.v1.KernelService/Launch"
"""The only method whose kernel need not exist, so that a refusal tells nothing."""
LONGEST_METHOD = 200
"""The most characters of the name of a method in an error."""


class AccessStep:
    """Refuses calls whose principals do not have the role that the method needs.

    Args:
        policies: what the files say now.
        audit: where it is written what is done, and what is refused.
        typed: the names of the services of kernel types.
        sees_service: returns True if the one who calls may know that there is a service of this name.
    """

    def __init__(
        self, policies: Policies, audit: Audit, typed: Collection[str], sees_service: Callable[[str], bool]
    ) -> None:
        self._policies = policies
        self._audit = audit
        self._typed = typed
        self._sees_service = sees_service
        self._unknown: Proceed | None = None
        self._live = LiveCalls(self._check_again)
        self._reviewed: Policy = policies.now

    def __call__(self, method: Method, proceed: Proceed) -> Proceed:
        """Return the function that calls of this method pass."""
        if method is UNKNOWN:
            self._unknown = proceed  # It answers calls of methods that do not exist.
        needed = needed_role(method, self._typed)
        name = _name(method.path)
        is_typed = method.service in self._typed
        is_noted = needed is None or needed >= Role.OPERATOR

        async def check(call: Call) -> None:
            principal, live, refusal = ANONYMOUS, None, None
            try:
                policy = self._policies.now
                identified = policy.recall(call.metadata) or await policy.identify(call)
                principal = identified.principal
                calling_as(principal)
                if identified.token_id:
                    self._audit.token_used(principal.name, call.peer, name, identified.token_id)
                if (refusal := _refusal(principal, call, needed, call.kernel_ids)) is not None:
                    if is_typed and principal.rights.highest is not None and not self._sees_service(method.service):
                        return await self._answer_as_unknown(call)
                    raise refusal
                live = self._live.begin(call, identified)
                if call.kernel_comes_later:

                    async def about(kernel_id: str) -> None:
                        nonlocal refusal
                        if (refusal := _refusal(principal, call, needed, (kernel_id,))) is not None:
                            raise refusal

                    await call.on_kernel(about)
                await proceed(call)
            except asyncio.CancelledError:
                if live is None or live.refusal is None:
                    raise
                if (task := asyncio.current_task()) is not None:
                    task.uncancel()
                self._audit.refused(principal.name, call.peer, _name(call.path), _kernels(call), live.refusal)
                raise live.refusal from None
            except Exception as error:
                if error is refusal or is_refusal(error):
                    self._audit.refused(principal.name, call.peer, _name(call.path), _kernels(call), error)
                elif is_noted:
                    self._audit.operation(principal.name, call.peer, _name(call.path), _kernels(call), error)
                raise
            else:
                if is_noted:
                    self._audit.operation(principal.name, call.peer, _name(call.path), _kernels(call), None)
            finally:
                if live is not None:
                    self._live.over(live)

        return check

    def turned_away(self, path: str, peer: str, error: PyDotComputeError) -> None:
        """Note a call that does not come here, because the daemon has too many. Nobody has asked whose it is."""
        self._audit.refused("", peer, _name(path), "", error)

    async def _answer_as_unknown(self, call: Call) -> None:
        """Answer a call of a method that is hidden in the same way as one of a method that does not exist."""
        assert self._unknown is not None
        await self._unknown(Call(UNKNOWN, call.path, call.path, call.context))

    # -- calls that go on ----------------------------------------------------------------------------------------------

    async def review(self) -> None:
        """End the calls that may not go on: the files have changed, or a token has expired."""
        policy = self._policies.now
        changed, self._reviewed = policy is not self._reviewed, policy
        await self._live.review(changed=changed)

    async def _check_again(self, call: Call, before: Identified) -> None:
        now = await self._policies.now.identify(call)
        needed = needed_role(call.method, self._typed)
        if (refusal := _refusal(now.principal, call, needed, call.kernel_ids)) is not None:
            raise refusal
        if needed is Role.VIEWER and now.principal.rights.grants != before.principal.rights.grants:
            # Such a call may go on to list what is hidden now.
            raise ConnectionLostError("", "what you may see has changed; call again")


def _refusal(
    principal: Principal, call: Call, needed: Role | None, kernel_ids: Collection[str]
) -> PyDotComputeError | None:
    """Return the error for a principal without the role for these kernels, whether they exist or not. None if it has.

    Args:
        needed: the role that the method needs. None if it is not known: nobody has it.
    """
    rights = principal.rights
    if needed is None or rights.highest is None or rights.highest < needed:
        name, role = _name(call.path), "" if needed is None else needed.word
        if principal.name == ANONYMOUS_NAME:
            how = "say who you are with a token, as in `authorization: Bearer TOKEN`, or with a client's certificate"
            return NotAuthenticatedError(f"{name} needs the role {role}: {how}", role)
        return NotPermittedError(principal.name, name, role)
    for kernel_id in kernel_ids:
        if not rights.have(needed, kernel_id):
            if call.path != LAUNCH and not rights.see(kernel_id):
                return KernelNotFoundError(kernel_id, rights.patterns)
            return NotPermittedError(principal.name, _name(call.path), needed.word, kernel_id)
    return None


def _name(path: str) -> str:
    """Return a method as `Service/Method`, without the package."""
    return path.rpartition(".")[2][:LONGEST_METHOD]


def _kernels(call: Call) -> str:
    return " ".join(call.kernel_ids)
