"""Which changes of types break programs: what buf says, in our words."""

import enum
import random
import subprocess
import sysconfig
from dataclasses import dataclass, make_dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from pydotcompute.protobuf.breaking import Breaking, CannotCompareError, breaking_changes
from pydotcompute.protobuf.export.files import Prefixes, compiled, lock_of
from pydotcompute.schema import lock
from tests.properties import examples
from tests.versions import CASES, PACKAGE, Case, files, made


class Color(enum.Enum):
    RED = 1
    BLUE = 2


class Hue(enum.Enum):
    RED = 1
    BLUE = 2


@dataclass
class Circle:
    radius: float


@dataclass
class Square:
    side: float


for cls in (Color, Hue, Circle, Square):
    setattr(cls, "__proto_package__", PACKAGE)  # noqa: B010  # It is no attribute that mypy knows.


def with_service(cls: type, *methods: str, package: str = PACKAGE) -> FileDescriptorSet:
    found = files(cls)
    file = found.file.add(name="asking/asking_service.proto", package=package, syntax="proto3")
    file.dependency.append(found.file[-2].name)
    service = file.service.add(name="Asking")
    for method in methods:
        service.method.add(
            name=method, input_type=f".{PACKAGE}.{cls.__name__}", output_type=f".{PACKAGE}.{cls.__name__}"
        )
    return found


def changes(before: FileDescriptorSet, now: FileDescriptorSet) -> list[Breaking]:
    return breaking_changes(compiled(before), compiled(now))


def texts(before: FileDescriptorSet, now: FileDescriptorSet) -> list[str]:
    return [str(change) for change in changes(before, now)]


def of_field(before: Any, now: Any) -> list[str]:
    """What is said of a message whose one field has changed its annotation."""
    return texts(files(Circle, Square, made("M", ("x", before))), files(Circle, Square, made("M", ("x", now))))


def test_nothing_has_changed() -> None:
    assert texts(files(made("M", ("a", int))), files(made("M", ("a", int)))) == []


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_breaks_is_what_the_clients_refuse(case: Case) -> None:
    with case.classes() as (before, now):
        assert (texts(files(before), files(now)) == []) is case.fits


def test_what_is_required_is_neither_new_nor_gone() -> None:
    plain, required = files(made("M", ("a", int))), files(made("M", ("a", int), ("b", UUID)))
    assert texts(plain, required) == ["pairs.v1.M.b: is new and required; give it a default"]
    gone = files(made("M", ("a", int)))
    gone.file[-1].message_type[0].reserved_name.append("b")
    gone.file[-1].message_type[0].reserved_range.add(start=2, end=3)
    assert texts(required, gone) == [
        "pairs.v1.M.b: was required, is gone; declare it again, or export anew once it has a default"
    ]
    assert [change.rule for change in changes(required, plain)] == ["FIELD_NO_DELETE_UNLESS_NAME_RESERVED"]


def test_a_new_field_a_new_message_and_a_new_service_break_nothing() -> None:
    assert texts(files(made("M", ("a", int))), files(made("M", ("a", int), ("b", str)), made("N"))) == []
    assert texts(files(Circle), with_service(Circle, "Ask")) == []
    assert texts(with_service(Circle, "Ask"), with_service(Circle, "Ask", "Send")) == []


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (int, int | None),
        (int | None, int),
        (Circle, Circle | None),
        (tuple[int, int], list[int]),
        (Circle | Square, Circle | Square | None),
    ],
)
def test_a_field_that_may_be_absent_now_or_no_more_breaks_nothing(before: Any, now: Any) -> None:
    assert of_field(before, now) == []


@pytest.mark.parametrize(
    ("before", "now", "problem"),
    [
        (int, str, "x: was int64, is string"),
        (int, list[int], "x: was a single value, is a list"),
        (list[int], int, "x: was a list, is a single value"),
        (int, dict[str, int], "x: was a single value, is a map"),
        (dict[str, int], list[int], "x: was a map, is a list"),
        (float, int, "x: was double, is int64"),
        (Color, Hue, "x: was pairs.v1.Color, is pairs.v1.Hue"),
        (Color, int, "x: was enum, is int64"),
        (Circle, Square, "x: was pairs.v1.Circle, is pairs.v1.Square"),
        (list[Circle], list[Square], "x: was pairs.v1.Circle, is pairs.v1.Square"),
        (list[list[int]], list[list[str]], "XValue.value: was int64, is string"),
    ],
)
def test_a_change_of_type_names_the_field_what_it_was_and_is_and_what_to_do(
    before: Any, now: Any, problem: str
) -> None:
    assert of_field(before, now) == [f"pairs.v1.M.{problem}; keep the type, or give the field another name"]


@pytest.mark.parametrize(("before", "now"), [(dict[str, int], dict[str, str]), (dict[str, int], dict[int, int])])
def test_a_map_with_other_keys_or_values_is_refused(before: Any, now: Any) -> None:
    (text,) = of_field(before, now)
    assert text.startswith("pairs.v1.M.")
    assert "keep the type" in text


def test_a_moved_field_is_to_be_kept_by_the_lock_or_by_a_pin() -> None:
    advice = "start the daemon with --proto-lock, or pin the number with FieldNumber"
    assert texts(files(made("M", ("a", int), ("b", str))), files(made("M", ("b", str), ("a", int)))) == [
        f"pairs.v1.M: field 1 was a, is b; {advice}",
        f"pairs.v1.M: field 2 was b, is a; {advice}",
    ]


def test_a_removed_field_is_to_be_reserved_by_the_lock() -> None:
    before, now = files(made("M", ("a", int), ("b", int))), files(made("M", ("a", int)))
    advice = "start the daemon with --proto-lock, which reserves its number and its name, or declare it again"
    assert texts(before, now) == [f"pairs.v1.M.b: was field 2, is gone; {advice}"]
    message = now.file[-1].message_type[0]
    message.reserved_range.add(start=2, end=3)
    assert len(texts(before, now)) == 1
    message.reserved_name.append("b")
    assert texts(before, now) == []


def test_members_of_a_union_come_last_when_they_are_new() -> None:
    third = made("Third")

    def union(annotation: Any) -> FileDescriptorSet:
        return files(Circle, Square, third, made("M", ("x", annotation)))

    assert texts(union(Circle | Square), union(Circle | Square | third)) == []
    for changed in (third | Circle | Square, Square | Circle, Circle | third):
        found = changes(union(Circle | Square), union(changed))
        assert found
        assert all(change.name.startswith("pairs.v1.M.XValue") for change in found)
        assert all("keep their order" in change.advice for change in found)


def test_a_value_that_becomes_a_union_and_a_union_that_becomes_one_are_refused() -> None:
    assert of_field(Circle, Circle | Square)
    assert of_field(Circle | Square, Circle)
    assert of_field(Circle | Square, list[Circle | Square])


def test_values_of_an_enum_keep_their_numbers() -> None:
    def kind(members: dict[str, int]) -> FileDescriptorSet:
        make: Any = enum.Enum
        made_kind = make("Kind", members)
        made_kind.__proto_package__ = PACKAGE
        return files(made("M", ("kind", made_kind)))

    advice = "start the daemon with --proto-lock, which keeps and reserves numbers"
    assert texts(kind({"A": 1, "B": 2}), kind({"B": 1, "A": 2})) == [
        f"pairs.v1.Kind: value 1 was KIND_A, is KIND_B; {advice}",
        f"pairs.v1.Kind: value 2 was KIND_B, is KIND_A; {advice}",
    ]
    (text,) = texts(kind({"A": 1, "B": 2}), kind({"A": 1}))
    assert text.startswith("pairs.v1.Kind.KIND_B: was value 2, is gone; start the daemon with --proto-lock")
    assert texts(kind({"A": 1}), kind({"A": 1, "B": 2})) == []


def test_what_is_no_longer_reserved_is_refused() -> None:
    before, now = files(made("M", ("a", int))), files(made("M", ("a", int)))
    before.file[-1].message_type[0].reserved_name.append("b")
    before.file[-1].message_type[0].reserved_range.add(start=2, end=3)
    advice = "start the daemon with --proto-lock; what comes back needs another name"
    assert sorted(texts(before, now)) == [
        f"pairs.v1.M: [2] was reserved, and is no more; {advice}",
        f"pairs.v1.M: b was reserved, and is no more; {advice}",
    ]


def test_a_type_may_go_with_the_fields_that_held_it() -> None:
    held = made("Held", ("circle", Circle), ("color", Color))
    before, now = files(made("M", ("a", int), ("held", held | None))), files(made("M", ("a", int)))
    now.file[-1].message_type[0].reserved_name.append("held")
    now.file[-1].message_type[0].reserved_range.add(start=2, end=3)
    assert texts(before, now) == []


def test_a_message_that_is_sent_by_itself_may_not_go() -> None:
    assert texts(files(Circle, made("M")), files(made("M"))) == [
        "pairs.v1.Circle: was a message, is gone; declare it again, under this name"
    ]
    recursive = make_dataclass("Node", [("next", "Node | None")], namespace={"__proto_package__": PACKAGE})
    assert texts(files(recursive, Circle), files(Circle))


def test_a_message_that_a_method_takes_may_not_go_even_if_fields_hold_it() -> None:
    before = with_service(Circle, "Ask")
    before.file.extend(files(made("M", ("circle", Circle))).file[-1:])
    assert "pairs.v1.Circle" in {change.name for change in changes(before, files(made("M", ("a", int))))}


def test_services_and_methods_may_not_go() -> None:
    none, one, two = files(Circle), with_service(Circle, "Ask"), with_service(Circle, "Ask", "Send")
    advice = "declare it again, under this name with service="
    assert texts(two, one) == [f"pairs.v1.Asking.Send: was a method, is gone; {advice}"]
    assert texts(one, none) == [f"pairs.v1.Asking: was a service, is gone; {advice}"]


def test_a_method_keeps_its_types() -> None:
    def asking(cls: type) -> FileDescriptorSet:
        parts = (files(Circle, Square), with_service(cls, "Ask"))
        return FileDescriptorSet(file={file.name: file for part in parts for file in part.file}.values())

    advice = "keep the types, or name another service with service="
    assert texts(asking(Circle), asking(Square)) == [
        f"pairs.v1.Asking.Ask: returned pairs.v1.Circle, returns pairs.v1.Square; {advice}",
        f"pairs.v1.Asking.Ask: took pairs.v1.Circle, takes pairs.v1.Square; {advice}",
    ]


def test_a_package_with_a_service_may_not_go() -> None:
    (text,) = texts(with_service(Circle, "Ask", package="gone.v1"), files(Circle))
    assert text.startswith("gone.v1: was a package, is gone; ")
    assert texts(files(made("M", ("when", Color))), files(made("M", ("when", Color)))) == []


def test_a_package_that_only_fields_held_may_go_with_them() -> None:
    held = make_dataclass("Held", [("a", int)], namespace={"__proto_package__": "held.v1"})
    before, now = files(made("M", ("a", int), ("held", held | None))), files(made("M", ("a", int)))
    now.file[-1].message_type[0].reserved_name.append("held")
    now.file[-1].message_type[0].reserved_range.add(start=2, end=3)
    assert texts(before, now) == []


def test_comments_and_options_are_no_changes() -> None:
    documented = made("M", ("a", int))
    documented.__doc__ = "A letter."
    assert (
        breaking_changes(
            compiled(files(made("M", ("a", int)))),
            compiled(files(documented), Prefixes("example.com/m", "com.example")),
        )
        == []
    )


@pytest.mark.parametrize("seed", range(examples(10)))
def test_with_the_lock_nothing_breaks_but_what_comes_back(seed: int) -> None:
    rng = random.Random(seed)
    before = FileDescriptorSet()
    try:
        lock.use(lock.Lock())
        for _ in range(4):
            names = rng.sample("abcdef", rng.randrange(1, 7))
            now = files(made("M", *((name, int) for name in names)))
            came_back = set(names) & {name for file in before.file for name in file.message_type[0].reserved_name}
            if before.file:
                assert bool(texts(before, now)) == bool(came_back)
            before = now
            lock.use(lock_of(now, lock.in_force()))
    finally:
        lock.use(None)


def answering(monkeypatch: pytest.MonkeyPatch, code: int, printed: str, error: str = "") -> None:
    """Lets buf answer this."""
    done = subprocess.CompletedProcess([], code, printed, error)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)


@pytest.mark.parametrize("rule", ["A_RULE_OF_LATER", "FIELD_SAME_NAME"])
def test_what_buf_says_in_another_way_is_told_in_its_own_words(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, 100, f'{{"path": "m.proto", "type": "{rule}", "message": "Field \\"a\\" is odd."}}\n')
    assert texts(files(Circle), files(Circle)) == ['m.proto: Field "a" is odd; keep it as it was']


def test_buf_that_fails_is_an_error_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, 1, "", "Failure: no space left\n")
    with pytest.raises(CannotCompareError, match="buf cannot compare the types: Failure: no space left"):
        changes(files(Circle), files(Circle))


def test_buf_is_found_beside_the_program_and_else_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    program = tmp_path / "elsewhere" / "buf"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nexit 100\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    assert changes(files(Circle), files(Circle)) == []
