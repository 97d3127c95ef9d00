"""Two users of one daemon with client certificates: whatever Bob names of Alice's, he gets what nobody's is.

The steps are those of an attack that once got through: her reply, her lease and her session.
"""

import asyncio
import json
import os
import sysconfig
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from pydotcompute.ring_kernels.declaration import kernel_type_of
from pydotcompute_client import connect
from pydotcompute_server import Call, Daemon, Limits, Method, Proceed, Settings
from pydotcompute_server.principals import Principal, calling_as
from tests.certificates import Certificates, make_certificates
from tests.contract.kernels import Job, square
from tests.stubs import PATIENCE, Letter, Talk, Wire, failure_of, job_bytes

COMMAND = os.path.join(sysconfig.get_path("scripts"), "pydotcompute")


def by_certificate(method: Method, proceed: Proceed) -> Proceed:
    """A step: the principal has the common name of the certificate."""

    async def call_as(call: Call) -> None:
        (name,) = call.context.auth_context()["x509_common_name"]
        calling_as(Principal(name.decode()))
        await proceed(call)

    return call_as


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"), "alice", "bob")


class User:
    """Somebody with a certificate, who uses the command, the client, and raw calls."""

    def __init__(self, name: str, address: str, certificates: Certificates, folder: Path) -> None:
        self._name, self.address, self._certificates, self._folder = name, address, certificates, folder
        self.credentials = certificates.credentials("ca", name)

    async def wire(self, stack: AsyncExitStack) -> Wire:
        return Wire(await stack.enter_async_context(grpc.aio.secure_channel(self.address, self.credentials)))

    async def run(self, *arguments: str) -> tuple[int, str]:
        """Run the command; returns its exit code and what it prints."""
        own = self._certificates
        process = await asyncio.create_subprocess_exec(
            *(COMMAND, *arguments, "--target", self.address, "--tls-ca", own.certificate("ca")),
            *("--tls-certificate", own.certificate(self._name), "--tls-key", own.key(self._name)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "XDG_CONFIG_HOME": str(self._folder / self._name)},
        )
        async with asyncio.timeout(PATIENCE):
            printed, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, printed.decode()


@pytest.fixture
async def users(certificates: Certificates, tmp_path: Path) -> AsyncIterator[tuple[User, User]]:
    settings = Settings(
        listen="127.0.0.1:0",
        launch=["square"],
        limits=Limits(grace=1.0),
        tls_certificate=Path(certificates.certificate("address")),
        tls_key=Path(certificates.key("address")),
        tls_client_ca=Path(certificates.certificate("ca")),
    )
    kernel_type = kernel_type_of(square)
    assert kernel_type is not None
    daemon = Daemon(settings, {"square": kernel_type}, steps=[by_certificate])
    await daemon.start()
    running = asyncio.create_task(daemon.run())
    alice, bob = (User(name, daemon.address, certificates, tmp_path) for name in ("alice", "bob"))
    yield alice, bob
    daemon.stop()
    await running


async def test_bob_does_not_get_the_reply_that_waits_for_alice(users: tuple[User, User]) -> None:
    alice, bob = users
    assert (await alice.run("send", "square", '{"number": 12}', "--client-id", "alice"))[0] == 0
    code, told = await bob.run("receive", "square", "--client-id", "alice", "--timeout", "0.3")
    assert (code, "timed out" in told) == (4, True)
    code, reply = await alice.run("receive", "square", "--client-id", "alice")
    assert (code, json.loads(reply)["number"]) == (0, 144)


async def test_users_who_name_no_client_id_do_not_get_each_others_replies(users: tuple[User, User]) -> None:
    alice, bob = users
    await alice.run("send", "square", '{"number": 12}')
    assert (await bob.run("receive", "square", "--timeout", "0.3"))[0] == 4
    assert json.loads((await alice.run("receive", "square"))[1])["number"] == 144


async def test_bob_cannot_acknowledge_what_alice_has_leased(users: tuple[User, User]) -> None:
    alice, bob = users
    await alice.run("send", "square", '{"number": 12}', "--client-id", "alice")
    _, leased = await alice.run("receive", "square", "--client-id", "alice", "--lease", "60s", "--json")
    delivery_id = json.loads(leased)["deliveryId"]
    of_hers = await bob.run("acknowledge", "square", delivery_id)
    of_nobodys = await bob.run("acknowledge", "square", "x" * len(delivery_id))
    assert of_hers == (1, of_nobodys[1].replace("x" * len(delivery_id), delivery_id))
    assert (await alice.run("acknowledge", "square", delivery_id)) == (0, "1 acknowledged\n")


async def test_bob_cannot_take_over_the_session_of_alice_with_her_token(users: tuple[User, User]) -> None:
    alice, bob = users
    async with AsyncExitStack() as stack:
        hers, his = await alice.wire(stack), await bob.wire(stack)
        talk = Talk(hers)
        token = (await talk.open("square")).session_token
        never_was = token[:16] + bytes(16)
        stolen = await failure_of(Talk(his).open("square", session_token=token))
        assert stolen == await failure_of(Talk(his).open("square", session_token=never_was))
        assert stolen.reason == "SESSION_LOST"
        await talk.send(Letter(job_bytes(12)))
        await talk.received(1)
        talk.cut()
        assert (await failure_of(Talk(his).open("square", session_token=token))).reason == "SESSION_LOST"
        assert (await talk.resume()).session_token == token


async def test_the_operator_sees_who_is_who_and_ends_one_of_them(users: tuple[User, User]) -> None:
    _, bob = users
    async with AsyncExitStack() as stack:
        runtimes: list[Any] = []
        for user in users:
            way = connect(user.address, credentials=user.credentials)
            runtimes.append(await stack.enter_async_context(way))
            assert (await runtimes[-1].send_and_receive("square", Job(12))).number == 144
        code, listed = await bob.run("clients", "--interval", "0", "--json")
        assert code == 0
        found = {client["principal"]: client["sessions"] for client in json.loads(listed)["clients"]}
        assert found == {"alice": 1, "bob": 1}
        assert (await bob.run("kick", "alice")) == (0, "ended: 1 sessions, 1 calls\n")
        assert (await runtimes[1].send_and_receive("square", Job(12))).number == 144
