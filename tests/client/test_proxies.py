"""The Python client through nginx and HAProxy, set up as docs/proxies.md says, and as it warns of."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pydotcompute.exceptions import ConnectionLostError, KernelNotFoundError, SessionLostError
from pydotcompute_client import RemoteRuntime, connect
from pydotcompute_client.exchange import session
from tests.certificates import Certificates, make_certificates
from tests.chaos.proxy import Options, Proxy
from tests.client.proxies import KINDS, Kind, ProcessProxy, free_port
from tests.client.test_sessions import launched
from tests.contract import kernels
from tests.contract.kernels import Job
from tests.contract.world import PATIENCE, eventually
from tests.forwarder import Forwarder
from tests.stubs import KERNELS

MIB = 1 << 20
NO_LIMIT = {r" *client_max_body_size 0;": ""}
"""The edit that leaves nginx its default, a limit of 1 MiB."""
both = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="module")
def daemon(start_daemon: Callable[..., Any]) -> Any:
    """A daemon with the usual limits."""
    return start_daemon(str(KERNELS))


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


async def ask(runtime: RemoteRuntime, kernel_id: str, number: int, note: str = "") -> None:
    reply = await runtime.send_and_receive(kernel_id, Job(number, note=note), timeout=PATIENCE)
    assert (reply.number, reply.note) == (number, note)


# -- as the page says --------------------------------------------------------------------------------------------------


@both
async def test_messages_short_and_long_pass_and_so_do_errors(kind: Kind, tmp_path: Path, daemon: Any) -> None:
    with ProcessProxy(kind, tmp_path, daemon.target) as proxy:
        async with connect(proxy.address, scoped=True, timeout=PATIENCE) as runtime:
            kernel_id = await launched(runtime, kernels.echo_job)
            await asyncio.gather(*(ask(runtime, kernel_id, number) for number in range(200)))
            await ask(runtime, kernel_id, 1, "x" * (5 * MIB))
            with pytest.raises(KernelNotFoundError, match="nobody"):
                await runtime.activate("nobody")
            with pytest.raises(KernelNotFoundError, match="nobody"):
                await runtime.send("nobody", Job(1), timeout=PATIENCE)
            assert kernel_id in runtime.kernel_ids


@both
async def test_a_stream_that_the_proxy_ends_because_it_is_silent_is_opened_again(
    kind: Kind, tmp_path: Path, daemon: Any
) -> None:
    seconds = {"nginx": {r"(grpc_read|grpc_send|client_body)_timeout 1h": r"\1_timeout 1s"}}
    edits = seconds.get(kind, {r"timeout (client|server) 1h": r"timeout \1 1s"})
    with ProcessProxy(kind, tmp_path, daemon.target, edits=edits) as proxy:
        async with connect(daemon.target, scoped=True) as direct, connect(proxy.address, timeout=PATIENCE) as runtime:
            kernel_id = await launched(direct, kernels.gate)
            asking = asyncio.create_task(runtime.send_and_receive(kernel_id, Job(3), timeout=PATIENCE))
            await eventually(lambda: kernel_id in runtime._sessions)
            talk = runtime._sessions[kernel_id]
            streams = {talk._opened_at}

            def has_begun_again() -> bool:
                streams.add(talk._opened_at)
                return len(streams) == 3

            await eventually(has_begun_again)
            assert not asking.done()
            assert (await runtime.send_and_receive(kernel_id, Job(4, note="open"), timeout=PATIENCE)).number == 16
            assert talk.over is None
            asking.cancel()
            await asyncio.wait((asking,))


async def test_calls_and_messages_do_not_notice_the_goaway_of_a_proxy(tmp_path: Path, daemon: Any) -> None:
    edits = {"client_max_body_size 0;": "client_max_body_size 0; keepalive_requests 5;"}
    with ProcessProxy("nginx", tmp_path, daemon.target, edits=edits) as proxy:
        async with connect(proxy.address, scoped=True, timeout=PATIENCE) as runtime:
            kernel_id = await launched(runtime, kernels.echo_job)
            for number in range(40):
                await ask(runtime, kernel_id, number)
                await runtime.fetch_kernel_ids()
            await ask(runtime, kernel_id, 1, "x" * (3 * MIB))


@both
async def test_nothing_is_lost_while_the_proxy_reloads(kind: Kind, tmp_path: Path, daemon: Any) -> None:
    with ProcessProxy(kind, tmp_path, daemon.target) as proxy:
        async with connect(proxy.address, scoped=True, timeout=PATIENCE) as runtime:
            kernel_id = await launched(runtime, kernels.echo_job)
            await ask(runtime, kernel_id, 0)
            talk = runtime._sessions[kernel_id]
            for _ in range(3):
                before = talk._opened_at
                await proxy.reload()
                async with asyncio.timeout(PATIENCE):
                    while talk._opened_at == before:
                        await asyncio.gather(*(ask(runtime, kernel_id, number) for number in range(50)))
            assert talk is runtime._sessions[kernel_id]
            assert talk.over is None
            telemetry = await runtime.fetch_telemetry(kernel_id)
            assert telemetry is not None
            assert telemetry.messages_dropped == 0


@both
async def test_the_proxy_ends_tls_and_shows_the_daemon_a_certificate(
    kind: Kind, tmp_path: Path, start_daemon: Callable[..., Any], certificates: Certificates
) -> None:
    files = {}
    for name, certificate in (("proxy", "address"), ("client", "client")):
        pair = tmp_path / f"{name}-and-key.pem"
        parts = [Path(certificates.certificate(certificate)), Path(certificates.key(certificate))]
        pair.write_text("".join(part.read_text() for part in parts))
        if kind == "haproxy":
            files[rf"/etc/pydotcompute/{name}-and-key\.pem"] = str(pair)
        else:
            files[rf"/etc/pydotcompute/{name}\.pem"] = str(parts[0])
            files[rf"/etc/pydotcompute/{name}\.key"] = str(parts[1])
    files[r"/etc/pydotcompute/ca\.pem"] = certificates.certificate("ca")
    daemon = start_daemon(
        *(str(KERNELS), "--launch", "echo_job", "--tls-client-ca", certificates.certificate("ca")),
        *("--tls-certificate", certificates.certificate("name_only"), "--tls-key", certificates.key("name_only")),
    )
    with ProcessProxy(kind, tmp_path, daemon.target, tls=True, edits=files) as proxy:
        async with connect(proxy.address, credentials=certificates.credentials("ca"), timeout=PATIENCE) as runtime:
            await ask(runtime, "echo_job", 1)
            await ask(runtime, "echo_job", 2, "x" * (2 * MIB))
    daemon.stop()


@both
async def test_the_loss_of_a_session_is_told_at_once(
    kind: Kind, tmp_path: Path, start_daemon: Callable[..., Any]
) -> None:
    daemons = [start_daemon(str(KERNELS), "--launch", "gate") for _ in range(2)]
    async with Forwarder(daemons[0].target) as way:
        with ProcessProxy(kind, tmp_path, way.address) as proxy:
            async with connect(proxy.address, timeout=PATIENCE) as runtime:
                asking = asyncio.create_task(runtime.send_and_receive("gate", Job(1), timeout=PATIENCE))
                async with asyncio.timeout(PATIENCE):
                    while not (await runtime.fetch_all_telemetry())["gate"].messages_processed:
                        pass
                way.target = daemons[1].target
                way.cut()
                with pytest.raises(SessionLostError, match="another daemon has the session"):
                    await asking
    for daemon in daemons:
        daemon.stop()


# -- as the page warns of ----------------------------------------------------------------------------------------------


async def test_a_message_that_the_proxy_does_not_let_through_is_given_up_and_says_why(
    tmp_path: Path, daemon: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    with ProcessProxy("nginx", tmp_path, daemon.target, edits=NO_LIMIT) as proxy:
        async with (
            connect(daemon.target, scoped=True) as direct,
            connect(proxy.address, timeout=PATIENCE, reconnect_timeout=1.0) as runtime,
        ):
            kernel_id = await launched(direct, kernels.echo_job)
            message = Job(1, note="x" * (5 * MIB))
            asking = asyncio.create_task(runtime.send_and_receive(kernel_id, message, timeout=PATIENCE))
            await eventually(lambda: proxy.streams_ended() >= 2)
            for number in range(20):  # What is shorter passes meanwhile.
                await asyncio.create_task(ask(runtime, kernel_id, number))
            with pytest.raises(SessionLostError, match="RST_STREAM") as lost:
                await asking
            assert "a message of 5,2" in lost.value.problem
            assert "docs/proxies.md" in lost.value.problem
            assert {*lost.value.message_ids, *lost.value.unsent_ids} == {message.message_id}
            assert proxy.streams_ended() < 30
            warnings = [record for record in caplog.records if "2 streams in a row" in record.message]
            assert len(warnings) == 1, "not for each stream"
            assert "RST_STREAM" in warnings[0].message
            await ask(runtime, kernel_id, 5)


async def test_short_messages_pass_a_proxy_that_counts_bytes_and_nobody_is_told(
    tmp_path: Path, daemon: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    with ProcessProxy("nginx", tmp_path, daemon.target, edits=NO_LIMIT) as proxy:
        async with connect(proxy.address, scoped=True, timeout=PATIENCE) as runtime:
            kernel_id = await launched(runtime, kernels.echo_job)
            for first in range(0, 96, 8):  # Less than the proxy lets through, so that what is sent again gets through.
                await asyncio.gather(
                    *(ask(runtime, kernel_id, number, "x" * 100_000) for number in range(first, first + 8))
                )
            await eventually(lambda: proxy.streams_ended() >= 5)
    assert not [record for record in caplog.records if "in a row" in record.message]


@pytest.mark.parametrize("size", [131_000, 400_000, 1_000_000])
async def test_messages_that_fit_pass_although_a_frame_of_many_does_not(
    size: int, tmp_path: Path, daemon: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with ProcessProxy("nginx", tmp_path, daemon.target, edits=NO_LIMIT) as proxy:
        async with connect(proxy.address, scoped=True, timeout=PATIENCE) as runtime:
            kernel_id = await launched(runtime, kernels.echo_job)
            await asyncio.gather(*(ask(runtime, kernel_id, number, "x" * size) for number in range(16)))
            assert proxy.streams_ended() < 60


@pytest.mark.parametrize(("limit", "what"), [(2 * MIB, "a reply of 5,2"), (MIB, "a reply")])
async def test_a_reply_that_does_not_get_through_is_given_up_too_and_others_pass(
    limit: int, what: str, daemon: Any
) -> None:
    host, _, port = daemon.target.rpartition(":")
    given = Options((host, int(port)), stream_bytes=limit)
    async with connect(daemon.target, scoped=True) as direct, Proxy(given) as way:
        kernel_id = await launched(direct, kernels.stretcher)
        async with connect(way.address, timeout=PATIENCE, reconnect_timeout=0.5) as runtime:
            short = await runtime.send_and_receive(kernel_id, Job(1, client=10), timeout=PATIENCE)
            assert short.number == 1
            with pytest.raises(SessionLostError, match=what) as lost:
                await runtime.send_and_receive(kernel_id, Job(2, client=5 * MIB), timeout=PATIENCE)
            assert len(lost.value.message_ids) == 1
            again = await runtime.send_and_receive(kernel_id, Job(3, client=10), timeout=PATIENCE)
            assert again.number == 3


async def test_a_stream_that_ends_with_nothing_on_its_way_is_no_try(
    daemon: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "LONGEST_PAUSE", 0.05)  # What lasts longer than that had time to get on.
    host, _, port = daemon.target.rpartition(":")
    given = Options((host, int(port)), stream_seconds=0.2)
    async with connect(daemon.target, scoped=True) as direct, Proxy(given) as way:
        kernel_id = await launched(direct, kernels.gate)
        async with connect(way.address, timeout=PATIENCE, reconnect_timeout=0.5) as runtime:
            asking = asyncio.create_task(runtime.send_and_receive(kernel_id, Job(3), timeout=PATIENCE))
            await eventually(lambda: way.statistics()["faults"].get("stream_seconds", 0) >= 8)
            assert not asking.done(), "nothing was on its way: the kernel has the request"
            await runtime.send(kernel_id, Job(5, note="open"))
            assert (await asking).number == 9


async def test_connect_asks_seldom_where_a_proxy_answers_for_a_daemon_that_is_down(tmp_path: Path) -> None:
    with ProcessProxy("nginx", tmp_path, f"127.0.0.1:{free_port()}") as proxy:
        with pytest.raises(ConnectionLostError, match="502"):
            async with connect(proxy.address, timeout=1.0):
                pass
        assert 2 < (tmp_path / "access.log").read_text().count("/ListKernelTypes ") < 20


async def test_connect_finds_a_daemon_that_comes_up_behind_a_proxy(tmp_path: Path, daemon: Any) -> None:
    async with Forwarder(daemon.target) as way:
        way.is_open = False
        with ProcessProxy("nginx", tmp_path, way.address) as proxy:
            runtime = connect(proxy.address, timeout=PATIENCE)
            starting = asyncio.create_task(runtime.start())
            await eventually(lambda: way.refused > 2)
            way.is_open = True
            await starting
            await runtime.shutdown()
