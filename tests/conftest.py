"""The daemon as its users run it: a process that is found through its first line of output."""

import gc
import os
import queue
import re
import signal
import subprocess
import sysconfig
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.properties import is_thorough, use_profile
from tests.tools import LEFT_OUT

pytest_plugins = ["tests.stubs"]

# Before any test module is imported: a property takes its settings from the profile as it is defined.
use_profile()

START_TIMEOUT = 30.0
STOP_TIMEOUT = 30.0


class DaemonProcess:
    """A running `pydotcompute-server` on a port of its own choice."""

    def __init__(self, arguments: tuple[str, ...], log: Path, env: Mapping[str, str] | None = None) -> None:
        self.log = log
        """The file that its stderr goes to."""
        self.log_shown = 0
        self.lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        """What it has printed to stdout after the first line, and an empty text once it has ended."""
        command = [os.path.join(sysconfig.get_path("scripts"), "pydotcompute-server"), *arguments]
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(
                [*command, "--listen", "127.0.0.1:0"],
                stdout=subprocess.PIPE,
                stderr=stderr,
                env={**os.environ, **(env or {})},
                text=True,
            )
        # Read to the end: a pipe that fills up would stop a daemon whose kernels print.
        self._reader = threading.Thread(target=self._read, name="daemon stdout", daemon=True)
        self._reader.start()
        try:
            first = self.lines.get(timeout=START_TIMEOUT)
            found = re.fullmatch(r"listening on (\S+:\d+)\n", first)
            assert found, f"not what a first line should be: {first!r}\n{self.log_text()}"
        except BaseException:
            self.process.kill()
            self._wait()
            raise
        self.target = found[1]
        """The address that a client connects to."""

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as stdout:
            for line in stdout:
                self.lines.put(line)
        self.lines.put("")

    def _wait(self) -> int:
        code = self.process.wait(STOP_TIMEOUT)
        self._reader.join()
        return code

    def log_text(self, start: int = 0) -> str:
        """What it has written to stderr, from this byte on."""
        return self.log.read_bytes()[start:].decode(errors="replace")

    def stop(self) -> None:
        """Ask it to end, as an orchestrator would, and see that it says all went well."""
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self._wait()
        except subprocess.TimeoutExpired:
            self.process.kill()
            self._wait()
            raise AssertionError(f"still running {STOP_TIMEOUT:g} s after SIGTERM\n{self.log_text()}") from None
        assert code == 0, f"exit code {code} after SIGTERM\n{self.log_text()}"


DAEMONS: pytest.StashKey[list[DaemonProcess]] = pytest.StashKey()


@pytest.fixture(scope="session")
def start_daemon(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[Callable[..., DaemonProcess]]:
    """Starts daemons: `start_daemon("kernels.py", "--launch", "all", env={…})`. Each runs to the end of the session,
    unless a test has stopped it, and must then end with exit code 0 on SIGTERM.
    """
    daemons = pytestconfig.stash.setdefault(DAEMONS, [])
    with ExitStack() as stack:

        def start(*arguments: str, env: Mapping[str, str] | None = None) -> DaemonProcess:
            daemon = DaemonProcess(arguments, tmp_path_factory.mktemp("daemon") / "stderr.log", env)
            daemons.append(daemon)
            stack.callback(lambda: daemon.stop() if daemon.process.poll() is None else None)
            return daemon

        yield start


@pytest.fixture(scope="session")
def gpu(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process that finds a GPU, which is that of `tests/fake_cupy.py`."""
    folder = tmp_path_factory.mktemp("gpu")
    for name in ("cupy", "cupyx"):
        (folder / f"{name}.py").write_text("from tests.fake_cupy import install\n\ninstall()\n")
    return {"PYTHONPATH": os.pathsep.join([str(folder), str(Path(__file__).parents[1])])}


def pytest_report_header() -> str:
    return "profile: thorough" if is_thorough() else "profile: quick, without the tests that are marked as thorough"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave to CI, or to HYPOTHESIS_PROFILE=thorough, what takes many processes or much time."""
    left = [] if is_thorough() else [item for item in items if item.get_closest_marker("thorough")]
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if not item.get_closest_marker("thorough")]


def pytest_runtest_setup(item: pytest.Item) -> None:
    for daemon in item.config.stash.get(DAEMONS, []):
        daemon.log_shown = daemon.log.stat().st_size


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With a test that failed, show what the daemons logged meanwhile."""
    # A failure is shown by parsing the source. If meanwhile the collector ends a task that was still waiting, asyncio
    # logs that with a traceback, whose making parses too, and CPython 3.11 ends the whole session with a SystemError.
    gc.disable()
    try:
        report = yield
    finally:
        gc.enable()
    if report.failed:
        for daemon in item.config.stash.get(DAEMONS, []):
            if logged := daemon.log_text(daemon.log_shown):
                report.sections.append((f"stderr of the daemon at {daemon.target}", logged[-10_000:]))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was left out for want of a program, which is easily overlooked among what was skipped on purpose."""
    missing: Counter[str] = Counter()
    for report in terminalreporter.getreports("skipped"):
        _, _, reason = report.longrepr if isinstance(report.longrepr, tuple) else ("", 0, "")
        _, found, tool = reason.partition(LEFT_OUT)
        if found:
            missing[tool] += 1
    if missing:
        terminalreporter.section("left out", yellow=True)
        for tool, count in sorted(missing.items()):
            terminalreporter.line(f"{count} {'test' if count == 1 else 'tests'}, because {tool} is not installed")
        terminalreporter.line("`.ci/install-tools` brings what is missing, as far as Go, npm and apt are here.")
