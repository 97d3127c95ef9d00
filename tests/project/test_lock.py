"""requirements/ has a version, with its hashes, of everything that pyproject.toml asks for."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
LOCKED = ("dev", "generate", "release", "image", "image-cuda", "image-build")
CLASSIFIER = "Programming Language :: Python :: 3."

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NAME = canonicalize_name(PROJECT["name"])
PYTHONS = [
    entry.removeprefix("Programming Language :: Python :: ") for entry in PROJECT["classifiers"] if CLASSIFIER in entry
]
MACHINES = ("x86_64", "aarch64")


def environment(python: str, machine: str) -> dict[str, str]:
    """What markers see there, where it is not what they see here."""
    return {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "platform_machine": machine,
        "sys_platform": "linux",
    }


def asked_for(extra: str) -> Iterator[Requirement]:
    """All that this extra asks for, with what the extras that it names do."""
    for text in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"][extra]]:
        requirement = Requirement(text)
        if canonicalize_name(requirement.name) == NAME:
            for other in requirement.extras:
                yield from asked_for(other)
        else:
            yield requirement


def pins(lock: str) -> list[tuple[Requirement, list[str]]]:
    """Each pin with its hashes."""
    lines = (ROOT / "requirements" / f"{lock}.txt").read_text().replace("\\\n", " ").splitlines()
    found = []
    for line in lines:
        pin, *hashes = line.partition("#")[0].strip().split(" --hash=")
        if pin.strip():
            found.append((Requirement(pin.strip()), [each.strip() for each in hashes]))
    return found


@pytest.mark.parametrize("lock", LOCKED)
@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_has_what_pyproject_asks_for(lock: str, python: str, machine: str) -> None:
    there = environment(python, machine)
    locked: dict[str, Version] = {}
    for pin, _ in pins(lock):
        if pin.marker is None or pin.marker.evaluate(there):
            (only,) = pin.specifier
            assert locked.setdefault(canonicalize_name(pin.name), Version(only.version)) == Version(only.version)
    for requirement in asked_for(lock):
        if requirement.marker is None or requirement.marker.evaluate(there):
            version = locked.get(canonicalize_name(requirement.name))
            assert version in requirement.specifier if version else False, f"{requirement}: run `make lock`"


@pytest.mark.parametrize("lock", LOCKED)
def test_every_pin_is_one_version_and_has_hashes(lock: str) -> None:
    for pin, hashes in pins(lock):
        assert [each.operator for each in pin.specifier] == ["=="]
        assert hashes
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", each) for each in hashes)


def test_the_compatibility_page_has_the_oldest_versions() -> None:
    page = (ROOT / "docs" / "compatibility.md").read_text()
    oldest = {r.name: next(s.version for s in r.specifier if s.operator == ">=") for r in asked_for("client")}
    rows = re.findall(r"^\| `(\w+)` \| (\S+) and later \|", page, re.MULTILINE)
    assert len(rows) == 3
    assert {name: oldest[name] for name, _ in rows} == dict(rows)
    assert f"| Python | {', '.join(PYTHONS)}, on Linux |" in page
