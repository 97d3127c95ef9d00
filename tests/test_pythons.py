"""Which Pythons `make test-pythons` finds."""

import sys
from pathlib import Path

import pytest

from tests import pythons

VERSION = pythons.OWN


def put(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def pyenv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root of pyenv, on a machine without any Python, and where nothing needs to be installed."""
    monkeypatch.setattr(pythons, "environment", lambda version, python: python)
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path / "pyenv"


def test_the_pythons_that_pyproject_names_are_the_promised_ones() -> None:
    assert {"3.11", "3.12", "3.13"} <= set(pythons.named())
    assert VERSION in [*pythons.named(), *pythons.NEWER]


def test_a_shim_without_its_version_is_passed_over_for_what_pyenv_has(tmp_path: Path, pyenv: Path) -> None:
    put(tmp_path / "bin" / f"python{VERSION}", "echo command not found >&2; exit 127")
    assert pythons.find(VERSION) is None
    put(pyenv / "versions" / f"{VERSION}.9" / "bin" / f"python{VERSION}", "exit 1")
    real = pyenv / "versions" / f"{VERSION}.8" / "bin" / f"python{VERSION}"
    put(real, f'exec {sys.executable} "$@"')
    assert pythons.find(VERSION) == sys.executable


def test_a_python_of_another_version_is_none(tmp_path: Path, pyenv: Path) -> None:
    put(tmp_path / "bin" / "python3.99", f'exec {sys.executable} "$@"')
    assert pythons.find("3.99") is None


@pytest.mark.parametrize(("ci", "code"), [("true", 1), ("", 0)])
def test_a_missing_python_fails_in_ci_and_is_told_elsewhere(
    ci: str, code: int, pyenv: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CI", ci)
    monkeypatch.setattr(pythons, "passes", lambda python, arguments: True)
    monkeypatch.setattr(pythons, "named", lambda: ["3.98", "3.99", VERSION])
    assert pythons.main([]) == code
    out, err = capfd.readouterr()
    if ci:
        assert err == "pyproject.toml names Python 3.98 and 3.99: neither on PATH nor in pyenv\n"
    else:
        assert "Python 3.99: left out: neither on PATH nor in pyenv\n" in out
        assert f"Python {VERSION}: passed\n" in out


def test_a_failure_on_one_python_is_the_failure_of_all(monkeypatch: pytest.MonkeyPatch, pyenv: Path) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(pythons, "passes", lambda python, arguments: False)
    assert pythons.main([]) == 1
