"""Programs that tests use and Python cannot bring. Without one, the tests that need it are left out, which is said."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
INSTALLED = ROOT / ".tools"
"""Where `.ci/install-tools` puts what it installs."""
TOOLS = INSTALLED / "bin"

LEFT_OUT = "not installed: "
"""What the reason of a test begins with that was skipped for want of a program."""


OPT_IN = {"rust", "java"}
"""What `.ci/install-tools` brings only when it is named, because it takes minutes. It may be missing anywhere."""


class MissingToolError(Exception):
    """Something that a test needs is not here."""

    def __init__(self, tool: str) -> None:
        self.tool = tool
        super().__init__(f"{tool} is not installed; `.ci/install-tools` brings what tests need")


def find_tool(name: str) -> str:
    """The path of a program; MissingToolError without it."""
    # Debian has servers in /usr/sbin, which is not in everybody's path.
    path = os.pathsep.join([str(TOOLS), os.environ.get("PATH", os.defpath), "/usr/sbin"])
    found = shutil.which(name, path=path)
    if found is None:
        raise MissingToolError(name)
    return found


@contextmanager
def skipped_without_tools() -> Iterator[None]:
    """What misses a tool in here is skipped; in CI, where nothing may be missing, it fails."""
    try:
        yield
    except MissingToolError as missing:
        if os.environ.get("CI") == "true" and missing.tool not in OPT_IN:
            raise
        pytest.skip(f"{LEFT_OUT}{missing.tool}")


def tool(name: str) -> str:
    """The path of a program, for a test that is skipped without it."""
    with skipped_without_tools():
        return find_tool(name)
