"""What the daemon makes of the files, directories and modules that it is told to load."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pydotcompute.ring_kernels import declaration
from pydotcompute_server.loading import LoadError, load_kernel_types

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


@pytest.mark.parametrize("again", ["once.py", "./once.py", "once", "."])
def test_a_file_that_is_named_twice_is_loaded_once(again: str) -> None:
    kernel("once.py", "once")
    write("once.py", Path("once.py").read_text() + "with open('runs', 'a') as runs: runs.write('x')\n")
    assert list(load_kernel_types(["once.py", again])) == ["once"]
    assert list(load_kernel_types([again])) == ["once"]
    assert Path("runs").read_text() == "x"


def test_a_file_that_another_one_imports_is_the_same_module_to_both() -> None:
    kernel("both/ours.py", "ours")
    write(
        "both/theirs.py", "from ours import Note\n" + KERNEL.format(name="theirs").replace("class Note", "class Other")
    )
    assert sorted(load_kernel_types(["both/theirs.py", "both/ours.py"])) == ["ours", "theirs"]
    assert sys.modules["theirs"].Note is sys.modules["ours"].Note


# -- packages ----------------------------------------------------------------------------------------------------------

RELATIVE = KERNEL.replace('@message\nclass Note:\n    text: str = ""', "from .deep.messages import Note")


@pytest.mark.parametrize("source", ["project/src/pack", "project/src/pack/actors.py", "pack", "pack.actors"])
def test_a_package_is_loaded_with_its_relative_imports(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write("project/src/pack/__init__.py", "")
    write("project/src/pack/deep/__init__.py", "")
    write("project/src/pack/deep/messages.py", KERNEL.split("@ring_kernel")[0])
    write("project/src/pack/actors.py", RELATIVE.format(name="inside"))
    if "/" not in source:
        monkeypatch.chdir("project/src")
    (loaded,) = load_kernel_types([source]).values()
    assert loaded.input_type is not None
    assert loaded.input_type.__module__ == "pack.deep.messages"
    assert loaded.func.__module__ == "pack.actors"


def test_a_package_may_declare_its_kernels_in_its_init() -> None:
    kernel("pack_with_init/__init__.py", "in_init")
    assert list(load_kernel_types(["pack_with_init"])) == ["in_init"]


def test_a_module_of_the_current_folder_is_found_by_its_name() -> None:
    kernel("local_module_of_this_test.py", "local")
    assert list(load_kernel_types(["local_module_of_this_test"])) == ["local"]


def test_a_module_of_the_current_folder_does_not_give_way_to_another_in_silence() -> None:
    kernel("json.py", "mine")
    text = failure("json")
    assert re.fullmatch(r"json: the name 'json' belongs to .*; give the path instead, json.py", text)


# -- files of one name -------------------------------------------------------------------------------------------------


def test_two_files_of_one_name_in_two_folders_are_two_modules() -> None:
    kernel("a/kernels.py", "first")
    kernel("b/kernels.py", "second")
    assert list(load_kernel_types(["a/kernels.py", "b/kernels.py"])) == ["first", "second"]


@pytest.mark.parametrize("sources", [("a", "b", "c"), ("a/main.py", "b/main.py", "c/main.py")])
def test_each_folder_imports_the_helper_of_its_own(sources: tuple[str, ...]) -> None:
    for folder in "abc":
        write(f"{folder}/utils.py", "from constants import NAME\nclass Helper: name = NAME\n")
        write(f"{folder}/constants.py", f"NAME = 'helper of {folder}'\n")
        main = "from utils import Helper\n" + KERNEL.format(name=folder) + "actor.helper = Helper.name\n"
        write(f"{folder}/main.py", main)
    loaded = load_kernel_types(sources)
    assert {name: getattr(each.func, "helper", None) for name, each in loaded.items()} == {
        name: f"helper of {name}" for name in "abc"
    }
    assert sys.modules["utils"].Helper.name == "helper of a"


def test_a_file_named_like_a_module_of_the_library_takes_nothing_away_from_it() -> None:
    kernel("json.py", "mine")
    assert list(load_kernel_types(["json.py"])) == ["mine"]
    import json

    assert json.loads("[1]") == [1]


def test_the_package_of_the_types_is_named_after_the_file() -> None:
    from pydotcompute.schema.introspect import introspect

    (loaded,) = load_kernel_types([kernel("weather.py", "forecast")]).values()
    assert loaded.input_type is not None
    assert loaded.input_type.__module__ == "weather"
    assert introspect(loaded.input_type).full_name == "weather.v1.Note"


def test_a_type_that_is_not_registered_is_not_found() -> None:
    hidden = KERNEL.format(name="hidden").replace('kernel_id="hidden"', 'kernel_id="hidden", auto_register=False')
    assert list(load_kernel_types([write("two.py", hidden + KERNEL.format(name="shown"))])) == ["shown"]


# -- what cannot -------------------------------------------------------------------------------------------------------


def test_a_file_that_does_not_exist_is_named() -> None:
    assert failure("gone.py") == "gone.py: no such file"
    assert failure("gone/away") == "gone/away: no such file"


def test_a_module_that_does_not_exist_is_named() -> None:
    assert failure("no_such_module") == "no_such_module: no such file, folder or module"
    assert failure("no_such_package.inside") == "no_such_package.inside: no such file, folder or module"


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("sensor.py", "sensors.py"),
        ("sensor", "sensors.py"),
        ("kernels/sensors", "kernels/sensors.py"),
        ("kernels.sensor", "kernels/sensors.py"),
        ("kernel/sensors.py", None),
        ("kernel", "kernels"),
    ],
)
def test_a_source_that_does_not_exist_is_answered_with_one_that_may_be_meant(asked: str, meant: str | None) -> None:
    kernel("sensors.py", "a")
    kernel("kernels/sensors.py", "b")
    text = failure(asked)
    assert text.startswith(f"{asked}: no such file")
    assert text.partition("; ")[2] == (f"did you mean {meant}?" if meant else "")


def test_a_module_that_a_source_misses_is_not_taken_for_the_source() -> None:
    write("asks.py", "import no_such_module\n")
    expected = "line 1: ModuleNotFoundError: No module named 'no_such_module'"
    assert failure("asks") == f"asks: {expected}"
    assert failure("asks.py") == f"asks.py: {expected}"


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


def test_a_type_that_a_file_declares_twice_is_refused_with_both_lines() -> None:
    twice = KERNEL.format(name="same") + KERNEL.format(name="same").replace("async def actor", "async def another")
    hint = "give one of them another kernel_id"
    assert (
        failure(write("twice.py", twice))
        == f"twice.py: kernel type 'same' is declared twice, in lines 8 and 18; {hint}"
    )
    loop = "for _ in range(2):\n" + "".join(f"    {line}\n" for line in KERNEL.format(name="same").splitlines())
    assert failure(write("loop.py", loop)) == f"loop.py: kernel type 'same' is declared twice, in line 9; {hint}"


def test_a_package_of_a_name_that_python_has_already_is_refused_with_words() -> None:
    write("json/__init__.py", "")
    text = failure(kernel("json/inside.py", "inside"))
    assert re.fullmatch(r"json/inside.py: the name 'json' belongs to .*json/__init__.py; rename the folder", text)


def test_a_relative_import_outside_a_package_says_what_to_do() -> None:
    hint = "a relative import needs a package: put an empty __init__.py beside the file, or import without the dot"
    write("plain/neighbour.py", "")
    assert failure(write("plain/alone.py", "\nfrom .neighbour import x\n")) == f"plain/alone.py: line 2: {hint}"
    assert failure(write("plain/json.py", "from . import neighbour\n")) == f"plain/json.py: line 1: {hint}"


def test_an_interrupt_is_a_fault_of_the_file_like_any_other() -> None:
    text = failure(write("interrupted.py", "raise KeyboardInterrupt('no')\n"))
    assert text == "interrupted.py: line 1: KeyboardInterrupt: no"
