"""The workflows of .github/ fit the rest of the repository. actionlint and zizmor look at them by themselves."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.project.test_lock import PYTHONS, ROOT

WORKFLOWS = {path.name: path for path in sorted((ROOT / ".github" / "workflows").glob("*.yml"))}
PINNED = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")

each_workflow = pytest.mark.parametrize("path", [pytest.param(path, id=name) for name, path in WORKFLOWS.items()])


def jobs(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text())["jobs"]
    return found


def test_ci_runs_on_each_python_and_machine_that_is_supported() -> None:
    matrix = jobs(WORKFLOWS["ci.yml"])["test"]["strategy"]["matrix"]
    assert matrix == {"python": PYTHONS, "runner": ["ubuntu-24.04", "ubuntu-24.04-arm"]}


@each_workflow
def test_every_action_is_pinned_by_a_commit_and_says_its_version(path: Path) -> None:
    used = re.findall(r"uses: (.*)", path.read_text())
    assert used
    assert [each for each in used if not PINNED.fullmatch(each) and not each.startswith("./")] == []


def test_an_action_has_one_version_in_all_workflows() -> None:
    pins: dict[str, set[str]] = {}
    for path in WORKFLOWS.values():
        for name, pin in re.findall(r"uses: ([^@\s]+)@(.*)", path.read_text()):
            pins.setdefault(name, set()).add(pin)
    assert {name: found for name, found in pins.items() if len(found) > 1} == {}


@each_workflow
def test_every_job_has_a_limit_and_no_more_permissions_than_it_names(path: Path) -> None:
    assert yaml.safe_load(path.read_text())["permissions"] == {}
    for name, job in jobs(path).items():
        assert "permissions" in job, name
        assert "timeout-minutes" in job or "uses" in job, name


@each_workflow
def test_what_a_workflow_makes_is_there_to_be_made(path: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for job in jobs(path).values():
        for step in job.get("steps", []):
            wanted = set(re.findall(r"\bmake ([a-z][\w-]*)", step.get("run", "")))
            assert wanted <= targets
            for script in re.findall(r"(?:^|\s)(\.ci/[\w-]+)", step.get("run", "")):
                assert (ROOT / script).exists()


def test_what_the_oldest_versions_lack_is_a_test_that_exists() -> None:
    left_out = re.findall(r"--deselect (\S+)::(\S+)", (ROOT / "Makefile").read_text())
    assert left_out
    for path, name in left_out:
        assert f"def {name}(" in (ROOT / path).read_text()
