"""The step that every call passes: who it is from, and whether they may."""

from __future__ import annotations

from collections.abc import Callable, Collection

from pydotcompute.access.roles import Rights, Role
from pydotcompute.access.tokens import ANONYMOUS_NAME
from pydotcompute.exceptions import KernelNotFoundError, NotAuthenticatedError, NotPermittedError, PyDotComputeError
from pydotcompute_server.access.files import Policies
from pydotcompute_server.access.methods import needed_role
from pydotcompute_server.calls.pipeline import UNKNOWN, Call, Method, Proceed
from pydotcompute_server.calls.principals import Principal, as_told, calling_as

__all__ = ["AccessStep"]

LONGEST_METHOD = 200
"""The most characters of the name of a method in an error."""
LAUNCH = "/pydotcompute.v1.KernelService/Launch"
"""The only method whose kernel need not exist, so that a refusal tells nothing."""


class AccessStep:
    """Refuses calls whose principals do not have the role that the method needs.

    Args:
        policies: what the files say now.
        typed: the names of the services of kernel types.
        sees_service: returns True if the one who calls may know that there is a service of this name.
    """

    def __init__(self, policies: Policies, typed: Collection[str], sees_service: Callable[[str], bool]) -> None:
        self._policies = policies
        self._typed = typed
        self._sees_service = sees_service
        self._unknown: Proceed | None = None

    def __call__(self, method: Method, proceed: Proceed) -> Proceed:
        """Return the function that calls of this method pass."""
        if method is UNKNOWN:
            self._unknown = proceed  # It answers calls of methods that do not exist.
        needed = needed_role(method, self._typed)
        is_typed = method.service in self._typed

        async def check(call: Call) -> None:
            identified = await self._policies.now.identify(call)
            principal = identified.principal
            calling_as(principal)
            rights = principal.rights
            if needed is None or not _have_anywhere(rights, needed):
                if is_typed and rights.highest is not None and not self._sees_service(method.service):
                    return await self._answer_as_unknown(call)
                raise _refusal(principal, call, needed)
            if is_typed and not rights.have(needed, call.kernel_ids[0]) and not self._sees_service(method.service):
                return await self._answer_as_unknown(call)

            async def about(kernel_id: str) -> None:
                if not rights.have(needed, kernel_id):
                    raise _refusal_of_kernel(principal, call, needed, kernel_id)

            try:
                await call.on_kernel(about)
                await proceed(call)
            except Exception as error:
                if (told := as_told(error)) is not error:
                    raise told from None
                raise

        return check

    async def _answer_as_unknown(self, call: Call) -> None:
        """Answer a call of a method that is hidden in the same way as one of a method that does not exist."""
        assert self._unknown is not None
        await self._unknown(Call(UNKNOWN, call.path, call.path, call.context, None))


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
