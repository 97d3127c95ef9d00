"""What a release says of itself."""

import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

import pydotcompute

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("pyproject.toml", "CHANGELOG.md", "changelog.d", "pydotcompute/__init__.py", ".ci/release-notes")


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """A copy of what a release is made of, with one fragment, after `towncrier build`."""
    for part in PARTS:
        (tmp_path / part).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        copy(ROOT / part, tmp_path / part)
    (tmp_path / "changelog.d" / "+words.fixed.md").write_text("What was [wrong](docs/wire.md),\nand is no more.\n")
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    subprocess.run(["git", "add", "."], cwd=tmp_path, check=True)
    towncrier = Path(sysconfig.get_path("scripts"), "towncrier")
    version = ["--version", pydotcompute.__version__]
    subprocess.run([towncrier, "build", "--yes", *version], cwd=tmp_path, check=True, capture_output=True)
    return tmp_path


def notes(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([folder / ".ci/release-notes", *arguments], capture_output=True, text=True)


def test_the_fragments_become_the_section_of_the_release(released: Path) -> None:
    assert sorted(path.name for path in (released / "changelog.d").iterdir()) == ["README.md", "template.md"]
    changelog = (released / "CHANGELOG.md").read_text()
    assert re.findall(r"^## \[.*", changelog, re.MULTILINE)[0].startswith(f"## [{pydotcompute.__version__}] - ")
    assert "\n### Fixed\n\n- " in changelog
    assert "\n- What was [wrong](docs/wire.md),\n  and is no more.\n" in changelog


def test_the_notes_of_a_tag_are_its_section_with_links_that_lead_somewhere(released: Path) -> None:
    found = notes(released, f"v{pydotcompute.__version__}", "https://example.com/blob/tag")
    assert (found.returncode, found.stderr) == (0, "")
    assert "- What was [wrong](https://example.com/blob/tag/docs/wire.md),\n" in found.stdout
    assert "\n## " not in found.stdout


def test_a_tag_that_is_not_the_version_has_no_notes(released: Path) -> None:
    found = notes(released, "v0.0.7")
    assert (found.returncode, found.stdout) == (1, "")
    assert "the tag is v0.0.7" in found.stderr


def test_a_version_that_the_changelog_does_not_know_has_no_notes(released: Path) -> None:
    (released / "CHANGELOG.md").write_text("# Changelog\n")
    found = notes(released, f"v{pydotcompute.__version__}")
    assert (found.returncode, found.stdout) == (1, "")
    assert "says nothing of" in found.stderr
