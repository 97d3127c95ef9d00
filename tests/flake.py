"""Runs the tests again and again on a machine that is busy, and tells which of them failed, and how often.

python -m tests.flake --runs 20 -- -n auto tests/contract
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

from tests.tools import ROOT


@contextmanager
def load(processes: int) -> Iterator[None]:
    """So many processes that take all the time they can get."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def name_of(case: ElementTree.Element) -> str:
    """The id of a test, which a report has as the name of a module, perhaps with a class, and of a function."""
    path, names = ROOT, [*case.get("classname", "").split("."), case.get("name", "")]
    while names and not path.with_suffix(".py").is_file():
        path /= names.pop(0)
    if not names:
        return f"{case.get('classname')} {case.get('name')}"
    return "::".join([path.with_suffix(".py").relative_to(ROOT).as_posix(), *names])


def run_once(arguments: list[str], folder: Path) -> tuple[int, set[str]]:
    """Run the tests; returns how many passed, and which failed. What they print goes to a file in the folder."""
    report, log = folder / "report.xml", folder / "output.log"
    command = [sys.executable, "-m", "pytest", f"--junitxml={report}", "-p", "no:cacheprovider", *arguments]
    with log.open("wb") as output:
        code = subprocess.run(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, check=False).returncode
    passed, failed = 0, set()
    if report.exists():
        for case in ElementTree.parse(report).getroot().iter("testcase"):
            if case.find("failure") is not None or case.find("error") is not None:
                failed.add(name_of(case))
            elif case.find("skipped") is None:
                passed += 1
    if code and not failed:
        failed.add(f"pytest itself, with exit code {code}")
    return passed, failed


def main() -> int:
    """Returns 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10, help="how often the tests are run")
    parser.add_argument("--load", type=int, default=2, help="how many processes keep the machine busy meanwhile")
    parser.add_argument("arguments", nargs="*", help="what pytest is told, after `--`")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="flake-"))
    failures: Counter[str] = Counter()
    with load(given.load):
        for number in range(1, given.runs + 1):
            begin, run = time.monotonic(), folder / str(number)
            run.mkdir()
            passed, failed = run_once(given.arguments, run)
            failures.update(failed)
            seconds = time.monotonic() - begin
            print(f"run {number:3}: {passed} passed, {len(failed)} failed, {seconds:.0f} s", flush=True)
    for name, count in failures.most_common():
        print(f"failed {count} of {given.runs} times: {name}")
    print(f"what the runs printed: {folder}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
