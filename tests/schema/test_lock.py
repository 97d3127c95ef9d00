"""Numbers on the wire, as the lock keeps them while classes change."""

import enum
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import make_dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
from google.protobuf.descriptor_pb2 import EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet
from hypothesis import given
from hypothesis import strategies as st

from pydotcompute.exceptions import InvalidConfigurationError, MessageTypeError
from pydotcompute.protobuf.codec import Codec
from pydotcompute.protobuf.export.files import lock_of
from pydotcompute.protobuf.export.render import render
from pydotcompute.protobuf.pool import TypePool
from pydotcompute.schema.introspect import FieldNumber, introspect
from pydotcompute.schema.lock import LOCK_VARIABLE, Lock, in_force, parse, read, use

PACKAGE = "locked.v1"
NAMES = list("abcdefgh")


@pytest.fixture(autouse=True)
def no_lock() -> Iterator[None]:
    """What a test sets is gone after it."""
    use(Lock())
    yield
    use(None)


def made(*fields: str | tuple[str, Any]) -> type:
    """A message class of these fields, ints if nothing else is said."""
    annotated = [(name, int) if isinstance(name, str) else name for name in fields]
    return make_dataclass("Thing", annotated, namespace={"__proto_package__": PACKAGE})


def made_enum(members: list[str] | dict[str, int]) -> type[enum.Enum]:
    made: type[enum.Enum] = enum.Enum("Kind", members)  # type: ignore[misc]  # Its members are not known before.
    made.__proto_package__ = PACKAGE  # type: ignore[attr-defined]
    return made


def numbers(cls: type) -> dict[str, int]:
    return {each.name: each.number for each in introspect(cls).fields}


def files(cls: type) -> FileDescriptorSet:
    pool = TypePool()
    return pool.file_set(pool.add(cls).full_name)


def file_of(cls: type, name: str) -> FileDescriptorProto:
    return next(file for file in files(cls).file if file.name == f"locked/v1/{name}.proto")


def locked(**fields: int) -> Lock:
    return Lock(messages={f"{PACKAGE}.Thing": fields})


# Fields.


@given(st.lists(st.lists(st.sampled_from(NAMES), unique=True, min_size=1), min_size=2))
def test_whatever_moves_comes_and_goes_each_name_has_one_number_for_ever(history: list[list[str]]) -> None:
    use(Lock())
    ever: dict[str, int] = {}
    for names in history:
        cls = made(*names)
        for name, number in numbers(cls).items():
            assert ever.setdefault(name, number) == number
        assert len(set(ever.values())) == len(ever), "two names have had one number"
        now = files(cls)
        message = now.file[-1].message_type[0]
        gone = ever.keys() - set(names)
        assert set(message.reserved_name) == gone
        assert {area.start for area in message.reserved_range} == {ever[name] for name in gone}
        use(parse(lock_of(now, in_force()).text()))


@given(st.permutations(NAMES), st.permutations(NAMES))
def test_without_a_lock_a_moved_field_has_another_number(one: list[str], other: list[str]) -> None:
    use(Lock())
    assert (numbers(made(*one)) != numbers(made(*other))) == (one != other)


def test_a_new_field_gets_a_number_above_all_that_ever_were() -> None:
    use(locked(a=1, gone=7))
    assert numbers(made("new", "a", "newer")) == {"new": 8, "a": 1, "newer": 9}


def test_a_new_field_gets_no_number_that_protobuf_keeps_for_itself() -> None:
    use(locked(a=18_999))
    assert numbers(made("a", "new")) == {"a": 18_999, "new": 20_000}


def test_a_message_that_the_lock_does_not_know_is_numbered_by_order() -> None:
    use(Lock(messages={f"{PACKAGE}.Another": {"b": 1}}))
    assert numbers(made("a", "b")) == {"a": 1, "b": 2}


def test_a_pinned_number_that_nothing_had_is_taken_and_others_come_after_it() -> None:
    use(locked(a=1))
    pinned = ("pinned", Annotated[int, FieldNumber(50)])
    assert numbers(made("new", pinned, ("a", Annotated[int, FieldNumber(1)]))) == {"new": 51, "pinned": 50, "a": 1}


@pytest.mark.parametrize(
    ("name", "number", "expected", "actual"),
    [
        ("a", 2, "field number 1, as in the lock", "2"),
        ("b", 1, "a field number of its own", "1, which the lock has for a"),
        ("b", 7, "a field number of its own", "7, which the lock has for gone"),
    ],
)
def test_a_pinned_number_that_contradicts_the_lock_is_refused(
    name: str, number: int, expected: str, actual: str
) -> None:
    use(locked(a=1, gone=7))
    with pytest.raises(MessageTypeError) as caught:
        introspect(made((name, Annotated[int, FieldNumber(number)])))
    assert (caught.value.path, caught.value.expected, caught.value.actual) == (f"$.{name}", expected, actual)


def test_what_is_reserved_is_written_into_the_source() -> None:
    use(Lock(enums={f"{PACKAGE}.Kind": {"KIND_OLD": 4}}, messages={f"{PACKAGE}.Thing": {"gone": 7, "away": 9, "a": 1}}))
    cls = made("a", ("kind", made_enum(["NEW"])))
    assert 'message Thing {\n  reserved 7, 9;\n  reserved "gone", "away";\n\n  int64 a = 1;' in render(
        file_of(cls, "thing")
    )
    assert 'enum Kind {\n  reserved 4;\n  reserved "KIND_OLD";\n\n  KIND_UNSPECIFIED = 0;\n  KIND_NEW = 1;' in render(
        file_of(cls, "kind")
    )


def test_messages_made_under_a_lock_are_read_by_classes_of_the_old_order() -> None:
    old: Any = made("a", "b")
    codec: Codec[Any] = Codec(old, TypePool())
    use(lock_of(files(old), Lock()))
    new: Any = made(("c", str), "b", "a")
    body = Codec(new, TypePool()).encode(new(c="", b=2, a=1))
    assert codec.decode(body, message_id=None, priority=0, correlation_id=None) == old(a=1, b=2)  # type: ignore[arg-type]


# Enums.


def described(members: list[str] | dict[str, int]) -> EnumDescriptorProto:
    cls = make_dataclass("Holder", [("kind", made_enum(members))], namespace={"__proto_package__": PACKAGE})
    return file_of(cls, "kind").enum_type[0]


def values(members: list[str] | dict[str, int]) -> dict[str, int]:
    return {each.name.removeprefix("KIND_"): each.number for each in described(members).value if each.number}


@given(st.lists(st.lists(st.sampled_from([name.upper() for name in NAMES]), unique=True, min_size=1), min_size=2))
def test_values_of_enums_keep_their_numbers_too(history: list[list[str]]) -> None:
    use(Lock())
    ever: dict[str, int] = {}
    for names in history:
        for name, number in values(names).items():
            assert ever.setdefault(name, number) == number
        assert len(set(ever.values())) == len(ever)
        made = described(names)
        gone = ever.keys() - set(names)
        assert {name.removeprefix("KIND_") for name in made.reserved_name} == gone
        assert {area.start for area in made.reserved_range} == {ever[name] for name in gone}
        file = FileDescriptorProto(name="locked/v1/kind.proto", package=PACKAGE, enum_type=[made])
        use(parse(lock_of(FileDescriptorSet(file=[file]), in_force()).text()))


def test_the_numbers_of_an_enum_are_its_python_values_unless_something_had_them() -> None:
    use(Lock(enums={f"{PACKAGE}.Kind": {"KIND_OLD": 2, "KIND_A": 1}}))
    assert values({"B": 2, "A": 5, "C": 9}) == {"B": 10, "A": 1, "C": 9}


# The file.


def test_the_file_has_a_line_for_each_field_and_value_in_the_order_of_their_numbers() -> None:
    lock = Lock(enums={"b.v1.E": {"E_X": 1}}, messages={"b.v1.M": {"late": 10, "early": 2}, "a.v1.M": {}})
    assert lock.text().splitlines() == [
        "{",
        '  "enums": {',
        '    "b.v1.E": {',
        '      "E_X": 1',
        "    }",
        "  },",
        '  "messages": {',
        '    "a.v1.M": {},',
        '    "b.v1.M": {',
        '      "early": 2,',
        '      "late": 10',
        "    }",
        "  }",
        "}",
    ]
    assert parse(lock.text()) == lock


def test_a_lock_forgets_nothing_but_what_the_files_contradict() -> None:
    before = locked(b=1, gone=7, a=9)
    assert lock_of(files(made("a", "c")), before).messages[f"{PACKAGE}.Thing"] == {"gone": 7, "a": 1, "c": 2}
    other = Lock(enums={"o.v1.E": {"E_X": 3}}, messages={"o.v1.M": {"x": 1}})
    assert lock_of(files(made("a")), other).messages.keys() == {"o.v1.M", f"{PACKAGE}.Thing"}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "Expecting value"),
        ("[]", "no object"),
        ('{"messages": {}}', "no object"),
        ('{"enums": {}, "messages": {"a.v1.M": 1}}', "no object of objects"),
        ('{"enums": {}, "messages": []}', "no object of objects"),
        ('{"enums": {}, "messages": {"a.v1.M": {"x": "1"}}}', r'a.v1.M.x has the number "1"'),
        ('{"enums": {}, "messages": {"a.v1.M": {"x": true}}}', "has the number true"),
        ('{"enums": {}, "messages": {"a.v1.M": {"x": 0}}}', "has the number 0"),
        ('{"enums": {}, "messages": {"a.v1.M": {"x": 2, "y": 2}}}', r"a.v1.M.y has the number 2, as x"),
        ('{"enums": {}, "messages": {"a.v1.M": {"x": 2, "x": 3}}}', "x is there twice"),
        ('{"enums": {}, "messages": {"a.v1.M": {"x": 19000}}}', "has the number 19000"),
        ('{"enums": {}, "messages": {"a.v1.M": {"x": 536870912}}}', "has the number 536870912"),
        ('{\n<<<<<<< HEAD\n"enums"', "it has merge conflicts; take one side of all"),
        ("[" * 100_000, "recursion"),
        ("\xff", "utf-8"),
    ],
)
def test_a_lock_that_cannot_be_read_is_an_error_of_one_line(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "pydotcompute.lock"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InvalidConfigurationError, match=problem) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_lock_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfigurationError, match="No such file"):
        read(tmp_path / "none.lock")


def test_the_environment_names_the_lock_of_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my.lock").write_text(locked(b=1, a=2).text())
    monkeypatch.setenv(LOCK_VARIABLE, str(tmp_path / "my.lock"))
    use(None)
    assert numbers(made("a", "b")) == {"a": 2, "b": 1}


def test_a_program_that_knows_no_protobuf_heeds_the_lock(tmp_path: Path) -> None:
    (tmp_path / "my.lock").write_text(json.dumps({"enums": {}, "messages": {"main.v1.M": {"y": 1, "x": 2}}}))
    (tmp_path / "main.py").write_text(
        "import sys\n"
        "from dataclasses import dataclass\n"
        "from pydotcompute.schema.introspect import introspect\n"
        "@dataclass\n"
        "class M:\n"
        "    x: int\n"
        "    y: int\n"
        "print([field.number for field in introspect(M).fields], 'google' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, str(tmp_path / "main.py")],
        env={LOCK_VARIABLE: str(tmp_path / "my.lock")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("[2, 1] False\n", "")
