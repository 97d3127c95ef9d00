"""The image, for real: built, run with kernels mounted, and used from outside.

Docker builds it where an engine runs, `docker/build-with-buildah` elsewhere. `DOCKER_BUILD_FLAGS` is passed on to
`docker build`, for a machine that needs another base or build secrets. Where there is neither an engine nor root with
buildah and debootstrap these tests are skipped; with CI=true they are not, and fail.
"""

import asyncio
import json
import os
import shlex
import shutil
import subprocess
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import pytest
from click.testing import CliRunner

from pydotcompute import message
from pydotcompute.exceptions import ConnectionLostError
from pydotcompute_client import TLS, connect
from pydotcompute_client.cli.main import main

# The first build makes a base and downloads the dependencies.
pytestmark = [pytest.mark.docker, pytest.mark.thorough, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]

# Takes a while over each message, and says when it has one, so that the daemon can be stopped meanwhile.
DOUBLER = """
import asyncio
from dataclasses import dataclass

from pydotcompute import message, ring_kernel
from pydotcompute.ring_kernels.lifecycle import KernelContext


@message
@dataclass
class Number:
    value: float = 0.0


@ring_kernel(kernel_id="doubler", input_type=Number, output_type=Number)
async def doubler(ctx: KernelContext[Number, Number]) -> None:
    async for number in ctx:
        print(f"doubling {number.value}")
        await asyncio.sleep(0.5)
        await ctx.send(Number(value=2 * number.value, correlation_id=number.message_id))
"""


@message
@dataclass
class Number:
    """The doubler's message, as a client declares it that has not seen the doubler's file."""

    value: float = 0.0


def run(*command: str | Path, timeout: float = 60.0) -> str:
    """Run `command` in the repository's root; its stdout. Raises if it fails; its stderr is left to pytest."""
    return subprocess.run(command, check=True, timeout=timeout, stdout=subprocess.PIPE, text=True, cwd=ROOT).stdout


@dataclass
class Container:
    """A daemon that runs in a container."""

    process: Process
    """Ends when the daemon does, and with its exit status."""
    target: str
    """Where the daemon is reached from this machine, HOST:PORT."""
    pid: int
    """The daemon's, as the container sees it."""
    enter: list[str]
    """What makes a command run in the container."""
    sigterm: list[str]
    """The command that sends SIGTERM to the daemon."""

    async def execute(self, *command: str) -> tuple[int, str]:
        """Run `command` in the container as the image's user; its exit status and its output."""
        process = await asyncio.create_subprocess_exec(*self.enter, *command, stdout=PIPE, stderr=STDOUT)
        output, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, output.decode()

    async def stop(self) -> int:
        """Send SIGTERM to the daemon and wait for it to end; its exit status."""
        async with asyncio.timeout(60):
            await (await asyncio.create_subprocess_exec(*self.sigterm, stdout=PIPE)).communicate()
            await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode


async def line_with(text: str, process: Process) -> str:
    """The next line of the process's output that has `text` in it."""
    assert process.stdout is not None
    seen = []
    async with asyncio.timeout(60):
        while line := (await process.stdout.readline()).decode():
            seen.append(line)
            if text in line:
                return line
    raise AssertionError(f"the daemon ended before it said {text!r}: {''.join(seen)}")


@asynccontextmanager
async def started(command: list[str]) -> AsyncIterator[Process]:
    """The process of `command`, with stderr among its output. It has ended when the block is left."""
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=STDOUT)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        output, _ = await process.communicate()
        print(output.decode())


class Engine(Protocol):
    """Builds the target cpu, and runs it."""

    def config(self) -> dict[str, Any]:
        """The image's configuration, in Docker's words."""

    def daemon(self, kernels: Path, certificates: Path | None) -> AbstractAsyncContextManager[Container]:
        """A container with `kernels` mounted, and with certificates or as strangers may use it. It listens already."""

    def attempt(self) -> list[str]:
        """A command that runs the image as it is, with nothing mounted."""


class Docker:
    """The image as users run it: the daemon is process 1, confined as in compose.yaml."""

    def __init__(self) -> None:
        self.image = "pydotcompute:test"
        flags = shlex.split(os.environ.get("DOCKER_BUILD_FLAGS", ""))
        build = ["docker", "build", "--file", "docker/Dockerfile", "--target", "cpu", "--tag", self.image, *flags, "."]
        # Engines older than 23 build with BuildKit only if told to.
        subprocess.run(build, check=True, timeout=900, cwd=ROOT, env={**os.environ, "DOCKER_BUILDKIT": "1"})

    def config(self) -> dict[str, Any]:
        config: dict[str, Any] = json.loads(run("docker", "image", "inspect", self.image))[0]["Config"]
        return config

    @asynccontextmanager
    async def daemon(self, kernels: Path, certificates: Path | None) -> AsyncIterator[Container]:
        name = f"pydotcompute-test-{uuid4().hex}"
        confined = ["--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
        mounted = ["--publish", "127.0.0.1::50051", "--volume", f"{kernels}:/kernels:ro", *transport(certificates)]
        async with started(["docker", "run", "--rm", "--name", name, *confined, *mounted, self.image]) as process:
            await line_with("listening on ", process)
            yield Container(
                process,
                target=run("docker", "port", name, "50051").split()[0],
                pid=1,
                enter=["docker", "exec", name],
                sigterm=["docker", "stop", "--time", "45", name],
            )

    def attempt(self) -> list[str]:
        return ["docker", "run", "--rm", self.image]


class Buildah:
    """The image without an engine: its file system, user and environment are real, its processes and ports the host's.

    `buildah run` knows neither entry point nor health check, so what the image declares is given to it.
    """

    def __init__(self) -> None:
        built = run("docker/build-with-buildah", "--tag", "localhost/pydotcompute:test", timeout=900)
        self.image = built.splitlines()[-1]

    def config(self) -> dict[str, Any]:
        inspected = json.loads(run("buildah", "inspect", "--type", "image", self.image))
        config: dict[str, Any] = inspected["Docker"]["config"]
        return config

    @asynccontextmanager
    async def daemon(self, kernels: Path, certificates: Path | None) -> AsyncIterator[Container]:
        config = self.config()
        name = run("buildah", "from", "--pull-never", self.image).strip()
        enter = ["buildah", "run", "--isolation", "chroot"]
        mounted = ["--volume", f"{kernels}:/kernels:ro", "--env", "PYDOTCOMPUTE_LISTEN=0.0.0.0:0"]
        mounted += transport(certificates)
        try:
            async with started([*enter, *mounted, name, "--", *config["Entrypoint"], *config["Cmd"]]) as process:
                target = (await line_with("listening on ", process)).split()[-1].replace("0.0.0.0", "127.0.0.1")
                pid = innermost_child(process.pid)
                yield Container(
                    process,
                    target=target,
                    pid=pid,
                    enter=[*enter, *mounted, "--env", f"PYDOTCOMPUTE_TARGET={target}", name, "--"],
                    # Sent to the daemon itself: buildah kills its child when it gets a signal.
                    sigterm=["kill", "-TERM", str(pid)],
                )
        finally:
            run("buildah", "rm", name)

    def attempt(self) -> list[str]:
        config = self.config()
        name = run("buildah", "from", "--pull-never", self.image).strip()
        command = shlex.join([*config["Entrypoint"], *config["Cmd"]])
        script = (
            f"buildah run --isolation chroot {name} -- {command}; code=$?; buildah rm {name} >/dev/null; exit $code"
        )
        return ["sh", "-c", script]


def transport(certificates: Path | None) -> list[str]:
    """What is given to a container, for TLS or for strangers."""
    if certificates is None:
        return ["--env", "PYDOTCOMPUTE_INSECURE=1"]
    return ["--volume", f"{certificates}:/tls:ro"]


def innermost_child(pid: int) -> int:
    """The last in the chain of processes that begins with `pid`, but for the relay of the daemon's log.

    The relay has the daemon's command line, and heeds no SIGTERM.
    """
    while children := [c for file in Path(f"/proc/{pid}/task").glob("*/children") for c in file.read_text().split()]:
        child = int(children[0])
        if Path(f"/proc/{child}/cmdline").read_bytes() == Path(f"/proc/{pid}/cmdline").read_bytes():
            break
        pid = child
    return pid


@pytest.fixture(scope="session")
def engine() -> Engine:
    if shutil.which("docker") and subprocess.run(["docker", "version"], capture_output=True).returncode == 0:
        return Docker()
    can_build = shutil.which("buildah") and shutil.which("debootstrap") and os.geteuid() == 0
    # In CI the script installs what it needs.
    if not can_build and os.environ.get("CI") != "true":
        pytest.skip("needs a Docker engine, or root with buildah and debootstrap")
    return Buildah()


@pytest.fixture
def kernels(tmp_path: Path) -> Path:
    """A directory with the calculator and the doubler."""
    kernels = tmp_path / "kernels"
    kernels.mkdir()
    shutil.copy(ROOT / "examples" / "calculator.py", kernels)
    (kernels / "doubler.py").write_text(DOUBLER)
    return readable(kernels)


def readable(directory: Path) -> Path:
    """The directory, once the daemon may read it, which is another user than this one."""
    for path in [directory, *directory.rglob("*")]:
        path.chmod(0o755)
    return directory


@pytest.fixture
async def container(engine: Engine, kernels: Path) -> AsyncIterator[Container]:
    """A daemon with the calculator and the doubler mounted, which strangers may use."""
    async with engine.daemon(kernels, None) as container:
        yield container


def test_image_without_certificates_does_not_start_and_says_what_to_do(engine: Engine) -> None:
    ended = subprocess.run(engine.attempt(), capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2, ended
    assert "listening" not in ended.stdout
    assert "--tls-directory /tls: there is no tls.crt and no tls.key in it" in ended.stderr
    assert "pydotcompute tls init" in ended.stderr


async def test_image_with_certificates_serves_those_who_have_one_and_is_healthy(
    engine: Engine, kernels: Path, tmp_path: Path
) -> None:
    made = CliRunner().invoke(main, ["tls", "init", str(tmp_path / "tls")])
    assert made.exit_code == 0, made.output
    async with engine.daemon(kernels, readable(tmp_path / "tls" / "server")) as container:
        tls = TLS.directory(tmp_path / "tls" / "clients" / "client")
        async with connect(container.target, tls=tls) as runtime:
            await runtime.launch("doubler")
            await runtime.activate("doubler")
            reply = await runtime.send_and_receive("doubler", Number(value=21.0), timeout=30.0)
            assert reply.value == 42.0
        with pytest.raises(ConnectionLostError, match="it speaks TLS, and this client plain text"):
            await connect(container.target).start()
        status, output = await container.execute(*engine.config()["Healthcheck"]["Test"][1:])
        assert status == 0, output


def test_image_declares_its_user_port_entry_point_and_health_check(engine: Engine) -> None:
    config = engine.config()
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == ["pydotcompute-server"]
    assert config["Cmd"] == ["/kernels"]
    assert config["ExposedPorts"] == {"50051/tcp": {}}
    assert config["StopSignal"] == "SIGTERM"
    assert config["Healthcheck"]["Test"] == ["CMD", "pydotcompute", "health"]


async def test_remote_calculator_runs_against_the_container(container: Container) -> None:
    calculator = ROOT / "examples" / "calculator.py"
    output = await asyncio.to_thread(run, sys.executable, calculator, "--target", container.target)
    assert output.splitlines()[:6] == [
        "  10 add 5 = 15.0",
        "  10 sub 5 = 5.0",
        "  10 mul 5 = 50.0",
        "  10 div 5 = 2.0",
        "  10 div 0 = ERROR: Division by zero",
        "Messages processed: 5",
    ]


async def test_daemon_does_not_run_as_root(container: Container) -> None:
    status, output = await container.execute("cat", f"/proc/{container.pid}/status")
    assert status == 0
    fields = dict(line.split(":\t", 1) for line in output.splitlines() if ":\t" in line)
    assert fields["Uid"].split() == ["10001"] * 4
    assert fields["Gid"].split() == ["10001"] * 4
    assert int(fields["CapEff"], 16) == 0


async def test_health_command_succeeds_while_the_daemon_serves_and_fails_where_none_does(
    engine: Engine, container: Container
) -> None:
    health = engine.config()["Healthcheck"]["Test"][1:]
    status, output = await container.execute(*health)
    assert status == 0, output
    # Nothing listens at port 1.
    status, output = await container.execute("env", "PYDOTCOMPUTE_TARGET=127.0.0.1:1", *health)
    assert status != 0, output


async def test_sigterm_drains_the_daemon_which_ends_with_status_0(container: Container) -> None:
    async with connect(container.target) as runtime:
        await runtime.launch("doubler")
        await runtime.activate("doubler")
        async with asyncio.TaskGroup() as group:
            reply = group.create_task(runtime.send_and_receive("doubler", Number(value=21.0), timeout=30.0))
            await line_with("doubling 21.0", container.process)
            assert await container.stop() == 0
    assert reply.result().value == 42.0


async def test_image_keeps_nothing_of_the_machine_that_built_it(container: Container) -> None:
    for leftover in ["/etc/pip.conf", "/run/secrets/pip.conf", "/run/secrets/ca.pem", "/wheel", "/source", "/pip"]:
        status, _ = await container.execute("test", "-e", leftover)
        assert status == 1, leftover
