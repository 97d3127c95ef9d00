"""Each row of the table in docs/workers.md of what is lost is what a test shows."""

import ast
from functools import cache
from pathlib import Path

from tests.tools import ROOT

TESTS = {
    "the actor raises": "workers/test_crashes.py::test_an_actor_that_raises_is_started_again_too",
    "the worker dies: a crash, a signal, `os._exit`": (
        "workers/test_crashes.py::test_the_error_says_how_the_worker_has_died"
    ),
    "the system has no memory left, and kills the worker": (
        "workers/test_crashes.py::test_the_error_says_that_the_system_had_no_memory_left"
    ),
    "the worker has more memory than its `memory_limit`": (
        "workers/test_limits.py::test_a_worker_that_takes_too_much_is_ended_and_the_caller_is_told"
    ),
    "a message takes longer than `time_limit`": (
        "workers/test_limits.py::test_a_worker_that_takes_too_much_is_ended_and_the_caller_is_told"
    ),
    "the worker shows no life for `hang_timeout`": "workers/test_limits.py::test_a_worker_that_shows_no_life_is_ended",
    'any of these, with `on_crash="redeliver"`': (
        "workers/test_redelivery.py::test_the_poison_alone_becomes_a_dead_letter_and_all_others_are_answered_in_order"
    ),
    "the actor computes for long": "workers/test_crashes.py::test_another_kernel_goes_on_beside_one_that_computes",
    "the actor does not end": "workers/test_crashes.py::test_a_worker_that_does_not_end_is_killed",
    "a template dies": "workers/test_templates.py::test_when_a_template_dies_workers_go_on_and_others_follow",
    "the process of the runtime dies": "chaos/test_workers.py::test_no_process_outlives_a_daemon_that_is_killed",
}
"""What happens, as the first cell of a row says it, and the test in which that happens to a real worker."""


def rows() -> list[list[str]]:
    """The cells of the table, without its head."""
    text = (ROOT / "docs/workers.md").read_text().partition("| what happens | what is lost |")[2]
    lines = text.partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@cache
def names_in(file: Path) -> set[str]:
    tree = ast.parse(file.read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_each_row_has_a_test() -> None:
    assert [row[0] for row in rows()] == [*TESTS]


def test_each_test_is_there() -> None:
    missing = [
        each
        for each in TESTS.values()
        if each.partition("::")[2] not in names_in(ROOT / "tests" / each.partition("::")[0])
    ]
    assert not missing


def test_each_row_says_who_is_told_and_what_then() -> None:
    for row in rows():
        assert len(row) == 4, row
        assert row[1], row
        assert row[3], row
