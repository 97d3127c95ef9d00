"""What the daemon makes of the files, directories and modules that it is told to load."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pydotcompute.ring_kernels import declaration
from pydotcompute_server.loading import NAMESPACE, LoadError, load_kernel_types

KERNEL = '''
from pydotcompute import message, ring_kernel

@message
class Note:
    text: str = ""

@ring_kernel(kernel_id="{name}", input_type=Note, output_type=Note)
async def actor(ctx):
    """From {name}."""
'''


@pytest.fixture(autouse=True)
def forget(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Leaves no trace of what a test has loaded. The test runs in a directory of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(declaration, "_registry", dict(declaration._registry))
    before = dict(sys.modules)
    yield
    for name in set(sys.modules) - set(before):
        del sys.modules[name]


def write(path: str, text: str) -> str:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)
    return path


def kernel(path: str, name: str) -> str:
    """A file that declares a kernel type of this name."""
    return write(path, KERNEL.format(name=name))


def documentation(*sources: str) -> dict[str, str]:
    return {name: kernel_type.documentation for name, kernel_type in load_kernel_types(sources).items()}


def failure(*sources: str) -> str:
    with pytest.raises(LoadError) as failed:
        load_kernel_types(sources)
    text = str(failed.value)
    assert "\n" not in text
    return text


# -- what can be loaded ------------------------------------------------------------------------------------------------


def test_a_file_gives_the_types_it_declares_and_no_others() -> None:
    kernel("before.py", "earlier")
    load_kernel_types(["before.py"])
    assert documentation(kernel("after.py", "later")) == {"later": "From later."}


def test_files_and_directories_and_modules_can_be_mixed() -> None:
    kernel("one.py", "first")
    kernel("more/two.py", "second")
    kernel("more/three.py", "third")
    kernel("a_package/inside.py", "fourth")
    write("a_package/__init__.py", "")
    sys.path.insert(0, str(Path.cwd()))
    found = documentation("one.py", "more", "a_package.inside")
    assert found == {name: f"From {name}." for name in ("first", "third", "second", "fourth")}


def test_a_file_can_import_what_lies_beside_it() -> None:
    write("kernels/helper_of_this_test.py", "NAME = 'helped'\n")
    write("kernels/main.py", "from helper_of_this_test import NAME\n" + KERNEL.format(name="main"))
    assert list(load_kernel_types(["kernels/main.py"])) == ["main"]


def test_a_directory_may_hold_files_without_kernels_of_which_those_with_an_underscore_are_not_run() -> None:
    kernel("kernels/actor.py", "a")
    write("kernels/constants.py", "LIMIT = 3\n")
    write("kernels/_scratch.py", "raise AssertionError('not to be run')\n")
    assert list(load_kernel_types(["kernels"])) == ["a"]


def test_a_file_that_another_one_imports_declares_its_types_once() -> None:
    kernel("kernels/shared_by_this_test.py", "shared")
    write("kernels/a_user.py", "import shared_by_this_test\n" + KERNEL.format(name="user"))
    assert sorted(load_kernel_types(["kernels"])) == ["shared", "user"]


def test_a_module_may_be_named_twice() -> None:
    kernel("module_of_this_test.py", "twice")
    sys.path.insert(0, str(Path.cwd()))
    assert list(load_kernel_types(["module_of_this_test", "module_of_this_test"])) == ["twice"]


def test_a_file_named_like_a_module_of_the_library_takes_nothing_away_from_it() -> None:
    kernel("json.py", "mine")
    assert list(load_kernel_types(["json.py"])) == ["mine"]
    import json

    assert json.loads("[1]") == [1]


def test_the_package_of_the_types_is_named_after_the_file() -> None:
    from pydotcompute.schema.introspect import introspect

    (loaded,) = load_kernel_types([kernel("weather.py", "forecast")]).values()
    assert loaded.input_type is not None
    assert loaded.input_type.__module__ == f"{NAMESPACE}.weather"
    assert introspect(loaded.input_type).full_name == "weather.v1.Note"


def test_a_type_that_is_not_registered_is_not_found() -> None:
    hidden = KERNEL.format(name="hidden").replace('kernel_id="hidden"', 'kernel_id="hidden", auto_register=False')
    assert list(load_kernel_types([write("two.py", hidden + KERNEL.format(name="shown"))])) == ["shown"]


# -- what cannot -------------------------------------------------------------------------------------------------------


def test_a_file_that_does_not_exist_is_named() -> None:
    assert failure("gone.py") == "gone.py: no such file"
    assert failure("gone/away") == "gone/away: no such file"


def test_a_module_that_does_not_exist_is_named() -> None:
    assert failure("no_such_module") == "no_such_module: ModuleNotFoundError: No module named 'no_such_module'"


def test_a_syntax_error_is_shown_with_its_line() -> None:
    text = failure(write("typo.py", "x = 1\ndef f(:\n"))
    assert text.startswith("typo.py: line 2: SyntaxError: ")


@pytest.mark.parametrize("absolute", [False, True])
def test_an_error_is_shown_with_the_line_of_the_file_that_it_came_through(absolute: bool) -> None:
    path = write("broken.py", "import json\n\njson.loads('{')\n")
    path = str(Path(path).absolute()) if absolute else path
    assert failure(path).startswith(f"{path}: line 3: JSONDecodeError: ")


def test_a_file_that_ends_the_program_ends_only_its_loading() -> None:
    assert failure(write("quits.py", "import sys\nsys.exit(3)\n")) == "quits.py: line 2: SystemExit: 3"


def test_a_message_class_that_no_wire_can_carry_is_shown_with_its_field() -> None:
    text = failure(write("complex.py", KERNEL.format(name="c").replace('text: str = ""', "value: complex = 0j")))
    assert text.startswith("complex.py: line ")
    assert "$.value" in text


@pytest.mark.parametrize("others", [[], ["good.py"]])
def test_a_file_without_kernels_says_what_to_do(others: list[str]) -> None:
    kernel("good.py", "good")
    hint = "declares no ring kernel; decorate an async function with @ring_kernel"
    assert failure(*others, write("empty.py", "")) == f"empty.py: {hint}"


def test_a_directory_without_files_is_named() -> None:
    Path("bare").mkdir()
    assert failure("bare") == "bare: no .py file in this directory"


@pytest.mark.parametrize("sources", [("one.py", "two.py"), ("both",)])
def test_a_type_that_two_files_declare_is_refused_with_both_names(sources: tuple[str, ...]) -> None:
    directory = "both/" if sources == ("both",) else ""
    kernel(f"{directory}one.py", "same")
    kernel(f"{directory}two.py", "same")
    write(f"{directory}two.py", "\n" + Path(f"{directory}two.py").read_text())
    assert failure(*sources) == f"{directory}two.py: kernel type 'same' is already declared in {directory}one.py"


def test_two_files_of_one_name_are_refused_with_both_paths() -> None:
    kernel("a/kernels.py", "first")
    kernel("b/kernels.py", "second")
    text = failure("a/kernels.py", "b/kernels.py")
    assert text.startswith("b/kernels.py: another file of kernels is called kernels.py too: ")
    assert text.endswith("a/kernels.py")


def test_a_file_that_is_named_twice_is_refused() -> None:
    assert "is called once.py too" in failure(kernel("once.py", "once"), "once.py")


def test_an_interrupt_is_a_fault_of_the_file_like_any_other() -> None:
    text = failure(write("interrupted.py", "raise KeyboardInterrupt('no')\n"))
    assert text == "interrupted.py: line 1: KeyboardInterrupt: no"
