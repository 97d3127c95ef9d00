"""Every method, called with every role: who has the role that the method needs gets through, and nobody else."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor

from pydotcompute.access.roles import Grant, Role
from pydotcompute_server.access.methods import STANDARD, roles_in
from pydotcompute_server.protos import SERVICES
from tests.server.access.guarded import Guarded, bearer, guarded

DENIED = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}
CALLERS = ("anonymous", "stranger", *(role.word for role in Role))
"""Without a token, with a token that is good for nothing, and with one for each role."""
TYPED = {f"/shop.v1.Echo/{name}": Role.CALLER for name in ("Ask", "Send", "Receive", "Stream")}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def daemon(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Guarded]:
    grants = {"stranger": None, **{role.word: Grant(role) for role in Role}}
    async with guarded(tmp_path_factory.mktemp("access"), grants) as daemon:
        yield daemon


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def methods(daemon: Guarded) -> dict[str, MethodDescriptor]:
    """Every method that the daemon serves, by its path, as reflection finds it."""
    types = daemon.daemon._catalog.pool
    services = [types.pool.FindServiceByName(name) for name in types.services()]
    return {f"/{service.full_name}/{method.name}": method for service in services for method in service.methods}


def test_every_method_says_which_role_it_needs() -> None:
    for module in SERVICES:
        missing = [path for path, role in roles_in(module.DESCRIPTOR).items() if role is None]
        assert not missing, f"{missing}: a method says in its .proto which role it needs, as `option (role) = …;`"


def needed(path: str) -> Role:
    """The role that a method needs."""
    declared = {path: role for module in SERVICES for path, role in roles_in(module.DESCRIPTOR).items()}
    return declared.get(path) or TYPED.get(path) or STANDARD[path[1:].partition("/")[0]]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("who", CALLERS)
async def test_a_method_is_for_those_who_have_its_role(
    daemon: Guarded, methods: dict[str, MethodDescriptor], who: str
) -> None:
    assert len(methods) > 20
    for path, method in methods.items():
        code = await code_of(daemon, path, method, who)
        if who == "anonymous":
            assert code is grpc.StatusCode.UNAUTHENTICATED, path
        elif who == "stranger" or Role.of(who) < needed(path):
            assert code is grpc.StatusCode.PERMISSION_DENIED, path
        else:
            assert code not in DENIED, path


@pytest.mark.asyncio(loop_scope="module")
async def test_the_methods_that_do_not_exist_are_listed_for_viewers_only(daemon: Guarded) -> None:
    codes = [await code_of(daemon, "/no.Such/Method", None, who) for who in CALLERS]
    viewers = [grpc.StatusCode.UNIMPLEMENTED] * len(Role)
    assert codes == [grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED, *viewers]


async def code_of(daemon: Guarded, path: str, method: MethodDescriptor | None, who: str) -> Any:
    """How a call ends that is about a kernel which does not exist; OK if it has an answer."""
    request = b""
    if method is not None and not path.startswith("/shop."):
        message = message_factory.GetMessageClass(method.input_type)()
        for name in ("kernel_id", "service"):
            if name in method.input_type.fields_by_name:
                setattr(message, name, "nobody")
        request = message.SerializeToString()
    metadata = bearer(daemon.secrets[who]) if who in daemon.secrets else ()
    if path.startswith("/shop."):
        metadata = (*metadata, ("pydotcompute-kernel-id", "nobody"))
    # A method of one request is the same on the wire as one of a stream that has one.
    call: Any = daemon.channel.stream_stream(path)(metadata=metadata)
    with suppress(asyncio.InvalidStateError, grpc.aio.AioRpcError):  # The call is refused already.
        await call.write(request)
        await call.done_writing()
    try:
        with suppress(grpc.aio.AioRpcError):
            if await call.read() is not grpc.aio.EOF:
                return grpc.StatusCode.OK
        code, details = await call.code(), str(await call.details())
    finally:
        call.cancel()
    if code is grpc.StatusCode.INTERNAL and ("execute_batch" in details or "Internal error from Core" in details):
        return await code_of(daemon, path, method, who)  # The answer came before gRPC's client was ready for one.
    return code
