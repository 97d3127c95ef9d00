"""The times that the commands take."""

from typing import Any

import pytest
from click.testing import CliRunner

from pydotcompute_client.cli.connection import Connection
from pydotcompute_client.cli.failures import Failure
from pydotcompute_client.cli.main import main


@pytest.mark.parametrize(("given", "nanoseconds"), [("1.13", 1_130_000_000), ("0.29s", 290_000_000), ("7", 7 * 10**9)])
def test_a_time_reaches_the_daemon_to_the_nanosecond(
    given: str, nanoseconds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Any] = []

    def call(self: Connection, method: object, request: Any, *rest: object, **more: object) -> None:
        sent.append(request)
        raise Failure("enough")

    monkeypatch.setattr(Connection, "call", call)
    CliRunner().invoke(main, ["terminate", "kernel", "--timeout", given])
    (request,) = sent
    assert request.timeout.ToNanoseconds() == nanoseconds
