"""The tables that people see."""

from collections.abc import Callable
from typing import Any

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


def test_outputs_and_a_stuck_actor_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    state = kernel_pb.KERNEL_STATE_ACTIVE
    free: dict[str, Any] = {"kernel_id": "free", "state": state, "output_depth": 1, "output_queue_size": 4096}
    full: dict[str, Any] = {"kernel_id": "full", "state": state, "output_depth": 4, "output_queue_size": 4}
    tables.show_kernels([kernel_pb.Kernel(**free)])
    tables.show_telemetry([telemetry_pb.KernelTelemetry(**free)])
    alone = capsys.readouterr().out
    assert alone.count("1/4096") == 2
    assert "STUCK" not in alone
    tables.show_kernels([kernel_pb.Kernel(**free), kernel_pb.Kernel(**full, stuck_in_send_seconds=3725.0)])
    tables.show_telemetry([telemetry_pb.KernelTelemetry(**full, stuck_in_send_seconds=0.2)])
    _, first, second, _, third = capsys.readouterr().out.splitlines()
    assert "STUCK" not in first
    assert "in send" not in first
    assert ("4/4" in second, "in send for 1:02:05" in second) == (True, True)
    assert ("4/4" in third, "in send for 0:00:00" in third) == (True, True)


def test_whom_an_actor_asks_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    asking: dict[str, Any] = {"kernel_id": "a", "asking": "scorer", "asking_seconds": 2.5}
    tables.show_kernels([kernel_pb.Kernel(state=kernel_pb.KERNEL_STATE_ACTIVE, **asking)])
    tables.show_telemetry([telemetry_pb.KernelTelemetry(state=kernel_pb.KERNEL_STATE_ACTIVE, **asking)])
    assert capsys.readouterr().out.count("asks scorer for 0:00:02") == 2


def test_an_older_daemon_says_nothing_about_outputs(capsys: pytest.CaptureFixture[str]) -> None:
    tables.show_kernels([kernel_pb.Kernel(kernel_id="old", state=kernel_pb.KERNEL_STATE_ACTIVE)])
    assert capsys.readouterr().out.splitlines()[1].split() == ["old", "ACTIVE", "0", "-"]


def test_the_rate_that_is_shown_is_that_of_now(capsys: pytest.CaptureFixture[str]) -> None:
    told = telemetry_pb.KernelTelemetry(kernel_id="a", state=kernel_pb.KERNEL_STATE_ACTIVE, rate=0.5, throughput=412.6)
    tables.show_telemetry([told])
    out = capsys.readouterr().out
    assert "0.5/s" in out
    assert "412.6" not in out


def test_device_memory_is_shown_where_there_is_some(capsys: pytest.CaptureFixture[str]) -> None:
    state = kernel_pb.KERNEL_STATE_ACTIVE
    tables.show_telemetry([telemetry_pb.KernelTelemetry(kernel_id="a", state=state)])
    assert "DEVICE MEMORY" not in capsys.readouterr().out
    on_gpu = telemetry_pb.KernelTelemetry(kernel_id="a", state=state, device_memory_bytes=0)
    tables.show_telemetry([on_gpu])
    assert "0 bytes" in capsys.readouterr().out


def test_restarts_and_workers_are_shown_where_there_are_some(capsys: pytest.CaptureFixture[str]) -> None:
    state = kernel_pb.KERNEL_STATE_ACTIVE
    workers = [telemetry_pb.WorkerTelemetry(pid=pid, resident_bytes=32 << 20, cpu_seconds=pid / 10) for pid in (17, 18)]
    tables.show_telemetry([telemetry_pb.KernelTelemetry(kernel_id="a", state=state)])
    assert "PID" not in capsys.readouterr().out
    told = telemetry_pb.KernelTelemetry(
        kernel_id="a", state=state, restarts=3, last_crash="SIGSEGV: its worker", workers=workers
    )
    tables.show_telemetry([told])
    header, row = capsys.readouterr().out.splitlines()
    names = ("RESTARTS", "PID", "WORKER MEMORY", "CPU", "LAST CRASH")
    starts = [header.index(name) for name in names]
    assert starts == sorted(starts)
    for shown in ("3", "17 18", "64 MiB", "3.5s", "SIGSEGV: its worker"):
        assert shown in row
    tables.show_kernels([kernel_pb.Kernel(kernel_id="a", state=state, restarts=3, restarting=True)])
    header, row = capsys.readouterr().out.splitlines()
    assert "RESTARTS" in header
    assert "ACTIVE, restarting" in row


def test_a_description_says_what_happens_after_a_failure_and_what_a_worker_may_use(
    capsys: pytest.CaptureFixture[str],
) -> None:
    supervision = kernel_pb.Supervision(
        restart=kernel_pb.RESTART_ON_FAILURE,
        max_restarts=10,
        restart_window_seconds=60.0,
        on_crash=kernel_pb.ON_CRASH_REDELIVER,
        max_deliveries=3,
    )
    limits = kernel_pb.WorkerLimits(time_limit_seconds=1.5, hang_timeout_seconds=5.0, cpus=[0, 2], nice=0)
    described = kernel_pb.DescribeKernelResponse(
        kernel_type=kernel_pb.KernelType(name="a", supervision=supervision, worker_limits=limits)
    )
    tables.show_description("a", described)
    lines = {" ".join(line.split()) for line in capsys.readouterr().out.splitlines()}
    assert lines >= {
        "RESTART on_failure, at most 10 times in 60 s",
        "ON CRASH redeliver, at most 3 deliveries",
        "TIME LIMIT 1.5 s",
        "HANG TIMEOUT 5 s",
        "CPUS 0, 2",
        "NICE 0",
    }
    never = kernel_pb.Supervision(restart=kernel_pb.RESTART_NEVER, on_crash=kernel_pb.ON_CRASH_DEAD_LETTER)
    for plain in (kernel_pb.KernelType(name="a"), kernel_pb.KernelType(name="a", supervision=never)):
        tables.show_description("a", kernel_pb.DescribeKernelResponse(kernel_type=plain))
        assert "RESTART" not in capsys.readouterr().out
