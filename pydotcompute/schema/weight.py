"""Estimates how much work it is to encode a message, without encoding it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from pydotcompute.interrupts import pass_interrupt
from pydotcompute.schema import nodes

__all__ = ["ELEMENT_BYTES", "Weigh", "weigher"]

Weigh: TypeAlias = Callable[[Any, int], int]
"""Returns the weight of a value, or any number that is not below the second argument if the weight is not.

The weight is about that of the encoded value, in bytes: texts and bytes weigh their length, and each element of a list
and entry of a map weighs `ELEMENT_BYTES`. The numbers of arrays weigh nothing: they are written
without a copy.
"""

ELEMENT_BYTES = 32
"""The weight of an element of a list, and of an entry of a map."""


def weigher(schema: nodes.MessageSchema, *, texts: bool) -> Weigh | None:
    """Returns a function that weighs instances of this class; None if all of them weigh nothing.

    The function never fails: it returns 0 for a message that does not fit its annotations.

    Args:
        texts: True to weigh texts and bytes too, which costs a little for every message that has any.
    """
    fields = _Weighers(texts).fields_of(schema)
    if not fields:
        return None

    def weigh_message(message: Any, most: int) -> int:
        weight = 0
        try:
            for name, weigh in fields:
                value = getattr(message, name)
                weight += len(value) if value.__class__ is str else weigh(value, most - weight)
                if weight >= most:
                    break
        except BaseException as error:  # What is wrong is found when the message is encoded.
            pass_interrupt(error)
            return 0
        return weight

    return weigh_message


class _Weighers:
    """Makes the functions for nodes, each class only once, because classes can contain themselves."""

    def __init__(self, texts: bool) -> None:
        self._texts = texts
        self._fields: dict[type, list[tuple[str, Weigh]]] = {}

    def of(self, node: nodes.Node) -> Weigh | None:
        """Returns a function that weighs values of this node, or None if they weigh nothing."""
        match node:
            case nodes.Str() | nodes.Bytes():
                return _length if self._texts else None
            case nodes.Optional(item):
                return None if (weigh := self.of(item)) is None else _optional(weigh)
            case nodes.List(item) | nodes.Tuple(item):
                return _elements(self.of(item), lambda value: value)
            case nodes.Map(_, item):
                return _elements(self.of(item), lambda value: value.values())
            case nodes.Message():
                return self._message(node)
            case nodes.Union(members):
                return _union({member.cls: self.of(member) for member in members})
            case _:
                return None

    def _message(self, node: nodes.Message) -> Weigh | None:
        fields = self._fields.get(node.cls)
        if fields is not None:
            return _message(fields)  # They may be incomplete now, and are complete when the function is called.
        fields = self.fields_of(node.schema)
        return _message(fields) if fields else None

    def fields_of(self, schema: nodes.MessageSchema) -> list[tuple[str, Weigh]]:
        """Returns the fields of a class that weigh anything, each with the function that weighs its values."""
        fields = self._fields[schema.cls] = []
        for field in schema.fields:
            if (weigh := self.of(field.node)) is not None:
                fields.append((field.name, weigh))
        return fields


def _length(value: Any, most: int) -> int:
    return len(value)


def _optional(weigh: Weigh) -> Weigh:
    return lambda value, most: 0 if value is None else weigh(value, most)


def _elements(weigh: Weigh | None, inside: Callable[[Any], Any]) -> Weigh:
    if weigh is None:
        return lambda value, most: ELEMENT_BYTES * len(value)

    def weigh_all(value: Any, most: int) -> int:
        weight = ELEMENT_BYTES * len(value)
        if weight < most:
            for each in inside(value):
                weight += weigh(each, most - weight)
                if weight >= most:
                    break
        return weight

    return weigh_all


def _message(fields: list[tuple[str, Weigh]]) -> Weigh:
    def weigh_message(value: Any, most: int) -> int:
        weight = 0
        for name, weigh in fields:
            weight += weigh(getattr(value, name), most - weight)
            if weight >= most:
                break
        return weight

    return weigh_message


def _union(members: dict[type, Weigh | None]) -> Weigh | None:
    if not any(members.values()):
        return None

    def weigh_member(value: Any, most: int) -> int:
        weigh = members[type(value)]
        return 0 if weigh is None else weigh(value, most)

    return weigh_member
