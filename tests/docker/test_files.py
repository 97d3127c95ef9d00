"""What the Docker files promise and no build of the target cpu can show."""

import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

DOCKER = Path(__file__).resolve().parents[2] / "docker"


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


@pytest.mark.parametrize("name", ["cpu", "cuda"])
def test_compose_confines_the_service_and_builds_it_from_an_existing_target(name: str) -> None:
    service: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"][name]
    assert service["user"] == "10001:10001"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    build = service["build"]
    assert (DOCKER / build["context"] / build["dockerfile"]).samefile(DOCKER / "Dockerfile")
    assert build["target"] in stages()
    sources = {mounted: DOCKER / folder for folder, mounted, _ in (v.split(":") for v in service["volumes"])}
    assert (sources["/kernels"] / "calculator.py").is_file()
