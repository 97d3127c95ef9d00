"""The tables that people see."""

from collections.abc import Callable

import pytest

from pydotcompute.v1 import kernel_service_pb2 as kernel_pb
from pydotcompute.v1 import telemetry_service_pb2 as telemetry_pb
from pydotcompute_client.cli import tables


def test_tables_are_not_cut_where_there_is_no_terminal(ok: Callable[..., str]) -> None:
    for line in ok("types", env={"COLUMNS": "30", "FORCE_COLOR": "1"}).splitlines():
        assert line.isprintable()
        assert len(line) > 80
        assert len(line) == len(line.rstrip())


def test_devices_are_shown_in_rows(capsys: pytest.CaptureFixture[str]) -> None:
    told = telemetry_pb.DeviceTelemetry(
        index=1,
        name="H100",
        memory_total_bytes=80 << 30,
        memory_used_bytes=3 << 29,
        utilization_percent=37,
        temperature_celsius=0,
        power_watts=123.4,
    )
    tables.show_devices([told, telemetry_pb.DeviceTelemetry(index=2, name="Silent")])
    header, first, second = capsys.readouterr().out.splitlines()
    assert header.split() == ["INDEX", "DEVICE", "MEMORY", "BUSY", "TEMPERATURE", "POWER"]
    assert first.split() == ["1", "H100", *["1.5", "GiB", "of", "80", "GiB", "37%", "0", "C", "123", "W"]]
    assert second.split() == ["2", "Silent", "-", "-", "-", "-"]


def test_device_memory_is_shown_where_there_is_some(capsys: pytest.CaptureFixture[str]) -> None:
    state = kernel_pb.KERNEL_STATE_ACTIVE
    tables.show_telemetry([telemetry_pb.KernelTelemetry(kernel_id="a", state=state)])
    assert "DEVICE MEMORY" not in capsys.readouterr().out
    on_gpu = telemetry_pb.KernelTelemetry(kernel_id="a", state=state, device_memory_bytes=0)
    tables.show_telemetry([on_gpu])
    assert "0 bytes" in capsys.readouterr().out
