"""The audit log: a line for what operators do, for what is refused, and for a token that comes from elsewhere."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pydotcompute.access.roles import Grant, Role
from pydotcompute.exceptions import LimitExceededError
from pydotcompute.v1 import kernel_service_pb2 as pb
from pydotcompute.v1 import message_service_pb2 as message_pb
from pydotcompute.v1 import telemetry_service_pb2 as telemetry_pb
from pydotcompute_server import Limits
from pydotcompute_server.access.audit import MOST_ADDRESSES, REFUSALS_A_SECOND, Audit
from tests.server.access.guarded import Guarded, about, bearer, guarded, outcome
from tests.server.access.test_sight import exchange, first_of

GRANTS = {"carl": Grant(Role.CALLER, ("echo",)), "olga": Grant(Role.OPERATOR)}


def lines(path: Path) -> list[dict[str, Any]]:
    """The entries, without what differs from run to run."""
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    for entry in entries:
        assert entry.pop("time").endswith("Z")
        assert entry.pop("peer").startswith("ipv4:127.0.0.1:") or entry["event"] == "test"
    return entries


def entry(event: str, principal: str, method: str, kernel: str, outcome: str, **more: str) -> dict[str, Any]:
    return {
        "event": event,
        "principal": principal,
        "method": method,
        "kernel": kernel,
        "outcome": outcome,
        **more,
    }


async def scene(daemon: Guarded) -> None:
    """Operators do something, and others try to."""
    olga, carl = daemon.by("olga"), daemon.by("carl")
    await olga.kernels.Deactivate(pb.DeactivateRequest(kernel_id="echo"))
    await outcome(olga.kernels.Activate(pb.ActivateRequest(kernel_id="echo")))
    await carl.kernels.ListKernels(pb.ListKernelsRequest())
    await outcome(carl.kernels.Terminate(pb.TerminateRequest(kernel_id="echo")))
    await outcome(carl.messages.Send(message_pb.SendRequest(kernel_id="vault/1\n")))
    await outcome(carl.kernels.DescribeKernel(about("echo")))
    await outcome(first_of(exchange(carl, "vault/2")))
    await outcome(daemon.by("nobody").kernels.ListKernels(pb.ListKernelsRequest()))


async def test_each_line_says_who_from_where_what_and_how_it_ended(tmp_path: Path) -> None:
    path = tmp_path / "audit"
    async with guarded(tmp_path, GRANTS, audit_log=path) as daemon:
        await scene(daemon)
        olga, carl = daemon.secrets["olga"][4:12], daemon.secrets["carl"][4:12]
        text = path.read_text()
        assert not any(secret in text for secret in daemon.secrets.values())
    found = lines(path)
    problem = found[-1].pop("problem")
    assert "needs the role viewer" in problem
    assert found == [
        entry("new address", "olga", "KernelService/Deactivate", "", "accepted", token=olga),
        entry("operation", "olga", "KernelService/Deactivate", "echo", "done"),
        entry("operation", "olga", "KernelService/Activate", "echo", "KERNEL_STATE_INVALID"),
        entry("new address", "carl", "KernelService/ListKernels", "", "accepted", token=carl),
        entry("denial", "carl", "KernelService/Terminate", "echo", "NOT_PERMITTED"),
        entry("denial", "carl", "MessageService/Send", "vault/1\n", "KERNEL_NOT_FOUND"),
        entry("denial", "carl", "MessageService/Exchange", "vault/2", "KERNEL_NOT_FOUND"),
        entry("denial", "anonymous", "KernelService/ListKernels", "", "NOT_AUTHENTICATED"),
    ]


async def test_without_a_file_the_log_has_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pydotcompute_server.audit")
    async with guarded(tmp_path, GRANTS) as daemon:
        await scene(daemon)
    logged = [each for each in caplog.records if each.name == "pydotcompute_server.audit"]
    assert len(logged) == 8
    assert logged[1].getMessage() == "audit: operation"
    said = vars(logged[1])
    assert (said["principal"], said["method"], said["outcome"]) == ("olga", "KernelService/Deactivate", "done")


async def test_with_nothing_but_the_file_everybody_may_do_everything_and_it_is_noted(tmp_path: Path) -> None:
    path = tmp_path / "audit"
    async with guarded(tmp_path, {}, audit_log=path, tokens=None) as daemon:
        deactivate: Any = daemon.channel.unary_unary(
            "/pydotcompute.v1.KernelService/Deactivate", pb.DeactivateRequest.SerializeToString
        )
        await deactivate(pb.DeactivateRequest(kernel_id="echo"), metadata=bearer("for a proxy on the way"))
    assert lines(path) == [entry("operation", "anonymous", "KernelService/Deactivate", "echo", "done")]


async def test_a_limit_that_is_reached_is_noted(tmp_path: Path) -> None:
    path = tmp_path / "audit"
    limits = Limits(grace=1.0, max_kernels=1)
    async with guarded(tmp_path, GRANTS, audit_log=path, limits=limits) as daemon:
        launch = daemon.by("olga").kernels.Launch(pb.LaunchRequest(kernel_id="more", kernel_type="echo"))
        await outcome(launch)
    last = lines(path)[-1]
    assert "max_kernels" in last.pop("problem")
    assert last == entry("limit", "olga", "KernelService/Launch", "more", "LIMIT_EXCEEDED")


async def test_a_limit_of_the_principal_is_noted(tmp_path: Path) -> None:
    path = tmp_path / "audit"
    limits = Limits(grace=1.0, messages_per_second_per_principal=1)
    async with guarded(tmp_path, GRANTS, audit_log=path, limits=limits) as daemon:
        for _ in range(2):
            await outcome(daemon.by("carl").kernels.ListKernels(pb.ListKernelsRequest()))
    last = lines(path)[-1]
    assert "messages_per_second_per_principal" in last.pop("problem")
    assert last == entry("limit", "carl", "KernelService/ListKernels", "", "LIMIT_EXCEEDED")


@pytest.mark.parametrize("kind", ["unary", "responses", "stream", "unknown"])
async def test_a_call_too_many_for_the_daemon_is_noted_without_a_name(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "audit"
    limits = Limits(grace=1.0, max_calls=1, max_calls_per_principal=1)
    async with guarded(tmp_path, GRANTS, audit_log=path, limits=limits) as daemon:
        watch = daemon.by("olga").telemetry.WatchTelemetry(telemetry_pb.WatchTelemetryRequest())
        await watch.read()
        carl = daemon.by("carl")
        unknown: Any = daemon.channel.unary_unary("/pydotcompute.v1.KernelService/Never")
        calls: dict[str, tuple[str, Callable[[], Any]]] = {
            "unary": ("KernelService/ListKernels", lambda: carl.kernels.ListKernels(pb.ListKernelsRequest())),
            "responses": (
                "TelemetryService/WatchTelemetry",
                lambda: first_of(carl.telemetry.WatchTelemetry(telemetry_pb.WatchTelemetryRequest())),
            ),
            "stream": ("MessageService/Exchange", lambda: first_of(exchange(carl, "echo"))),
            "unknown": ("KernelService/Never", lambda: unknown(b"", metadata=carl.metadata)),
        }
        method, call = calls[kind]
        error = await outcome(call())
        assert isinstance(error, LimitExceededError)
        assert error.name == "max_calls"
        watch.cancel()
    last = lines(path)[-1]
    assert "max_calls is 1" in last.pop("problem")
    assert last == entry("limit", "", method, "", "LIMIT_EXCEEDED")


async def test_the_file_is_opened_again_after_it_was_moved_away(tmp_path: Path) -> None:
    path, moved = tmp_path / "audit", tmp_path / "audit.1"
    async with guarded(tmp_path, GRANTS, audit_log=path) as daemon:
        await daemon.by("olga").kernels.Deactivate(pb.DeactivateRequest(kernel_id="echo"))
        path.rename(moved)
        await daemon.by("olga").kernels.Reactivate(pb.ReactivateRequest(kernel_id="echo"))
        assert len(lines(moved)) == 3, "until then it goes to where it went"
        daemon.daemon.reload()
        await daemon.by("olga").kernels.Deactivate(pb.DeactivateRequest(kernel_id="echo"))
    assert len(lines(moved)) == 3
    assert len(lines(path)) == 1


def test_a_flood_of_refusals_is_counted_and_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("pydotcompute_server.access.audit.monotonic", lambda: now)
    audit = Audit(tmp_path / "audit")
    for _ in range(REFUSALS_A_SECOND + 50):
        audit.refused("eve", "ipv4:127.0.0.1:1", "X/Y", "k", PermissionError())
    now += 1
    audit.refused("eve", "ipv4:127.0.0.1:1", "X/Y", "k" * 10_000, PermissionError())
    audit.close()
    found = lines(tmp_path / "audit")
    assert len(found) == REFUSALS_A_SECOND + 1
    assert found[-1]["suppressed_before"] == 50
    assert len(found[-1]["kernel"]) < 1_000


def test_new_addresses_are_remembered_up_to_a_limit(tmp_path: Path) -> None:
    audit = Audit(tmp_path / "audit")
    for number in range(MOST_ADDRESSES):
        for port in (1, 2):
            audit.token_used("a", f"ipv4:127.0.0.1:{port}", "X/Y", str(number))
    assert len(lines(tmp_path / "audit")) == MOST_ADDRESSES
    audit.token_used("a", "ipv4:127.0.0.1:1", "X/Y", "one more")
    audit.token_used("a", "ipv4:127.0.0.1:1", "X/Y", "0")
    audit.close()
    assert len(lines(tmp_path / "audit")) == MOST_ADDRESSES + 2
