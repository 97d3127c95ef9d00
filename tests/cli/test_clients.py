"""The commands that show who uses a daemon and end it, and the client_id of whoever names none."""

import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pydotcompute_client.cli.own_client_id import own_client_id

ASK = ("ask", "calculator", '{"a": 1, "b": 2}')


def test_clients_are_listed_with_what_they_have_sent(ok: Callable[..., str]) -> None:
    ok(*ASK)
    header, *rows = ok("clients", "--interval", "0").splitlines()
    assert header.split()[:4] == ["PRINCIPAL", "PEER", "VERSION", "SINCE"]
    assert any(row.startswith("anonymous") and " pydotcompute/" in row for row in rows)
    (first, *_) = json.loads(ok("clients", "--interval", "0.01", "--json"))["clients"]
    assert first["principal"] == "anonymous"
    assert first["messagesPerSecond"] == 0


def test_who_is_kicked_is_counted(ok: Callable[..., str]) -> None:
    assert ok("kick", "nobody") == "ended: 0 sessions, 0 calls\n"
    assert json.loads(ok("kick", "--peer", "ipv4:127.0.0.1:1", "--json")) == {"sessions": 0, "calls": 0, "clientIds": 0}


def test_a_kicked_client_id_has_no_replies_any_more(ok: Callable[..., str], fail: Callable[..., str]) -> None:
    ok("send", "calculator", '{"a": 1, "b": 2}', "--client-id", "kicked")
    assert ok("kick", "--client-id", "kicked") == "ended at 1 kernels\n"
    fail(4, "receive", "calculator", "--client-id", "kicked", "--timeout", "0.01")


def test_what_a_user_sends_the_same_user_receives(
    ok: Callable[..., str], fail: Callable[..., str], tmp_path: Path
) -> None:
    message_id = ok("send", "calculator", '{"a": 1, "b": 2}').strip()
    another = {"XDG_CONFIG_HOME": str(tmp_path)}
    fail(4, "receive", "calculator", "--timeout", "0.01", env=another)
    fail(4, "receive", "calculator", "--timeout", "0.01", "--client-id", "")
    assert json.loads(ok("receive", "calculator", "--json"))["message"]["correlationId"] == message_id


def test_a_user_without_a_place_for_files_is_told_the_client_id(
    ok: Callable[..., str], run: Callable[..., object], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    result = run("send", "calculator", '{"a": 1, "b": 2}', env={"XDG_CONFIG_HOME": str(tmp_path / "file")})
    client_id = result.stderr.split("--client-id ")[1].split(":")[0]  # type: ignore[attr-defined]
    ok("receive", "calculator", "--client-id", client_id)


def test_commands_that_start_together_have_the_same_client_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    source = "from pydotcompute_client.cli.own_client_id import own_client_id; print(own_client_id())"

    def run(_: int) -> str:
        return subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True).stdout

    with ThreadPoolExecutor(4) as threads:
        found = set(threads.map(run, range(4)))
    assert found == {f"{own_client_id()}\n"}
    assert [each.name for each in (tmp_path / "pydotcompute").iterdir()] == ["client-id"]
    assert (tmp_path / "pydotcompute" / "client-id").stat().st_mode & 0o777 == 0o600


def test_a_file_that_holds_no_client_id_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    first, is_kept = own_client_id()
    assert is_kept
    (tmp_path / "pydotcompute" / "client-id").write_text("something else\n")
    second, is_kept = own_client_id()
    assert not is_kept
    assert second != first
