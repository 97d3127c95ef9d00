"""The reference pages leave nothing out."""

import ast
import enum
import inspect
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, make_dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from types import ModuleType
from typing import Any, Generic, Literal, NewType, TypeVar, get_args
from uuid import UUID

import numpy as np
import pytest
from click import Command, Group, Option
from google.rpc import code_pb2

from pydotcompute.access.roles import Role
from pydotcompute.protobuf.export.render import render
from pydotcompute.protobuf.packages import by_package
from pydotcompute.protobuf.pool import TypePool
from pydotcompute.ring_kernels import config
from pydotcompute.ring_kernels.limits import RuntimeLimits
from pydotcompute.schema import nodes
from pydotcompute.schema.introspect import introspect
from pydotcompute.v1 import dead_letter_service_pb2, kernel_service_pb2, message_service_pb2, telemetry_service_pb2
from pydotcompute.wire.errors import ERRORS
from pydotcompute.wire.exchange import limits as wire_limits
from pydotcompute_client import connect
from pydotcompute_client.cli.main import main as client_command
from pydotcompute_server.access.methods import STANDARD, roles_in
from pydotcompute_server.cli import main as server_command
from pydotcompute_server.limits import Limits
from pydotcompute_server.protos import SERVICES
from tests.docs.pages import ROOT

DOCS = ROOT / "docs"
PACKAGE = "example.v1"


def options(command: Command) -> set[str]:
    """The long options of a command, but for those that every command has."""
    names = {name for parameter in command.params if isinstance(parameter, Option) for name in parameter.opts}
    return {name for name in names if name.startswith("--")} - {"--help", "--version"}


def commands_of(group: Group) -> Iterator[tuple[str, Command]]:
    """The commands with their names, `proto export` for one in a group."""
    for name, command in group.commands.items():
        if isinstance(command, Group):
            yield from ((f"{name} {inner}", each) for inner, each in commands_of(command))
        else:
            yield name, command


def test_the_server_page_has_every_option_and_its_variable() -> None:
    page = (DOCS / "server.md").read_text()
    for option in options(server_command):
        variable = f"PYDOTCOMPUTE_{option.removeprefix('--').upper().replace('-', '_')}"
        assert f"\n| `{option}" in page
        assert f"`{variable}`" in page


def documented(source: Any) -> dict[str, str]:
    """The names that a class or a module assigns with a type or a value, with the docstrings after them."""
    tree = ast.parse(inspect.getsource(source))
    body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else tree.body
    documents: dict[str, str] = {}
    for statement, after in pairwise(body):
        target = statement.targets[0] if isinstance(statement, ast.Assign) else getattr(statement, "target", None)
        if isinstance(target, ast.Name) and target.id != "__all__" and not target.id.startswith("_"):
            if isinstance(statement, ast.Assign) and not isinstance(after, ast.Expr):
                continue
            assert isinstance(after, ast.Expr), f"{target.id} has no docstring"
            assert isinstance(after.value, ast.Constant)
            documents[target.id] = " ".join(str(after.value.value).split())
    return documents


def limits_table() -> str:
    """The fields of `Limits`, with their defaults and docstrings."""
    documents = documented(RuntimeLimits) | documented(Limits)
    assert documents.keys() == {field.name for field in fields(Limits)}
    rows = ["| limit | default | meaning |", "|---|---|---|"]
    for field in fields(Limits):
        option = f"--{field.name.replace('_', '-')}"
        name = f"`{field.name}`, `{option}`" if option in options(server_command) else f"`{field.name}`"
        rows.append(f"| {name} | {amount(field.name, field.default)} | {documents[field.name]} |")
    return "\n".join(rows)


def constants_table() -> str:
    """The limits that nobody can set, because both sides of a connection, or all versions, must have the same."""
    rows = ["| limit | value | meaning |", "|---|---|---|"]
    for module, names in ((config, ["LONGEST_ID"]), (wire_limits, wire_limits.__all__)):
        documents = documented(module)
        rows += [f"| `{each}` | {amount(each.lower(), getattr(module, each))} | {documents[each]} |" for each in names]
    return "\n".join(rows)


def amount(name: str, value: Any) -> str:
    """The value of a limit, for people."""
    if isinstance(value, float):
        return f"{value:g} s"
    if name.endswith("_bytes"):
        for factor, unit in ((1 << 20, "MiB"), (1 << 10, "KiB")):
            if value and value % factor == 0:
                return f"{value // factor:,} {unit}"
    return f"{value:,}"


@pytest.mark.parametrize(
    ("table", "end"),
    [(limits_table, "\nThese cannot be set:"), (constants_table, "\nAnd the others:")],
    ids=["settings", "constants"],
)
def test_the_server_page_has_every_limit(table: Callable[[], str], end: str) -> None:
    path = DOCS / "server.md"
    before, found, after = path.read_text().partition(end)
    before, mark, shown = before.rpartition(" writes them -->\n")
    assert mark
    assert found
    made = f"{table()}\n"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(before + mark + made + end + after)
        return
    assert shown == made, "the limits have changed; run with UPDATE_GOLDEN=1"


def test_the_cli_page_has_every_command_and_its_options() -> None:
    page = (DOCS / "cli.md").read_text()
    assert isinstance(client_command, Group)
    everywhere = options(client_command)
    for option in everywhere:
        assert f"`{option}" in page
    found: list[tuple[str, str]] = re.findall(r"^### ([\w -]+)\n(.*?)(?=^#|\Z)", page, re.MULTILINE | re.DOTALL)
    sections = dict(found)
    commands = dict(commands_of(client_command))
    assert sections.keys() == commands.keys()
    for name, command in commands.items():
        for option in options(command) - everywhere:
            assert f"`{option}" in sections[name], f"{name} {option}"


def roles_table() -> str:
    """Which role may call what, as the protos say it."""
    needed = {path: role for module in SERVICES for path, role in roles_in(module.DESCRIPTOR).items() if role}
    calls = [(f"`{path.rpartition('.')[2].replace('/', '.')}`", role) for path, role in needed.items()]
    calls += [(f"all of `{service}`", role) for service, role in STANDARD.items()]
    calls.append(("all of a kernel's own service", Role.CALLER))
    rows = ["| call | viewer | caller | operator | admin |", "|---|---|---|---|---|"]
    for call, role in sorted(calls, key=lambda each: each[1]):
        rows.append(f"| {call} | {' | '.join('yes' if each >= role else 'no' for each in Role)} |")
    return "\n".join(rows)


def test_the_security_page_has_the_role_of_every_call() -> None:
    path = DOCS / "security.md"
    before, mark, rest = path.read_text().partition(" writes it -->\n")
    shown, end, after = rest.partition("\n\n")
    assert mark
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(before + mark + roles_table() + end + after)
        return
    assert shown == roles_table(), "the roles have changed; run with UPDATE_GOLDEN=1"


@pytest.mark.parametrize(
    "file",
    [kernel_service_pb2, message_service_pb2, telemetry_service_pb2, dead_letter_service_pb2],
    ids=lambda file: file.__name__,
)
def test_the_wire_page_has_every_call(file: ModuleType) -> None:
    page = (DOCS / "wire.md").read_text()
    for service in file.DESCRIPTOR.services_by_name.values():
        assert f"\n| `{service.name}` |" in page
        for method in service.methods:
            assert f"`{method.name}`" in page


def test_the_wire_page_has_every_frame_of_exchange() -> None:
    page = (DOCS / "wire.md").read_text()
    for message in (message_service_pb2.ExchangeRequest, message_service_pb2.ExchangeResponse):
        for field in message.DESCRIPTOR.fields:
            assert f"\n| `{field.name}` |" in page


def test_the_wire_page_has_every_error_with_its_code_reason_and_fields() -> None:
    rows = (DOCS / "wire.md").read_text().splitlines()
    for error, (code, _) in ERRORS.items():
        fields = ", ".join(f"`{name}`" for name in error.fields)
        assert f"| `{error.__name__}` | `{code_pb2.Code.Name(code)}` | `{error.reason}` | {fields} |" in rows


class Colour(enum.Enum):
    RED = 1


@dataclass
class Point:
    x: float = 0.0


@dataclass
class Circle:
    radius: float = 0.0


T = TypeVar("T")


@dataclass
class Page(Generic[T]):
    first: T | None = None


NAMES: dict[str, Any] = {"Any": Any, "Page": Page, "UserId": NewType("UserId", int)}
NAMES |= {"Colour": Colour, "Point": Point, "Circle": Circle, "UUID": UUID, "Literal": Literal, "np": np}
NAMES |= {"datetime": datetime, "timedelta": timedelta}
for cls in (Colour, Point, Circle, Page):
    setattr(cls, "__proto_package__", PACKAGE)  # noqa: B010  # It is no attribute that mypy knows.


def test_the_wire_page_has_every_kind_of_annotation_with_what_it_becomes() -> None:
    page = (DOCS / "wire.md").read_text()
    section = page[page.index("## Types") : page.index("## Errors")]
    rows = re.findall(r"^\| `(.+?)` \| `(.+?)` \|", section, re.MULTILINE)
    met: set[type] = set()
    for annotation, protobuf in rows:
        made = make_dataclass(
            "Example",
            [("field", eval(annotation.replace(r"\|", "|"), dict(NAMES)))],
            namespace={"__proto_package__": PACKAGE},
        )
        met.update(type(node) for node in nodes.walk(introspect(made).fields[0].node))
        pool = TypePool()
        files = pool.file_set(pool.add(made).full_name).file
        (file,) = (file for file in by_package(files) if file.package == PACKAGE)
        source = render(file)
        assert f"  {protobuf.replace('FieldValue', 'Example.FieldValue')} field = 1;\n" in source
    assert met == set(get_args(nodes.Node))


def test_the_client_page_has_every_option_of_connect() -> None:
    page = (DOCS / "client.md").read_text()
    for name in inspect.signature(connect).parameters:
        assert f"\n| `{name}`" in page
