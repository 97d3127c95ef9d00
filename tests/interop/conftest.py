"""Clients in other languages, made as their readers make them: from what the daemon exports, by the pages' commands."""

import os
import shutil
import subprocess
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.tools import INSTALLED, ROOT, TOOLS, MissingToolError, find_tool, skipped_without_tools

HERE = Path(__file__).parent
SCRIPTS = Path(sysconfig.get_path("scripts"))
BUILD_SECONDS = 100.0
LONG_BUILD_SECONDS = 500.0
RUN_SECONDS = 60.0
NODE_MODULES = INSTALLED / "typescript" / "node_modules"


def run(*command: str | Path, timeout: float = RUN_SECONDS, **options: Any) -> str:
    """What a program prints, which must succeed; its stderr is shown if it does not."""
    done: subprocess.CompletedProcess[str] = subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, **options
    )
    assert done.returncode == 0, f"{command}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def daemon(start_daemon: Callable[..., Any]) -> Any:
    return start_daemon(str(ROOT / "examples" / "calculator.py"), "--launch", "calculator")


@pytest.fixture
def channel(daemon: Any) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(daemon.target) as channel:
        yield channel


@dataclass
class Client:
    """Programs in one language, ready to run."""

    language: str
    _command: Callable[[str], list[str]]
    _target: str

    def run(self, program: str) -> list[str]:
        """The lines that one of them prints."""
        return run(*self._command(program), self._target).splitlines()


def _generate(language: str, folder: Path, target: str) -> None:
    """Copy a client's sources, and generate the code that they use."""
    ignored = shutil.ignore_patterns("gen", "built", "node_modules", "target")
    # They are as new as this run: Cargo tells by their times that they are others than those of the run before.
    shutil.copytree(HERE / language, folder, ignore=ignored, copy_function=shutil.copy)
    exporting = ("--target", target, "proto", "export", "calculator", "--daemon", "--out", str(folder / "protos"))
    run(SCRIPTS / "pydotcompute", *exporting)


def _buf(folder: Path, *arguments: str) -> None:
    environment = {**os.environ, "PATH": os.pathsep.join([str(TOOLS), os.environ.get("PATH", os.defpath)])}
    run(SCRIPTS / "buf", "generate", *arguments, cwd=folder, env=environment)


def _go(folder: Path, target: str) -> Callable[[str], list[str]]:
    go = find_tool("go")
    for plugin in ("protoc-gen-go", "protoc-gen-go-grpc"):
        find_tool(plugin)
    _generate("go", folder, target)
    _buf(folder, "protos", "--path", "protos/calculator", "--path", "protos/pydotcompute")
    # What `.ci/install-tools` has downloaded must do.
    offline = {**os.environ, "GOPROXY": "off", "GOFLAGS": "-mod=readonly"}
    (folder / "bin").mkdir()
    run(go, "build", "-o", "bin/", "./...", cwd=folder, env=offline, timeout=BUILD_SECONDS)
    return lambda program: [str(folder / "bin" / program)]


def _typescript(folder: Path, target: str) -> Callable[[str], list[str]]:
    node = find_tool("node")
    if not NODE_MODULES.is_dir():
        raise MissingToolError(NODE_MODULES.name)
    _generate("typescript", folder, target)
    (folder / "node_modules").symlink_to(NODE_MODULES)
    _buf(folder, "protos")
    run(node, NODE_MODULES / ".bin" / "tsc", cwd=folder, timeout=BUILD_SECONDS)
    return lambda program: [node, str(folder / "built" / f"{program}.js")]


def _rust(folder: Path, target: str) -> Callable[[str], list[str]]:
    cargo, built = find_tool("cargo"), _installed("rust") / "target"
    _generate("rust", folder, target)
    run(cargo, "build", "--locked", "--offline", "--target-dir", built, cwd=folder, timeout=LONG_BUILD_SECONDS)
    return lambda program: [str(built / "debug" / program)]


def _java(folder: Path, target: str) -> Callable[[str], list[str]]:
    mvn, java, repository = find_tool("mvn"), find_tool("java"), _installed("java") / "repository"
    _generate("java", folder, target)
    offline = ("--quiet", "--batch-mode", "--offline", f"-Dmaven.repo.local={repository}")
    run(mvn, *offline, "process-classes", cwd=folder, timeout=LONG_BUILD_SECONDS)
    classes = os.pathsep.join([str(folder / "target" / "classes"), str(folder / "target" / "dependency" / "*")])
    return lambda program: [java, "-cp", classes, f"example.{program.capitalize()}"]


def _installed(language: str) -> Path:
    """What `.ci/install-tools` brings for a language."""
    if not (INSTALLED / f"{language}.installed").exists():
        raise MissingToolError(language)
    return INSTALLED / language


LANGUAGES = {"go": _go, "typescript": _typescript, "rust": _rust, "java": _java}


@pytest.fixture(scope="session", params=LANGUAGES)
def client(request: pytest.FixtureRequest, daemon: Any, tmp_path_factory: pytest.TempPathFactory) -> Client:
    language: str = request.param
    with skipped_without_tools():
        command = LANGUAGES[language](tmp_path_factory.mktemp("clients") / language, daemon.target)
    return Client(language, command, daemon.target)
