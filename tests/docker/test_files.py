"""What the Docker files promise and no build of the target cpu can show."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from pydotcompute_server.limits import Limits

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"


def stages() -> dict[str, list[tuple[str, list[str]]]]:
    """The Dockerfile's instructions, as (word, arguments), by the name of their stage."""
    lines = [line for line in (DOCKER / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    found: dict[str, list[tuple[str, list[str]]]] = {}
    stage: list[tuple[str, list[str]]] = []
    for instruction in "\n".join(lines).replace("\\\n", " ").splitlines():
        word, *arguments = shlex.split(instruction) or [""]
        if word == "FROM":
            stage = found[arguments[-1]] = []
        elif word:
            stage.append((word, arguments))
    return found


def test_targets_cpu_and_cuda_differ_only_in_their_environments() -> None:
    cpu, cuda = stages()["cpu"], stages()["cuda"]
    assert [word for word, _ in cpu] == [word for word, _ in cuda]
    for (word, in_cpu), (_, in_cuda) in zip(cpu, cuda, strict=True):
        match word:
            case "COPY":
                assert in_cpu == ["--from=cpu-environment", "/opt/pydotcompute", "/opt/pydotcompute"]
                assert in_cuda == ["--from=cuda-environment", "/opt/pydotcompute", "/opt/pydotcompute"]
            case "ENV":
                assert in_cuda == [*in_cpu, "CUPY_CACHE_DIR=/tmp/cupy"]
            case _:
                assert in_cuda == in_cpu


def test_every_package_is_installed_by_its_hash() -> None:
    commands = [" ".join(arguments) for stage in stages().values() for word, arguments in stage if word == "RUN"]
    pips = [part for command in commands for part in command.split("&&") if "/pip/bin/pip" in part]
    locked = [re.search(r"--require-hashes --requirement /?(?:requirements/)?(\S+)", part) for part in pips]
    assert [found[1] for found in locked if found] == ["image-build.txt", "image.txt", "image-cuda.txt"]
    for part, found in zip(pips, locked, strict=True):
        assert found or "--no-deps --no-build-isolation" in part or "--no-deps --no-index" in part, part


def test_the_headers_of_the_lock_are_those_of_the_base() -> None:
    base = re.search(r"nvidia/cuda:(\d+\.\d+)\.", (DOCKER / "Dockerfile").read_text())
    assert base is not None
    assert f"nvidia-cuda-runtime-cu12=={base[1]}." in (ROOT / "requirements" / "image-cuda.txt").read_text()


@pytest.mark.parametrize("name", ["cpu", "cuda"])
def test_compose_confines_the_service_and_builds_it_from_an_existing_target(name: str) -> None:
    service: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"][name]
    assert service["user"] == "10001:10001"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["environment"] == {"PYDOTCOMPUTE_INSECURE": "1"}
    assert all(port.startswith("127.0.0.1:") for port in service["ports"]), "so nobody else reaches it"
    assert service["mem_limit"]
    assert service["pids_limit"] >= 2 * Limits.max_threads, "threads of kernels, and all others"
    build = service["build"]
    assert (DOCKER / build["context"] / build["dockerfile"]).samefile(DOCKER / "Dockerfile")
    assert build["target"] in stages()
    sources = {mounted: DOCKER / folder for folder, mounted, _ in (v.split(":") for v in service["volumes"])}
    assert (sources["/kernels"] / "calculator.py").is_file()
