"""Finds what is wrong with a message that does not fit its annotations, and where."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn, assert_never
from uuid import UUID

from pydotcompute.exceptions import MessageSerializationError, MessageTypeError
from pydotcompute.schema import arrays, basic, nodes
from pydotcompute.schema.names import shortened, type_name

__all__ = ["explain"]

_EARLIEST = datetime.min.replace(tzinfo=UTC) - nodes.EPOCH
_LATEST = datetime.max.replace(tzinfo=UTC) - nodes.EPOCH


def explain(schema: nodes.MessageSchema, message: object) -> None:
    """Raises an error about the first mistake in the message. Returns if the message fits after all.

    Raises:
        MessageTypeError: a value, or the message itself, is of the wrong type.
        MessageSerializationError: a value is out of range, or messages are nested too deep.
    """
    if type(message) is not schema.cls:
        raise MessageTypeError(schema.name, type(message).__name__)
    _Checker(schema.name).check(nodes.Message(schema.cls), message, "$", 0)


class _Checker:
    """Raises an error about the first mistake in a value. It is slow, so it runs only on values that seem wrong."""

    def __init__(self, message_type: str) -> None:
        self._message_type = message_type
        self._lengths: dict[str, tuple[int, str]] = {}

    def check(self, node: nodes.Node, value: Any, path: str, depth: int) -> None:
        match node:
            case nodes.Optional(item):
                if value is not None:
                    self.check(item, value, path, depth + nodes.is_boxed(item))
            case nodes.List(item):
                self._expect(isinstance(value, list), node, value, path)
                for index, element in enumerate(value):
                    self.check(item, element, f"{path}[{index}]", depth + nodes.is_boxed(item))
            case nodes.Tuple(item, length):
                self._expect(isinstance(value, tuple), node, value, path)
                if length is not None and len(value) != length:
                    raise MessageTypeError(str(node), f"a tuple of {len(value)}", path)
                for index, element in enumerate(value):
                    self.check(item, element, f"{path}[{index}]", depth + nodes.is_boxed(item))
            case nodes.Map(key, item):
                self._expect(isinstance(value, dict), node, value, path)
                for name, element in value.items():
                    # The key is written as JSON, whose escapes keep the path free of characters that UTF-8 cannot hold.
                    shown = json.dumps(shortened(name)) if isinstance(name, str) else shortened(ascii(name))
                    inside = f"{path}[{shown}]"
                    self.check(key, name, inside, depth)
                    self.check(item, element, inside, depth + 1 + nodes.is_boxed(item))
            case _:
                self._check_single(node, value, path, depth)

    def _check_single(self, node: nodes.Single, value: Any, path: str, depth: int) -> None:
        match node:
            case nodes.Float():
                if basic.is_too_large(value):
                    self._refuse(f"{basic.shown_int(value)} is outside the range of float", path)
                self._expect(type(value) is float, node, value, path)
            case nodes.Int():
                self._expect(type(value) is int, node, value, path)
                if not nodes.INT64_MIN <= value <= nodes.INT64_MAX:
                    self._refuse(f"{basic.shown_int(value)} is outside the range of int64", path)
            case nodes.Bool():
                self._expect(type(value) is bool, node, value, path)
            case nodes.Str() | nodes.Literal():
                self._expect(isinstance(value, str), node, value, path)
                if not basic.is_encodable(value):
                    self._refuse("the text has a lone surrogate, which UTF-8 cannot hold", path)
            case nodes.Bytes():
                self._expect(isinstance(value, bytes), node, value, path)
            case nodes.Uuid():
                self._expect(isinstance(value, UUID), node, value, path)
            case nodes.EnumNode(cls):
                self._expect(isinstance(value, cls), node, value, path)
            case nodes.Timestamp():
                self._expect(isinstance(value, datetime), node, value, path)
                if value.utcoffset() is None:
                    raise MessageTypeError(str(node), "datetime without one", path)
                if not _EARLIEST <= value - nodes.EPOCH <= _LATEST:
                    self._refuse(f"{value} is outside the years 1 to 9999 in UTC", path)
            case nodes.Duration():
                self._expect(isinstance(value, timedelta), node, value, path)
                if not -nodes.LONGEST_DURATION <= value <= nodes.LONGEST_DURATION:
                    self._refuse(f"{value} is longer than 10,000 years", path)
            case nodes.Array():
                problem = arrays.misfit(node, value, self._lengths, path)
                if problem is not None:
                    raise MessageTypeError(*problem, path)
            case nodes.Basic(kind):
                basic.explain(self._message_type, kind, value, path, depth)
            case nodes.Message(cls):
                self._expect(type(value) is cls, node, value, path)
                if depth > nodes.MAX_DEPTH:
                    self._refuse(f"messages nest more than {nodes.MAX_DEPTH} deep", path)
                for field in node.schema.fields:
                    self.check(field.node, getattr(value, field.name), f"{path}.{field.name}", depth + 1)
            case nodes.Union(members):
                member = next((member for member in members if type(value) is member.cls), None)
                if member is None:
                    raise MessageTypeError(str(node), type_name(type(value)), path)
                self.check(member, value, path, depth + 1)
            case _:
                assert_never(node)

    def _expect(self, fits: bool, node: nodes.Node, value: object, path: str) -> None:
        if not fits:
            raise MessageTypeError(str(node), type_name(type(value)), path)

    def _refuse(self, problem: str, path: str) -> NoReturn:
        raise MessageSerializationError(self._message_type, problem, path)
