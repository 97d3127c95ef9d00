"""The step that every call passes: who it is from, and whether they may."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

from pydotcompute.access.roles import Rights, Role
from pydotcompute.access.tokens import ANONYMOUS_NAME
from pydotcompute.exceptions import KernelNotFoundError, NotAuthenticatedError, NotPermittedError, PyDotComputeError
from pydotcompute_server.access.audit import Audit, is_refusal
from pydotcompute_server.access.files import Policies
from pydotcompute_server.access.identity import Identified, Policy
from pydotcompute_server.access.live import LiveCalls
from pydotcompute_server.access.methods import needed_role
from pydotcompute_server.calls.pipeline import UNKNOWN, Call, Method, Proceed
from pydotcompute_server.calls.principals import ANONYMOUS, Principal, as_told, calling_as

__all__ = ["AccessStep"]

LAUNCH = "/pydotcompute.v1.KernelService/Launch"
"""The only method whose kernel need not exist, so that a refusal tells nothing."""
LONGEST_METHOD = 200
"""The most characters of the name of a method in an error."""


class _RefusedError(Exception):
    """Carries the error with which a call is refused: it is told from the same error of a handler."""

    def __init__(self, error: PyDotComputeError) -> None:
        super().__init__(error)
        self.error = error


class _HiddenServiceError(Exception):
    """The one who calls may not know that there is such a service."""


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
        is_noted = needed is None or needed >= Role.OPERATOR

        async def check(call: Call) -> None:
            principal, live = ANONYMOUS, None
            try:
                identified = await self._identify(call)
                principal = identified.principal
                calling_as(principal)
                if identified.token_id:
                    self._audit.token_used(principal.name, call.peer, _name(call), identified.token_id)
                self._require(call, principal, needed, call.kernel_ids)

                async def about(kernel_id: str) -> None:
                    self._require(call, principal, needed, (kernel_id,))

                live = self._live.begin(call, identified.until)
                await call.on_kernel(about)
                await proceed(call)
            except _HiddenServiceError:
                await self._answer_as_unknown(call)
            except _RefusedError as refused:
                raise self._noted(call, principal, refused.error) from None
            except asyncio.CancelledError:
                if live is None or live.refusal is None:
                    raise
                if (task := asyncio.current_task()) is not None:
                    task.uncancel()
                raise self._noted(call, principal, live.refusal) from None
            except Exception as error:
                if is_refusal(error):
                    self._noted(call, principal, error)
                elif is_noted:
                    self._audit.operation(principal.name, call.peer, _name(call), _kernels(call), error)
                if (told := as_told(error)) is not error:
                    raise told from None
                raise
            else:
                if is_noted:
                    self._audit.operation(principal.name, call.peer, _name(call), _kernels(call), None)
            finally:
                if live is not None:
                    self._live.over(live)

        return check

    async def _identify(self, call: Call) -> Identified:
        try:
            return await self._policies.now.identify(call)
        except NotAuthenticatedError as error:
            raise _RefusedError(error) from None

    def _require(self, call: Call, principal: Principal, needed: Role | None, kernel_ids: Collection[str]) -> None:
        """Raise _RefusedError, or _HiddenServiceError, unless the principal has the role for these kernels."""
        rights = principal.rights
        has_role = needed is not None and _have_anywhere(rights, needed)
        lacking = next((each for each in kernel_ids if needed is None or not rights.have(needed, each)), None)
        if has_role and lacking is None:
            return
        service = call.method.service
        if service in self._typed and rights.highest is not None and not self._sees_service(service):
            raise _HiddenServiceError
        if needed is None or lacking is None or not has_role:
            raise _RefusedError(_refusal(principal, call, needed))
        raise _RefusedError(_refusal_of_kernel(principal, call, needed, lacking))

    async def _answer_as_unknown(self, call: Call) -> None:
        """Answer a call of a method that is hidden in the same way as one of a method that does not exist."""
        assert self._unknown is not None
        await self._unknown(Call(UNKNOWN, call.path, call.path, call.context, None))

    def _noted(self, call: Call, principal: Principal, error: PyDotComputeError) -> PyDotComputeError:
        """Write a refusal to the audit log, and return it."""
        self._audit.refused(principal.name, call.peer, _name(call), _kernels(call), error)
        return error

    # -- calls that go on ----------------------------------------------------------------------------------------------

    async def review(self) -> None:
        """End the calls that may not go on: the files have changed, or a token has expired."""
        policy = self._policies.now
        changed, self._reviewed = policy is not self._reviewed, policy
        await self._live.review(changed=changed)

    async def _check_again(self, call: Call) -> None:
        identified = await self._policies.now.identify(call)
        try:
            needed = needed_role(call.method, self._typed)
            self._require(call, identified.principal, needed, call.kernel_ids)
        except _HiddenServiceError:
            raise _refusal(identified.principal, call, needed) from None
        except _RefusedError as refused:
            raise refused.error from None


def _have_anywhere(rights: Rights, role: Role) -> bool:
    return rights.highest is not None and rights.highest >= role


def _refusal(principal: Principal, call: Call, needed: Role | None) -> PyDotComputeError:
    """Return the error for a principal who has the role for no kernel."""
    name, role = _name(call), "" if needed is None else needed.word
    if principal.name == ANONYMOUS_NAME:
        how = "say who you are with a token, as in `authorization: Bearer TOKEN`, or with a client's certificate"
        return NotAuthenticatedError(f"{name} needs the role {role}: {how}", role)
    return NotPermittedError(principal.name, name, role)


def _refusal_of_kernel(principal: Principal, call: Call, needed: Role, kernel_id: str) -> PyDotComputeError:
    """Return the error for a principal who does not have the role for this kernel, whether it exists or not."""
    if call.path != LAUNCH and not principal.rights.see(kernel_id):
        return KernelNotFoundError(kernel_id, principal.rights.patterns)
    return NotPermittedError(principal.name, _name(call), needed.word, kernel_id)


def _name(call: Call) -> str:
    """Return the method as `Service/Method`, without the package."""
    return call.path.rpartition(".")[2][:LONGEST_METHOD]


def _kernels(call: Call) -> str:
    return " ".join(call.kernel_ids)
