"""The lock: a file with the number of every message field and every enum value that ever existed.

Without a lock, numbers follow the order of declaration, so they change when a field is moved or removed. With a lock
they do not change: a field in the lock keeps its number, and a new field gets a number that no field has had.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from pydotcompute.exceptions import InvalidConfigurationError

__all__ = ["LOCK_VARIABLE", "Lock", "Numbers", "in_force", "is_field_number", "numbers_above", "parse", "read", "use"]

LOCK_VARIABLE = "PYDOTCOMPUTE_PROTO_LOCK"
"""The environment variable with the path of the lock of this process."""

Numbers = Mapping[str, int]
"""The number of each field of a message, or of each value of an enum except the zero."""


@dataclass(frozen=True)
class Lock:
    """The numbers of each message and each enum, by full name. Fields inside unions and boxes are not included."""

    messages: Mapping[str, Numbers] = field(default_factory=dict)
    enums: Mapping[str, Numbers] = field(default_factory=dict)

    def text(self) -> str:
        """Returns the lock as JSON text, with one line for each field, in the order of the numbers.

        So two branches that both add a field get a merge conflict, and not two fields with the same number.
        """
        document = {
            kind: {name: dict(sorted(numbers.items(), key=_by_number)) for name, numbers in sorted(section.items())}
            for kind, section in (("enums", self.enums), ("messages", self.messages))
        }
        return json.dumps(document, indent=2) + "\n"


def parse(text: str) -> Lock:
    """Returns the lock whose text `Lock.text` wrote.

    Raises:
        ValueError: the text is not a lock. The text of the error is the reason, in one line.
    """
    if any(line.startswith("<<<<<<<") for line in text.splitlines()):
        raise ValueError("it has merge conflicts; take one side of all that was exported, and export again")
    document = json.loads(text, object_pairs_hook=_without_doubles)
    if not isinstance(document, dict) or document.keys() != {"enums", "messages"}:
        raise ValueError('it is no object with "enums" and "messages"')
    for kind, section in document.items():
        if not isinstance(section, dict) or not all(isinstance(numbers, dict) for numbers in section.values()):
            raise ValueError("it is no object of objects of numbers")
        for name, numbers in section.items():
            owners: dict[int, str] = {}
            for own, number in numbers.items():
                if type(number) is not int or not (0 < number < 2**31 if kind == "enums" else is_field_number(number)):
                    raise ValueError(f"{name}.{own} has the number {json.dumps(number)}")
                if owners.setdefault(number, own) != own:
                    raise ValueError(f"{name}.{own} has the number {number}, as {owners[number]}")
    return Lock(document["messages"], document["enums"])


def _by_number(item: tuple[str, int]) -> int:
    return item[1]


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Returns a JSON object as a dict. Raises ValueError if a name is there twice, as after a careless merge."""
    found = dict(pairs)
    if len(found) != len(pairs):
        double = next(name for name in found if sum(name == other for other, _ in pairs) > 1)
        raise ValueError(f"{double} is there twice")
    return found


def read(path: Path) -> Lock:
    """Returns the lock in a file.

    Raises:
        InvalidConfigurationError: the file cannot be read, or is not a lock.
    """
    try:
        return parse(path.read_text())
    except OSError as error:
        raise InvalidConfigurationError(LOCK_VARIABLE, path, error.strerror or str(error)) from error
    except (ValueError, RecursionError) as error:
        raise InvalidConfigurationError(LOCK_VARIABLE, path, str(error)) from error


_lock: Lock | None = None


def use(lock: Lock | None) -> None:
    """Sets the lock of this process. None means the lock that the environment variable names.

    Message classes that were introspected before keep their numbers.
    """
    global _lock
    _lock = lock


def in_force() -> Lock:
    """Returns the lock of this process, which is empty if neither `use` nor the environment has set one.

    Raises:
        InvalidConfigurationError: the file that the environment names cannot be read, or is not a lock.
    """
    if _lock is None:
        path = os.environ.get(LOCK_VARIABLE)
        use(read(Path(path)) if path else Lock())
        return in_force()
    return _lock


def is_field_number(number: int) -> bool:
    """Returns True if a field can have this number. Protobuf reserves the numbers 19000 to 19999 for itself."""
    return 0 < number < 2**29 and not 19_000 <= number <= 19_999


def numbers_above(taken: Iterable[int]) -> Iterator[int]:
    """Returns an endless iterator of valid field numbers above all of `taken`, in ascending order."""
    return filter(is_field_number, count(max(taken, default=0) + 1))
