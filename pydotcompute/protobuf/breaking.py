"""Finds the changes between two sets of protobuf types that break programs which know the older set.

The tool buf finds the changes; this module puts them in its own words.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, FileDescriptorSet

from pydotcompute.protobuf.conventions import required_fields

__all__ = ["Breaking", "CannotCompareError", "NoBufError", "breaking_changes"]

WITHOUT_BUF = "changes are judged by buf, which is not installed here: pip install 'pydotcompute-grpc[proto]'"

USE_THE_LOCK = "start the daemon with --proto-lock, or pin the number with FieldNumber"
KEEP_NUMBERS = "start the daemon with --proto-lock, which keeps and reserves numbers"
RESERVE = "start the daemon with --proto-lock, which reserves its number and its name, or declare it again"
RENAME = "keep the type, or give the field another name"
KEEP_MEMBERS = "members of a union keep their order, and new ones come last; or give the field another name"
KEEP_RESERVED = "start the daemon with --proto-lock; what comes back needs another name"
KEEP_SERVICE = "declare it again, under this name with service="
KEEP_TYPES = "keep the types, or name another service with service="
KEEP_MESSAGE = "declare it again, under this name"
KEEP = "keep it as it was"
GIVE_A_DEFAULT = "give it a default"
KEEP_REQUIRED = "declare it again, or export anew once it has a default"

_FOUND = 100
"""The exit code of buf when something breaks."""


class CannotCompareError(Exception):
    """The types cannot be compared. The text says why, in one line."""


class NoBufError(CannotCompareError):
    """The tool buf is not installed."""


@dataclass(frozen=True)
class Breaking:
    """One change that breaks programs."""

    name: str
    """The full name of what changed, such as `calculator.v1.CalculationRequest.a`."""
    problem: str
    """The state before the change, and after it."""
    advice: str
    """The way to avoid the break."""
    rule: str
    """The rule of buf that forbids the change, such as FIELD_SAME_NAME."""

    def __str__(self) -> str:
        return f"{self.name}: {self.problem}; {self.advice}"


class _Words(NamedTuple):
    """The words for a violation. A number in braces stands for the text that buf's message quotes at that place."""

    subject: str
    """Names the changed thing. Of several violations with the same subject only one is reported."""
    name: str
    problem: str
    advice: str


_NO_DELETE = ("PACKAGE_NO_DELETE", "PACKAGE_MESSAGE_NO_DELETE")
"""These rules count only for messages that are sent by themselves. A type that only fields use may go with them."""
_RULES = ["WIRE_JSON", "PACKAGE_SERVICE_NO_DELETE", "RPC_NO_DELETE", *_NO_DELETE]
_WORDS = {
    "FIELD_SAME_NAME": _Words("{1} {0}", "{1}", "field {0} was {2}, is {3}", USE_THE_LOCK),
    "FIELD_NO_DELETE_UNLESS_NAME_RESERVED": _Words("{2} {0}", "{2}.{1}", "was field {0}, is gone", RESERVE),
    "FIELD_NO_DELETE_UNLESS_NUMBER_RESERVED": _Words("{2} {0}", "{2}.{1}", "was field {0}, is gone", RESERVE),
    "FIELD_WIRE_JSON_COMPATIBLE_CARDINALITY": _Words("{2} {0}", "{2}.{1}", "was {3}, is {4}", RENAME),
    "FIELD_WIRE_JSON_COMPATIBLE_TYPE": _Words("{2} {0}", "{2}.{1}", "was {3}, is {4}", RENAME),
    "FIELD_SAME_ONEOF": _Words("{2} {0}", "{2}.{1}", "has become a member of a union, or was one", KEEP_MEMBERS),
    "FIELD_SAME_JSON_NAME": _Words("{2} {0}", "{2}.{1}", "was {4} in JSON, is {5}", RENAME),
    "RESERVED_MESSAGE_NO_DELETE": _Words("{1} {0}", "{1}", "{0} was reserved, and is no more", KEEP_RESERVED),
    "ENUM_VALUE_SAME_NAME": _Words("{1} {0}", "{1}", "value {0} was {2}, is {3}", KEEP_NUMBERS),
    "ENUM_VALUE_NO_DELETE_UNLESS_NAME_RESERVED": _Words("{1} {0}", "{1}.{2}", "was value {0}, is gone", RESERVE),
    "ENUM_VALUE_NO_DELETE_UNLESS_NUMBER_RESERVED": _Words("{1} {0}", "{1}", "value {0} is gone", RESERVE),
    "RESERVED_ENUM_NO_DELETE": _Words("{1} {0}", "{1}", "{0} was reserved, and is no more", KEEP_RESERVED),
    "RPC_NO_DELETE": _Words("{1}.{0}", "{1}.{0}", "was a method, is gone", KEEP_SERVICE),
    "RPC_SAME_REQUEST_TYPE": _Words("{1}.{0} takes", "{1}.{0}", "took {2}, takes {3}", KEEP_TYPES),
    "RPC_SAME_RESPONSE_TYPE": _Words("{1}.{0} returns", "{1}.{0}", "returned {2}, returns {3}", KEEP_TYPES),
    "PACKAGE_SERVICE_NO_DELETE": _Words("{0}", "{0}", "was a service, is gone", KEEP_SERVICE),
    "PACKAGE_MESSAGE_NO_DELETE": _Words("{0}", "{0}", "was a message, is gone", KEEP_MESSAGE),
    "PACKAGE_NO_DELETE": _Words("{0}", "{0}", "was a package, is gone", KEEP_MESSAGE),
}
"""The words for each rule. If one subject violates several rules, the first of them here is reported."""


_ORDER = list(_WORDS)
_CARDINALITIES = {
    "optional with implicit presence": "a single value",
    "optional with explicit presence": "a single value",
    "repeated": "a list",
    "map": "a map",
}


class _Violation(NamedTuple):
    """One violation that buf reports: the rule, buf's message, and the file."""

    rule: str
    text: str
    path: str

    @property
    def quoted(self) -> list[str]:
        """The texts in double quotes in buf's message, in order."""
        return re.findall('"([^"]*)"', self.text)


def breaking_changes(before: FileDescriptorSet, now: FileDescriptorSet) -> list[Breaking]:
    """Return the changes that break programs, in the order of their names.

    Both sets must be as a compiler makes them, JSON names included.

    Raises:
        NoBufError: buf is not installed.
        CannotCompareError: buf cannot compare the types.
    """
    files = {file.name: file for files in (before, now) for file in files.file}
    sent = _sent(before)
    found: dict[str, Breaking] = {}
    for violation in sorted(_violations(before, now), key=_rank):
        if violation.rule not in _NO_DELETE or _named(violation) in sent:
            subject, change = _in_words(violation, files.get(violation.path))
            found.setdefault(subject, change)
    named = {change.name for change in found.values()}
    required = [change for change in _required(before, now) if change.name not in named]
    return sorted([*found.values(), *required], key=lambda change: (change.name, change.problem))


def _required(before: FileDescriptorSet, now: FileDescriptorSet) -> Iterator[Breaking]:
    """Yield the fields that must have a value and that one of the two sides lacks. Protobuf itself knows none."""
    fields_before, fields_now = _fields(before), _fields(now)
    for name in required_fields(now.file):
        if name.rpartition(".")[0] in fields_before and name not in fields_before:
            yield Breaking(name, "is new and required", GIVE_A_DEFAULT, "REQUIRED_FIELD_NEW")
    for name in required_fields(before.file):
        if name.rpartition(".")[0] in fields_now and name not in fields_now:
            yield Breaking(name, "was required, is gone", KEEP_REQUIRED, "REQUIRED_FIELD_NO_DELETE")


def _fields(files: FileDescriptorSet) -> set[str]:
    """Return the full names of all messages and of their fields."""
    messages = [(f"{file.package}.{message.name}", message) for file in files.file for message in file.message_type]
    return {name for name, _ in messages} | {
        f"{name}.{each.name}" for name, message in messages for each in message.field
    }


def _rank(violation: _Violation) -> int:
    return _ORDER.index(violation.rule) if violation.rule in _WORDS else len(_ORDER)


def _violations(before: FileDescriptorSet, now: FileDescriptorSet) -> list[_Violation]:
    config = json.dumps({"version": "v2", "breaking": {"use": _RULES}})
    with tempfile.TemporaryDirectory() as folder:
        for name, files in (("before", before), ("now", now)):
            Path(folder, f"{name}.binpb").write_bytes(files.SerializeToString())
        command = [_buf(), "breaking", "now.binpb", "--against", "before.binpb", "--config", config]
        done = subprocess.run(  # noqa: S603  # buf, and what is in the command is from above.
            [*command, "--error-format", "json"], cwd=folder, capture_output=True, text=True, check=False
        )
    if done.returncode not in (0, _FOUND):
        raise CannotCompareError(f"buf cannot compare the types: {done.stderr.strip()}")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return [_Violation(line["type"], line["message"], line.get("path", "")) for line in lines]


def _buf() -> str:
    # The buf beside this program comes first, because this program may run in an environment that is not activated.
    found = shutil.which("buf", path=sysconfig.get_path("scripts")) or shutil.which("buf")
    if found is None:
        raise NoBufError(WITHOUT_BUF)
    return found


def _in_words(violation: _Violation, file: FileDescriptorProto | None) -> tuple[str, Breaking]:
    """Return the subject of a violation, and the change. If buf's message is not as expected, keep its own words."""
    rule, words, quoted = violation.rule, _WORDS.get(violation.rule), violation.quoted
    try:
        package = quoted[1] if rule in ("PACKAGE_SERVICE_NO_DELETE", "PACKAGE_MESSAGE_NO_DELETE") else ""
        quoted = [_CARDINALITIES.get(each, each) for each in quoted]
        subject, name, problem = (text.format(*quoted) for text in words[:3]) if words else ("", "", "")
    except IndexError:
        words = None
    if words is None:
        change = Breaking(violation.path or "the types", violation.text.rstrip("."), KEEP, rule)
        return str(change), change
    advice = words.advice
    if file is not None:
        package, (message, dot, rest) = file.package, name.partition(".")
        places = [place for place in _places(file.message_type) if place.rpartition(".")[2] == message]
        name = f"{' or '.join(places) or message}{dot}{rest}"
        # A message inside another one is that of a union: only there can the names of inner fields change.
        if rule.startswith("FIELD_") and advice in (USE_THE_LOCK, RESERVE) and message not in places:
            advice = KEEP_MEMBERS
    return f"{package} {subject}", Breaking(f"{package}.{name}".strip("."), problem, advice, rule)


def _places(messages: Iterable[DescriptorProto]) -> Iterator[str]:
    """Yield the full names of messages and of the messages inside them. Of these buf gives only the last part."""
    for message in messages:
        yield message.name
        yield from (f"{message.name}.{inner}" for inner in _places(message.nested_type))


def _named(violation: _Violation) -> str:
    """Return the full name of the message or the package that is gone."""
    return ".".join(reversed(violation.quoted))


def _sent(files: FileDescriptorSet) -> set[str]:
    """Return the full names of the messages that are sent by themselves, and of their packages.

    These are the messages that no field holds, and those that methods take and return. The packages of services are
    included too.
    """
    ours = [file for file in files.file if file.package != "google.protobuf"]
    messages = {f"{file.package}.{message.name}": message for file in ours for message in file.message_type}
    held = {each for name, message in messages.items() for each in _types_of_fields(message) if each != name}
    services = [(file.package, service) for file in ours for service in file.service]
    taken = {
        name.removeprefix(".")
        for _, service in services
        for method in service.method
        for name in (method.input_type, method.output_type)
    }
    sent = {name for name in messages if name not in held or name in taken}
    return sent | {name.rpartition(".")[0] for name in sent} | {package for package, _ in services}


def _types_of_fields(message: DescriptorProto) -> Iterator[str]:
    """Yield the full names of the types of the message's fields, at any depth."""
    yield from (field.type_name.removeprefix(".") for field in message.field)
    for nested in message.nested_type:
        yield from _types_of_fields(nested)
