"""Every program that the documentation shows runs, and does what is shown."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.docs.pages import DIRECTIVES, NOT_PROGRAMS, PAGES, ROOT, RUNNABLE, Block, Command, blocks, commands, matches
from tests.docs.sandbox import Sandbox
from tests.tools import skipped_without_tools

ALL = [block for page in PAGES for block in blocks(page)]
PROGRAMS = [block for block in ALL if block.language in RUNNABLE]
FIRST_READ = {ROOT / "README.md", ROOT / "docs" / "contract.md"}
"""The pages whose programs run in the profile `quick` too."""


@pytest.fixture(scope="module")
def sandboxes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Path], Sandbox]]:
    """The sandbox of a page, which is closed when that of another page is asked for."""
    # Not a fixture with the page as its parameter: that would be made anew for each block.
    opened: dict[Path, Sandbox] = {}

    def sandbox(page: Path) -> Sandbox:
        if page not in opened:
            for other in opened.values():
                other.close()
            opened[page] = Sandbox(page, tmp_path_factory.mktemp(page.stem))
        return opened[page]

    yield sandbox
    for each in opened.values():
        each.close()


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(block, id=block.where, marks=() if block.page in FIRST_READ else pytest.mark.thorough)
        for block in PROGRAMS
    ],
)
def test_what_is_shown_runs(sandboxes: Callable[[Path], Sandbox], block: Block) -> None:
    if not block.is_run:
        pytest.skip(block.directives["not run"])
    with skipped_without_tools():
        sandboxes(block.page).run_through(block)


@pytest.mark.parametrize("block", [pytest.param(block, id=block.where) for block in ALL])
def test_every_block_says_what_it_is(block: Block) -> None:
    assert block.language in RUNNABLE | NOT_PROGRAMS
    assert block.directives.keys() <= DIRECTIVES
    assert block.directives.get("not run") != ""


BUILT_BY = {"Cargo.toml": "cargo ", "build.rs": "cargo ", "lib.rs": "cargo ", "pom.xml": "mvn "}
"""The commands that use a file without naming it."""


@pytest.mark.parametrize("block", [pytest.param(b, id=b.where) for b in ALL if "file" in b.directives])
def test_every_file_is_used_by_a_later_block(block: Block) -> None:
    name = Path(block.directives["file"])
    later = [other for other in blocks(block.page) if other.line > block.line]
    later = [other for other in later if other.is_run or "not run" in other.directives]
    forms = [name.name, f"built/{name.stem}.js", f"import {name.stem}", f"from {name.stem} "]
    forms += [f"--bin {name.stem}", f"example.{name.stem}", BUILT_BY.get(name.name, name.name)]
    assert any(form in other.text for other in later for form in forms)


@pytest.mark.parametrize("block", [pytest.param(b, id=b.where) for b in ALL if "output" in b.directives])
def test_every_output_is_that_of_the_python_block_before_it(block: Block) -> None:
    page = blocks(block.page)
    before = page[page.index(block) - 1]
    assert (before.language, before.is_run, "file" in before.directives) == ("python", True, False)


# -- the runner itself -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        (["a", "b"], "a\nb\n", True),
        (["a", "b"], "a\nc\n", False),
        (["a"], "a\nb\n", False),
        (["a", "..."], "a\nb\nc\n", True),
        (["...", "c"], "a\nb\nc\n", True),
        (["took ... s"], "took 0.25 s\n", True),
        (["took ... s"], "took 0.25\n s\n", False),
        (["a.b"], "axb\n", False),
    ],
)
def test_dots_stand_for_anything_and_all_else_for_itself(shown: list[str], printed: str, same: bool) -> None:
    assert matches(shown, printed) is same


PAGE = """
<!-- daemon -->
```console
$ pydotcompute-server examples/calculator.py \\
    --launch all
listening on 127.0.0.1:50051
```

```python
print("127.0.0.1:50051", 1 + 1)
```

<!-- output -->
```text
127.0.0.1:50051 {sum}
```

<!-- exit: 3 -->
```console
$ pydotcompute health
{health}
$ exit 3
```
"""


def written(folder: Path, sum: str = "2", health: str = "SERVING") -> Path:
    page = folder / "page.md"
    page.write_text(PAGE.format(sum=sum, health=health))
    return page


def test_commands_are_told_from_their_output(tmp_path: Path) -> None:
    daemon, _, _, health = blocks(written(tmp_path))
    assert commands(daemon) == [
        Command("pydotcompute-server examples/calculator.py \\\n    --launch all", ["listening on 127.0.0.1:50051"])
    ]
    assert commands(health) == [Command("pydotcompute health", ["SERVING"]), Command("exit 3", [])]
    assert health.directives == {"exit": "3"}


def test_a_page_that_tells_the_truth_passes_and_one_that_does_not_fails(tmp_path: Path) -> None:
    wrong = {"sum": "3", "health": "NOT_SERVING"}
    for name, values in (("truth", {}), ("lie", wrong)):
        folder = tmp_path / name
        folder.mkdir()
        page = written(folder, **values)
        daemon, python, _, health = blocks(page)
        sandbox = Sandbox(page, folder / "sandbox")
        outcomes = []
        for block in (daemon, python, health):
            try:
                sandbox.run_through(block)
                outcomes.append(True)
            except AssertionError:
                outcomes.append(False)
        sandbox.close()
        assert outcomes == [True, not values, not values]
