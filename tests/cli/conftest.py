"""The command against a daemon, and what its tests expect of it."""

import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from click.testing import CliRunner, Result

from pydotcompute_client.cli.main import main
from tests.cli.command import EXAMPLES

KERNELS = Path(__file__).parent / "cli_kernels.py"


@pytest.fixture(scope="session")
def target(start_daemon: Callable[..., Any]) -> str:
    """The address of a daemon with the calculator, which is launched, and the kernel types of `cli_kernels.py`."""
    address: str = start_daemon(str(EXAMPLES / "calculator.py"), str(KERNELS), "--launch", "calculator").target
    return address


@pytest.fixture(scope="module", autouse=True)
def _own_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The user's own files are left alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("settings")))
        yield


@pytest.fixture
def nowhere() -> Iterator[str]:
    """An address on which nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture
def run(target: str) -> Callable[..., Result]:
    """Runs the command in this process."""

    def run(*arguments: str, stdin: str | bytes = "", env: Mapping[str, str | None] | None = None) -> Result:
        env = {"PYDOTCOMPUTE_TARGET": target, **(env or {})}
        return CliRunner().invoke(main, arguments, input=stdin, env=env, prog_name="pydotcompute")

    return run


@pytest.fixture
def ok(run: Callable[..., Result]) -> Callable[..., str]:
    """Runs a command that succeeds and says nothing on stderr; gives its stdout."""

    def ok(*arguments: str, stdin: str = "", env: Mapping[str, str | None] | None = None) -> str:
        result = run(*arguments, stdin=stdin, env=env)
        assert (result.exit_code, result.stderr) == (0, "")
        return result.stdout

    return ok


@pytest.fixture
def fail(run: Callable[..., Result]) -> Callable[..., str]:
    """Runs a command that ends with an exit code and one line on stderr, and one more for each thing that is wrong with
    a body; gives them.
    """

    def fail(exit_code: int, *arguments: str, stdin: str | bytes = "", env: Mapping[str, str] | None = None) -> str:
        result = run(*arguments, stdin=stdin, env=env)
        assert (result.exit_code, result.stdout) == (exit_code, "")
        assert result.stderr.startswith("error: ")
        line, *violations = result.stderr.splitlines()
        assert all(violation.startswith("  $") for violation in violations)
        assert "the body is no " in line or not violations
        return result.stderr

    return fail


@pytest.fixture
def launched(ok: Callable[..., str]) -> Iterator[Callable[..., str]]:
    """Launches and activates a kernel of a type under an id of its own."""
    kernel_ids = []

    def launch(kernel_type: str, *options: str) -> str:
        kernel_id = f"{kernel_type}-{uuid4().hex[:8]}"
        ok("launch", kernel_id, "--type", kernel_type, "--activate", *options)
        kernel_ids.append(kernel_id)
        return kernel_id

    yield launch
    for kernel_id in kernel_ids:
        ok("terminate", kernel_id)


@pytest.fixture(scope="module")
def interruptible() -> Iterator[None]:
    """Processes inherit that SIGINT is ignored, as it is where a shell runs the tests in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
