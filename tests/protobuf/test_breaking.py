"""Which changes of types break programs: our answer, and that of buf."""

import enum
import itertools
import json
import random
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, make_dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet

from pydotcompute.protobuf.export.breaking import Change, compare
from pydotcompute.protobuf.export.files import compiled
from pydotcompute.protobuf.pool import TypePool

BUF = str(Path(sys.executable).with_name("buf"))
RULES = ["WIRE_JSON", "RPC_NO_DELETE", "PACKAGE_SERVICE_NO_DELETE"]
PACKAGE = "pairs.v1"


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


def by_buf(before: FileDescriptorSet, now: FileDescriptorSet, folder: Path) -> set[str]:
    """The files with a breaking change, by their names without folder and ending."""
    for name, files in (("before", before), ("now", now)):
        (folder / f"{name}.binpb").write_bytes(compiled(files).SerializeToString())
    config = json.dumps({"version": "v2", "breaking": {"use": RULES}})
    command = [BUF, "breaking", "now.binpb", "--against", "before.binpb", "--config", config, "--error-format", "json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.returncode in (0, 100)
    return {Path(json.loads(line)["path"]).stem for line in done.stdout.splitlines()}


def by_us(before: FileDescriptorSet, now: FileDescriptorSet) -> set[str]:
    return {change.name.split(".")[2].lower() for change in compare(before, now) if change.is_breaking}


def assert_agreed(before: FileDescriptorSet, now: FileDescriptorSet, folder: Path) -> None:
    ours, theirs = by_us(before, now), by_buf(before, now, folder)
    assert ours == theirs, f"for us alone {sorted(ours - theirs)}, for buf alone {sorted(theirs - ours)}"
    assert ours
    assert len(ours) < len(before.file)


def test_we_agree_with_buf_on_every_change_of_an_annotation(tmp_path: Path) -> None:
    annotations = [
        *(float, int, bool, str, bytes, UUID, Color, Hue, datetime, timedelta, np.ndarray),
        *(float | None, int | None, str | None, bytes | None, Color | None, datetime | None, Circle | None),
        *(list[int], list[str], list[Color], list[Circle], list[list[int]], list[list[str]], list[int | None]),
        *(list[int] | None, list[str] | None, tuple[int, int], dict[str, int] | None),
        *(dict[str, int], dict[str, str], dict[int, int], dict[str, list[int]], dict[str, Circle], dict[str, Color]),
        *(Circle, Square, Circle | Square, Square | Circle, Circle | Square | None, list[Circle | Square]),
    ]

    def files(of: Iterable[Any]) -> FileDescriptorSet:
        pool = TypePool()
        namespace = {"__proto_package__": PACKAGE}
        every = make_dataclass("Every", [(f"x{i}", each) for i, each in enumerate(annotations)], namespace=namespace)
        names = [pool.add(every).full_name]
        for number, annotation in enumerate(of):
            names.append(pool.add(make_dataclass(f"M{number}", [("x", annotation)], namespace=namespace)).full_name)
        return FileDescriptorSet(file={f.name: f for name in names for f in pool.file_set(name).file}.values())

    pairs = list(itertools.product(annotations, repeat=2))
    assert_agreed(files(before for before, _ in pairs), files(now for _, now in pairs), tmp_path)


def a_message(rng: random.Random, name: str) -> FileDescriptorProto:
    """A message of few names and few numbers, so that two of them often have some in common."""
    file = FileDescriptorProto(name=f"pairs/v1/{name.lower()}.proto", package=PACKAGE, syntax="proto3")
    message = file.message_type.add(name=name)
    names, numbers = rng.sample("abcd", 4), rng.sample(range(1, 5), 4)
    members = rng.choice((0, 0, 1, 2))
    if members:
        message.oneof_decl.add(name="one_of")
    fields = itertools.islice(zip(names, numbers, strict=True), rng.randrange(members, 4))
    for position, (own, number) in enumerate(fields):
        field = message.field.add(name=own, number=number, label=1, type=rng.choice((3, 3, 3, 9)))
        if position < members:
            field.oneof_index = 0
        elif rng.random() < 0.2:
            field.label = FieldDescriptorProto.LABEL_REPEATED
    left = slice(len(message.field), None)
    message.reserved_name.extend(rng.sample(names[left], rng.randrange(len(names[left]) + 1)))
    for number in rng.sample(numbers[left], rng.randrange(len(numbers[left]) + 1)):
        message.reserved_range.add(start=number, end=number + 1)
    return file


def an_enum(rng: random.Random, name: str) -> FileDescriptorProto:
    file = FileDescriptorProto(name=f"pairs/v1/{name.lower()}.proto", package=PACKAGE, syntax="proto3")
    made = file.enum_type.add(name=name)
    made.value.add(name=f"{name}_UNSPECIFIED", number=0)
    names, numbers = [f"{name}_{letter}" for letter in rng.sample("ABC", 3)], rng.sample(range(1, 4), 3)
    for own, number in itertools.islice(zip(names, numbers, strict=True), rng.randrange(4)):
        made.value.add(name=own, number=number)
    left = slice(len(made.value) - 1, None)
    made.reserved_name.extend(rng.sample(names[left], rng.randrange(len(names[left]) + 1)))
    for number in rng.sample(numbers[left], rng.randrange(len(numbers[left]) + 1)):
        made.reserved_range.add(start=number, end=number)
    return file


def a_service(rng: random.Random, name: str) -> FileDescriptorProto:
    file = FileDescriptorProto(name=f"pairs/v1/{name.lower()}.proto", package=PACKAGE, syntax="proto3")
    file.dependency.append("pairs/v1/messages.proto")
    service = file.service.add(name=name)
    for method in rng.sample(["Ask", "Send", "Stream"], rng.randrange(1, 4)):
        types = [f".{PACKAGE}.{rng.choice(('One', 'One', 'One', 'Two'))}" for _ in range(2)]
        added = service.method.add(name=method, input_type=types[0], output_type=types[1])
        if rng.random() < 0.1:
            added.client_streaming = True
        if rng.random() < 0.1:
            added.server_streaming = True
    return file


@pytest.mark.parametrize("make", [a_message, an_enum, a_service])
@pytest.mark.parametrize("seed", [1, 2])
def test_we_agree_with_buf_on_random_changes(make: Any, seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    messages = FileDescriptorProto(name="pairs/v1/messages.proto", package=PACKAGE, syntax="proto3")
    for name in ("One", "Two"):
        messages.message_type.add(name=name)

    def files() -> FileDescriptorSet:
        return FileDescriptorSet(file=[messages, *(make(rng, f"M{number}") for number in range(500))])

    assert_agreed(files(), files(), tmp_path)


# What buf's rules leave open, and what is said.


def files(*classes: type) -> FileDescriptorSet:
    pool = TypePool()
    names = [pool.add(cls).full_name for cls in classes]
    return FileDescriptorSet(file={file.name: file for name in names for file in pool.file_set(name).file}.values())


def made(name: str, *fields: tuple[str, Any]) -> type:
    return make_dataclass(name, fields, namespace={"__proto_package__": PACKAGE})


def only(before: FileDescriptorSet, now: FileDescriptorSet) -> Change:
    (change,) = compare(before, now)
    return change


def with_service(cls: type, *methods: str) -> FileDescriptorSet:
    found = files(cls)
    file = found.file.add(name="pairs/v1/asking_service.proto", package=PACKAGE, syntax="proto3")
    file.dependency.append(found.file[-2].name)
    service = file.service.add(name="Asking")
    for method in methods:
        service.method.add(
            name=method, input_type=f".{PACKAGE}.{cls.__name__}", output_type=f".{PACKAGE}.{cls.__name__}"
        )
    return found


def test_nothing_has_changed() -> None:
    assert compare(files(made("M", ("a", int))), files(made("M", ("a", int)))) == []


@pytest.mark.parametrize(
    ("before", "now", "text"),
    [
        ([("a", int)], [("a", int), ("b", str)], "b: new, string = 2"),
        ([("a", int)], [("a", int | None)], "a: was int64 = 1, is optional int64 = 1"),
        ([("a", int)], [("a", str)], "a: was int64 = 1, is string = 1; .*another name"),
        ([("a", int)], [("a", list[int])], "a: was int64 = 1, is repeated int64 = 1; .*another name"),
        ([("a", int)], [("a", dict[str, int])], "a: was int64 = 1, is map<string, int64> = 1; .*another name"),
        ([("a", int), ("b", int)], [("a", int)], "b: was int64 = 2, is gone; .*--proto-lock.*"),
        (
            [("a", list[list[int]])],
            [("a", list[list[str]])],
            "AValue.value: was repeated int64 = 1, is repeated string = 1; .*another name",
        ),
    ],
)
def test_a_change_names_the_field_what_it_was_and_is_and_what_to_do(before: Any, now: Any, text: str) -> None:
    change = only(files(made("M", *before)), files(made("M", *now)))
    assert re.fullmatch(rf"pairs\.v1\.M\.{text}", str(change))
    assert change.is_breaking == (";" in text)


def test_a_moved_field_is_to_be_kept_by_the_lock_or_by_a_pin() -> None:
    first, second = compare(files(made("M", ("a", int), ("b", int))), files(made("M", ("b", int), ("a", int))))
    assert re.fullmatch(r"pairs\.v1\.M\.a: was int64 = 1, is int64 = 2; .*--proto-lock.*FieldNumber", str(first))
    assert second.is_breaking


def test_members_of_a_union_come_last_when_they_are_new() -> None:
    third = made("Third")
    before = files(made("M", ("x", Circle | Square)), third)
    assert not only(before, files(made("M", ("x", Circle | Square | third)), third)).is_breaking
    moved = compare(before, files(made("M", ("x", third | Circle | Square)), third))
    assert all("keep their order" in change.advice for change in moved if change.was)
    assert any(change.is_breaking for change in moved)


def test_a_type_may_go_with_the_fields_that_held_it() -> None:
    held = made("Held", ("circle", Circle), ("color", Color))
    before, now = files(made("M", ("a", int), ("held", held))), files(made("M", ("a", int)))
    now.file[-1].message_type[0].reserved_name.append("held")
    now.file[-1].message_type[0].reserved_range.add(start=2, end=3)
    assert [str(change) for change in compare(before, now)] == [
        "pairs.v1.Circle: was a message, is gone",
        "pairs.v1.Color: was an enum, is gone",
        "pairs.v1.Held: was a message, is gone",
        "pairs.v1.M.held: was pairs.v1.Held = 2, is reserved",
    ]


def test_a_message_that_is_sent_by_itself_may_not_go() -> None:
    change = only(files(Circle, made("M")), files(made("M")))
    assert change.is_breaking
    recursive = make_dataclass("Node", [("next", "Node | None")], namespace={"__proto_package__": PACKAGE})
    assert only(files(recursive, Circle), files(Circle)).is_breaking


def test_a_message_that_a_method_takes_may_not_go_even_if_fields_hold_it() -> None:
    before = with_service(Circle, "Ask")
    before.file.extend(files(made("M", ("circle", Circle))).file[-1:])
    now = files(made("M", ("a", int)))
    assert "pairs.v1.Circle" in {change.name for change in compare(before, now) if change.is_breaking}


def test_services_and_methods_may_come_and_not_go() -> None:
    none, one, two = files(Circle), with_service(Circle, "Ask"), with_service(Circle, "Ask", "Send")
    assert [str(change) for change in compare(none, one)] == ["pairs.v1.Asking: new, a service"]
    method = only(one, two)
    assert str(method) == "pairs.v1.Asking.Send: new, (pairs.v1.Circle) returns (pairs.v1.Circle)"
    assert "service=" in only(two, one).advice
    assert "service=" in only(one, none).advice


def test_what_is_no_longer_reserved_is_said_in_one_line() -> None:
    before, now = files(made("M", ("a", int))), files(made("M", ("a", int)))
    before.file[-1].message_type[0].reserved_name.append("b")
    before.file[-1].message_type[0].reserved_range.add(start=2, end=3)
    assert str(only(before, now)).startswith('pairs.v1.M: was with 2, "b" reserved, is without; ')


def test_comments_and_options_are_no_changes() -> None:
    documented = made("M", ("a", int))
    documented.__doc__ = "A letter."
    assert compare(files(made("M", ("a", int))), compiled(files(documented), "example.com/shop")) == []
