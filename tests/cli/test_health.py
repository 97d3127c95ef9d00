"""The command `health`: for a person, for a script and for a health check."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable

import pytest
from click.testing import Result

from pydotcompute_client.cli import kernels
from tests.cli.command import WAIT


def test_health_is_that_of_the_daemon_or_of_a_kernel(ok: Callable[..., str], fail: Callable[..., str]) -> None:
    assert ok("health") == "SERVING\n"
    assert ok("health", "calculator") == "SERVING\n"
    assert json.loads(ok("health", "--json")) == {"status": "SERVING"}
    assert "'silent' is not launched" in fail(1, "health", "silent")


def test_a_kernel_that_does_not_serve_is_not_healthy(run: Callable[..., Result], ok: Callable[..., str]) -> None:
    ok("launch", "idle", "--type", "silent")
    result = run("health", "idle", "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (1, {"status": "NOT_SERVING"})
    assert result.stderr.startswith("error: kernel 'idle' at ")
    ok("terminate", "idle")


def test_health_does_without_rich(target: str) -> None:
    program = (
        "import sys; from pydotcompute_client.cli.main import main; "
        "main(['health'], standalone_mode=False); print(*sys.modules)"
    )
    modules = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYDOTCOMPUTE_TARGET": target},
        check=True,
        capture_output=True,
        text=True,
        timeout=WAIT,
    ).stdout.split()
    assert modules[0] == "SERVING"
    assert "grpc" in modules
    assert [name for name in modules if name.split(".")[0] == "rich"] == []


def test_a_daemon_that_does_not_answer_is_a_timeout(fail: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "HEALTH_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        target = f"127.0.0.1:{deaf.getsockname()[1]}"
        assert f"no answer from {target} within 0.1 s" in fail(4, "health", "--target", target)
