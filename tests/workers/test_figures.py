"""What the system says of a process, and of processes that ran out of memory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pydotcompute.workers.figures import allocated_bytes, figures_of, oom_kills


def test_a_process_has_figures_until_it_is_gone() -> None:
    figures = figures_of(os.getpid())
    assert figures is not None
    assert figures.resident_bytes > 1 << 20
    assert figures.cpu_seconds > 0
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert figures_of(gone.pid) is None
    assert allocated_bytes(gone.pid) == 0


def test_memory_that_a_process_allocates_counts() -> None:
    before = allocated_bytes(os.getpid())
    block = b"x" * (64 << 20)
    assert allocated_bytes(os.getpid()) - before > len(block) // 2


def test_the_name_of_a_program_may_contain_anything(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "statm").write_text("100 10 5 1 0 9 0")
    (tmp_path / "7" / "stat").write_text("7 (a) b (c) S 1 7 7 0 -1 4194304 1 0 0 0 300 200 0 0 20 0")
    figures = figures_of(7, tmp_path)
    assert figures is not None
    assert figures.cpu_seconds == 500 / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize(
    ("group", "file", "content"),
    [
        ("0::/system.slice/x", "system.slice/x/memory.events", "low 0\nmax 3\noom 1\noom_kill 5\n"),
        ("0::/", "memory.events", "oom_kill 5\n"),
        ("0::/../outside", "memory.events", "oom_kill 5\n"),
        ("4:memory:/y", "memory/y/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n"),
        ("4:cpu:/z\n5:memory,hugetlb:/y", "memory/memory.oom_control", "oom_kill 5\n"),
    ],
)
def test_the_control_group_says_how_many_ran_out_of_memory(tmp_path: Path, group: str, file: str, content: str) -> None:
    own, cgroups = tmp_path / "own", tmp_path / "cgroups"
    own.write_text(group + "\n")
    (cgroups / file).parent.mkdir(parents=True)
    (cgroups / file).write_text(content)
    assert oom_kills(cgroups, own) == 5


def test_without_control_groups_nobody_knows(tmp_path: Path) -> None:
    assert oom_kills(tmp_path, tmp_path / "none") is None
    (tmp_path / "own").write_text("0::/\n")
    assert oom_kills(tmp_path, tmp_path / "own") is None
