"""Runs tests on every Python that pyproject.toml names, and on newer ones that are here.

    python -m tests.pythons ARGUMENTS-OF-PYTEST

Pythons are found on PATH and in pyenv. Each gets a virtual environment, `.venv-3.12` and so on; the Python that runs
this uses its own. With CI=true that one is left out, since `make test` has used it, and none that pyproject.toml names
may be missing.
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = ROOT / "pyproject.toml"
OWN = f"{sys.version_info.major}.{sys.version_info.minor}"
NEWER = ("3.14",)
"""Pythons that are promised nothing yet: run where they are here and what the tests need can be installed there."""
PROBE = """
import ensurepip, platform, sys, venv
print(platform.python_implementation(), *sys.version_info[:2], sys.executable)
"""
"""Fails without what virtual environments are made with, which some systems leave out."""


def named() -> list[str]:
    """The Pythons that pyproject.toml promises to run on, such as 3.12."""
    classifiers = tomllib.loads(PYPROJECT.read_text())["project"]["classifiers"]
    found = (re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", classifier) for classifier in classifiers)
    return [match[1] for match in found if match]


def find(version: str) -> str | None:
    """The path of a Python of this version that runs and can make virtual environments."""
    return next((path for each in candidates(version) if (path := runs(each, version))), None)


def candidates(version: str) -> Iterator[Path]:
    for folder in os.get_exec_path():
        yield Path(folder) / f"python{version}"
    yield from sorted(pyenv_versions(version), key=lambda path: int(path.parts[-3].rpartition(".")[2]), reverse=True)


def pyenv_versions(version: str) -> Iterator[Path]:
    """What pyenv has installed, whether it is activated or not."""
    root = os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv"
    if pyenv := shutil.which("pyenv"):
        root = subprocess.run([pyenv, "root"], capture_output=True, text=True).stdout.strip() or root
    for folder in (Path(root) / "versions").glob(f"{version}.*"):
        if re.fullmatch(rf"{re.escape(version)}\.\d+", folder.name):
            yield folder / "bin" / f"python{version}"


def runs(python: Path, version: str) -> str | None:
    """The path of the Python that answers, if it is one of this version. A shim of pyenv's can be there without it."""
    try:
        probed = subprocess.run([python, "-c", PROBE], capture_output=True, text=True, timeout=60)
    except OSError:
        return None
    told = probed.stdout.strip().split(maxsplit=3)
    return told[3] if probed.returncode == 0 and told[:3] == ["CPython", *version.split(".")] else None


def environment(version: str, python: str) -> str | None:
    """The Python of a virtual environment with all that the tests need; None if that cannot be installed."""
    if python == sys.executable and sys.prefix != sys.base_prefix:
        return python
    folder = ROOT / f".venv-{version}"
    made = str(folder / "bin" / "python")
    stamp = folder / "installed"
    wanted = f"{python}\n{PYPROJECT.read_text()}"
    if stamp.exists() and stamp.read_text() == wanted:
        return made
    pip = [made, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-e", ".[dev]"]
    for command in ([python, "-m", "venv", "--clear", str(folder)], pip):
        if subprocess.run(command, cwd=ROOT).returncode:
            return None
    stamp.write_text(wanted)
    return made


def passes(python: str, arguments: list[str]) -> bool:
    env = {"HYPOTHESIS_PROFILE": "quick", **os.environ}
    return subprocess.run([python, "-m", "pytest", *arguments], cwd=ROOT, env=env).returncode == 0


def main(arguments: list[str]) -> int:
    in_ci = os.environ.get("CI") == "true"
    promised = named()
    found = {version: find(version) for version in dict.fromkeys([*promised, *NEWER])} | {OWN: sys.executable}
    missing = [version for version in promised if found[version] is None]
    if in_ci and missing:
        print(f"pyproject.toml names Python {' and '.join(missing)}: neither on PATH nor in pyenv", file=sys.stderr)
        return 1
    outcomes: dict[str, str] = {}
    for version, python in found.items():
        if python is None:
            outcomes[version] = "left out: neither on PATH nor in pyenv"
        elif in_ci and version == OWN:
            outcomes[version] = "left out: `make test` has used it"
        elif (made := environment(version, python)) is None:
            outcomes[version] = f"{'failed' if version in promised else 'left out'}: what tests need is not installable"
        else:
            print(f"Python {version}: {python}", flush=True)
            outcomes[version] = "passed" if passes(made, arguments) else "failed"
    for version, outcome in outcomes.items():
        print(f"Python {version}: {outcome}")
    return 1 if any(outcome.startswith("failed") for outcome in outcomes.values()) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
