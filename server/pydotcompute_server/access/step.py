"""The step that every call passes: who it is from, and whether they may."""

from __future__ import annotations

from collections.abc import Collection

from pydotcompute.access.roles import Role
from pydotcompute.access.tokens import ANONYMOUS_NAME
from pydotcompute.exceptions import KernelNotFoundError, NotAuthenticatedError, NotPermittedError
from pydotcompute_server.access.files import Policies
from pydotcompute_server.access.methods import needed_role
from pydotcompute_server.calls.pipeline import Call, Method, Proceed
from pydotcompute_server.calls.principals import Principal, as_told, calling_as

__all__ = ["AccessStep"]

LAUNCH = "/pydotcompute.v1.KernelService/Launch"
"""The only method whose kernel need not exist: so that it may not be launched is no secret."""


class AccessStep:
    """Refuses calls whose principals do not have the role that the method needs.

    Args:
        policies: what the files say now.
        typed: the names of the services of kernel types.
    """

    def __init__(self, policies: Policies, typed: Collection[str]) -> None:
        self._policies = policies
        self._typed = typed

    def __call__(self, method: Method, proceed: Proceed) -> Proceed:
        """Return the function that calls of this method pass."""
        needed = needed_role(method, self._typed)

        async def check(call: Call) -> None:
            identified = await self._policies.now.identify(call)
            principal = identified.principal
            calling_as(principal)
            if needed is None or principal.rights.highest is None or principal.rights.highest < needed:
                raise _refusal(principal, call, needed)

            async def about(kernel_id: str) -> None:
                if not principal.rights.have(needed, kernel_id):
                    raise _refusal_of_kernel(principal, call, needed, kernel_id)

            try:
                await call.on_kernel(about)
                await proceed(call)
            except Exception as error:
                if (told := as_told(error)) is not error:
                    raise told from None
                raise

        return check


def _refusal(principal: Principal, call: Call, needed: Role | None) -> NotAuthenticatedError | NotPermittedError:
    """Return the error for a principal who has the role for no kernel."""
    name, role = _name(call), "" if needed is None else needed.word
    if principal.name == ANONYMOUS_NAME:
        how = "say who you are with a token, as in `authorization: Bearer TOKEN`, or with a client's certificate"
        return NotAuthenticatedError(f"{name} needs the role {role}: {how}", role)
    return NotPermittedError(principal.name, name, role)


def _refusal_of_kernel(
    principal: Principal, call: Call, needed: Role, kernel_id: str
) -> KernelNotFoundError | NotPermittedError:
    """Return the error for a principal who does not have the role for this kernel. It does not depend on the kernel."""
    if call.path != LAUNCH and not principal.rights.see(kernel_id):
        return KernelNotFoundError(kernel_id, principal.rights.patterns)
    return NotPermittedError(principal.name, _name(call), needed.word, kernel_id)


def _name(call: Call) -> str:
    """Return the method as `Service/Method`, without the package."""
    return call.path.rpartition(".")[2]
