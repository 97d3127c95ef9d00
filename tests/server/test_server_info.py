"""What a daemon tells of itself."""

from collections.abc import Callable
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest

from pydotcompute import __version__
from pydotcompute.exceptions import PyDotComputeError
from pydotcompute.v1.kernel_service_pb2 import ListKernelsRequest
from pydotcompute_client import connect
from pydotcompute_server.limits import Limits
from tests.stubs import Wire
from tests.tools import ROOT

CALCULATOR = str(ROOT / "examples" / "calculator.py")


async def test_a_daemon_tells_its_version_limits_and_features(start_daemon: Callable[..., Any]) -> None:
    before = datetime.now(UTC)
    daemon = start_daemon(CALCULATOR, "--limit", "max_message_bytes=1234567", "--limit", "farewell=0.5")
    async with connect(daemon.target) as runtime:
        info = await runtime.fetch_server_info()
        assert info == runtime.get_server_info()
    assert info.version == __version__
    assert before <= info.start_time <= datetime.now(UTC)
    assert set(info.limits) == {field.name for field in fields(Limits)}
    assert info.limits["max_message_bytes"] == 1_234_567
    assert info.limits["farewell"] == 0.5
    assert isinstance(info.limits["max_kernels"], int)
    assert info.limits["memory_bytes"] > 0, "the budget, and not that it was left to the daemon"
    assert info.features == {"error_in_bye", "launch_request_id", "new_types", "reflection"}


async def test_shared_memory_is_a_feature_where_it_is_offered(start_daemon: Callable[..., Any]) -> None:
    daemon = start_daemon(CALCULATOR, "--shared-memory-bytes", str(1 << 20))
    async with connect(daemon.target) as runtime:
        assert "shared_memory" in (await runtime.fetch_server_info()).features


async def test_the_epoch_is_the_one_of_other_answers_and_another_for_each_run(
    start_daemon: Callable[..., Any],
) -> None:
    epochs = set()
    for _ in range(2):
        daemon = start_daemon(CALCULATOR)
        async with connect(daemon.target) as runtime:
            epoch = (await runtime.fetch_server_info()).daemon_epoch
        async with grpc.aio.insecure_channel(daemon.target) as channel:
            listed: Any = await Wire(channel).kernels.ListKernels(ListKernelsRequest())
            assert listed.daemon_epoch == epoch
        epochs.add(epoch)
    assert len(epochs) == 2


async def test_a_question_without_a_connection_is_an_error() -> None:
    with pytest.raises(PyDotComputeError):
        await connect("127.0.0.1:1").fetch_server_info()
