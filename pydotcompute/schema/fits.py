"""The generated test of a message class: does a message fit its annotations as it is?

Nearly every message fits. So each class has one generated function that finds only yes or no, and finds it fast.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import assert_never
from uuid import UUID

import numpy

from pydotcompute.schema import arrays, basic, nodes
from pydotcompute.schema.codegen import Source

__all__ = ["FieldTests", "compiled", "has_numbers"]


def compiled(
    schema: nodes.MessageSchema, otherwise: Callable[[object], None], *, numbers_only: bool
) -> Callable[[object], None]:
    """Returns a function that returns None if a message fits as it is, and otherwise returns `otherwise(message)`.

    With `numbers_only`, the function tests only the types of numbers and arrays, and of the containers and messages
    around them. The function may call `otherwise` for a message that does fit, for example one with an instance of a
    subclass of `str`. It never lets a message pass that does not fit.
    """
    source = Source(f"door of {schema.full_name}")
    fits = {found: f"fits_{position}" for position, found in enumerate(nodes.reachable(schema))}
    # The generated functions hand on the lengths of named dimensions: a name means one length in the whole message.
    lengths = ", lengths" if not numbers_only and _has_named_lengths(schema) else ""
    for found in nodes.reachable(schema):
        with source.block(f"def {fits[found]}(message, depth{lengths}):"):
            source.line(f"if depth > {nodes.MAX_DEPTH}: return False")
            FieldTests(source, fits, "return False", numbers_only=numbers_only, lengths=lengths).emit(found, "depth")
            source.line("return True")
    failure = f"return {source.bind(otherwise, 'otherwise')}(message)"
    with source.block("def door(message):"):
        if not numbers_only:
            source.line(f"if type(message) is not {source.bind(schema.cls, 'cls')}: {failure}")
        if lengths:
            source.line("lengths = {}")
        FieldTests(source, fits, failure, numbers_only=numbers_only, lengths=lengths).emit(schema, "0")
        source.line("return None")
    door: Callable[[object], None] = source.run()["door"]
    return door


class FieldTests:
    """Adds lines to a generated function that test the fields of `message`.

    Args:
        source: the source that the lines are added to.
        fits: for the schema of each message inside, the name of the function that tests it.
        failure: the statement that runs where a value does not fit. It leaves the function.
        numbers_only: True if only the types of numbers and arrays are tested.
        lengths: the argument, with a comma before it, for the lengths of named dimensions. Empty if there are none.
    """

    def __init__(
        self,
        source: Source,
        fits: dict[nodes.MessageSchema, str],
        failure: str,
        *,
        numbers_only: bool,
        lengths: str = "",
    ) -> None:
        self._source = source
        self._fits = fits
        self._failure = failure
        self._numbers_only = numbers_only
        self._lengths = lengths

    def emit(self, schema: nodes.MessageSchema, depth: str, in_variables: bool = False) -> None:
        """Adds the tests of all fields.

        `depth` is an expression for how deep the message is nested. With `in_variables`, each field is already in a
        variable of its name.
        """
        for field in schema.fields:
            if not self._numbers_only or has_numbers(field.node):
                value = field.name if in_variables else self._source.fresh("value")
                if not in_variables:
                    self._source.line(f"{value} = message.{field.name}")
                self._emit(field.node, value, depth)

    def _emit(self, node: nodes.Node, value: str, depth: str) -> None:
        if self._numbers_only and not has_numbers(node):
            return
        source = self._source
        match node:
            case nodes.Optional(item):
                with source.block(f"if {value} is not None:"):
                    self._emit(item, value, _deeper(item, depth))
            case nodes.List(item) | nodes.Tuple(item):
                wanted = "list" if isinstance(node, nodes.List) else "tuple"
                length = node.length if isinstance(node, nodes.Tuple) else None
                wrong_length = "" if length is None else f" or len({value}) != {length}"
                source.line(f"if type({value}) is not {wanted}{wrong_length}: {self._failure}")
                each = source.fresh("item")
                with source.block(f"for {each} in {value}:"):
                    self._emit(item, each, _deeper(item, depth))
            case nodes.Map(key, item):
                source.line(f"if type({value}) is not dict: {self._failure}")
                each = source.fresh("item")
                with source.block(f"for {each}_key, {each} in {value}.items():"):
                    source.line("pass")
                    self._emit(key, f"{each}_key", depth)
                    self._emit(item, each, _deeper(item, f"{depth} + 1"))
            case _:
                source.line(f"if {self._misfit(node, value, depth)}: {self._failure}")

    def _misfit(self, node: nodes.Single, value: str, depth: str) -> str:
        """Returns an expression that is true for a value that does not fit."""
        bind = self._source.bind
        match node:
            case nodes.Float():
                return f"type({value}) is not float"
            case nodes.Int():
                in_range = f" or not {nodes.INT64_MIN} <= {value} <= {nodes.INT64_MAX}"
                return f"type({value}) is not int{'' if self._numbers_only else in_range}"
            case nodes.Bool():
                return f"{value} is not True and {value} is not False"
            case nodes.Str() | nodes.Literal():
                encodable = bind(basic.is_encodable, "is_encodable")
                return f"type({value}) is not str or not ({value}.isascii() or {encodable}({value}))"
            case nodes.Bytes():
                return f"type({value}) is not bytes"
            case nodes.Uuid():
                return f"type({value}) is not {bind(UUID, 'UUID')}"
            case nodes.EnumNode(cls):
                return f"type({value}) is not {bind(cls, 'enum')}"
            case nodes.Timestamp():
                return f"type({value}) is not {bind(datetime, 'datetime')} or {value}.tzinfo is not {bind(UTC, 'UTC')}"
            case nodes.Duration():
                types, longest = bind(timedelta, "timedelta"), bind(nodes.LONGEST_DURATION, "longest")
                return f"type({value}) is not {types} or not -{longest} <= {value} <= {longest}"
            case nodes.Array() if self._numbers_only:
                return f"type({value}) is not {bind(numpy.ndarray, 'ndarray')}"
            case nodes.Array():
                return f"not {bind(arrays.tester(node), 'fits_array')}({value}, {self._lengths.strip(', ') or '{}'})"
            case nodes.Basic(kind):
                return f"not {bind(basic.TESTS[kind], 'is_basic')}({value}, {depth})"
            case nodes.Message(cls):
                test = f"{self._fits[node.schema]}({value}, {depth} + 1{self._lengths})"
                return f"type({value}) is not {bind(cls, 'cls')} or not {test}"
            case nodes.Union(members):
                tests = [
                    f"(type({value}) is {bind(member.cls, 'cls')}"
                    f" and {self._fits[member.schema]}({value}, {depth} + 2{self._lengths}))"
                    for member in members
                ]
                return f"not ({' or '.join(tests)})"
            case _:
                assert_never(node)


def _deeper(item: nodes.Node, depth: str) -> str:
    """Returns an expression for the depth of the elements of a container. A box counts, as it is a message too."""
    return f"{depth} + 1" if nodes.is_boxed(item) else depth


def has_numbers(node: nodes.Node) -> bool:
    """Returns True if normalizing can change anything in a value of this node."""
    inside = list(nodes.walk(node))
    for message in [item for item in inside if isinstance(item, nodes.Message)]:
        inside += nodes.walk_all(message.schema)
    return any(isinstance(item, nodes.Float | nodes.Int | nodes.Bool | nodes.Array | nodes.Basic) for item in inside)


def _has_named_lengths(schema: nodes.MessageSchema) -> bool:
    asked = [node for node in nodes.walk_all(schema) if isinstance(node, nodes.Array)]
    return any(isinstance(length, str) for node in asked for length in node.shape or ())
