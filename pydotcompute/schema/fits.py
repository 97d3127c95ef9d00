"""The generated test of a message class: does a message fit its annotations as it is?

Nearly every message does. So for each class there is one function of straight lines that tells only whether.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import assert_never
from uuid import UUID

import numpy

from pydotcompute.schema import arrays, nodes
from pydotcompute.schema.codegen import Source

__all__ = ["compiled", "emit_fields", "has_numbers", "is_encodable"]


def compiled(
    schema: nodes.MessageSchema, otherwise: Callable[[object], None], *, numbers_only: bool
) -> Callable[[object], None]:
    """A function that returns if the message fits as it is, and else returns `otherwise(message)`.

    With `numbers_only` it looks at nothing but the types of numbers, and at what it meets on the way to them. It may
    take a message that fits for one that does not (a `str` of a subclass, say), but never the reverse.
    """
    source = Source(f"door of {schema.full_name}")
    fits = {found.cls: f"fits_{position}" for position, found in enumerate(nodes.reachable(schema))}
    # The lengths of the arrays' dimensions that have names: the same in all of the message.
    lengths = ", lengths" if not numbers_only and _has_named_lengths(schema) else ""
    for found in nodes.reachable(schema):
        with source.block(f"def {fits[found.cls]}(message, depth{lengths}):"):
            source.line(f"if depth > {nodes.MAX_DEPTH}: return False")
            emit_fields(source, found, fits, "return False", "depth", numbers_only, lengths=lengths)
            source.line("return True")
    failure = f"return {source.bind(otherwise, 'otherwise')}(message)"
    with source.block("def door(message):"):
        if not numbers_only:
            source.line(f"if type(message) is not {source.bind(schema.cls, 'cls')}: {failure}")
        if lengths:
            source.line("lengths = {}")
        emit_fields(source, schema, fits, failure, "0", numbers_only, lengths=lengths)
        source.line("return None")
    door: Callable[[object], None] = source.run()["door"]
    return door


def emit_fields(
    source: Source,
    schema: nodes.MessageSchema,
    fits: dict[type, str],
    failure: str,
    depth: str,
    numbers_only: bool,
    in_variables: bool = False,
    lengths: str = "",
) -> None:
    def emit(node: nodes.Node, value: str, depth: str) -> None:
        if numbers_only and not has_numbers(node):
            return
        match node:
            case nodes.Float():
                source.line(f"if type({value}) is not float: {failure}")
            case nodes.Int():
                in_range = "" if numbers_only else f" or not {nodes.INT64_MIN} <= {value} <= {nodes.INT64_MAX}"
                source.line(f"if type({value}) is not int{in_range}: {failure}")
            case nodes.Bool():
                source.line(f"if {value} is not True and {value} is not False: {failure}")
            case nodes.Str() | nodes.Literal():
                encodable = source.bind(is_encodable, "is_encodable")
                fits_utf8 = f"({value}.isascii() or {encodable}({value}))"
                source.line(f"if type({value}) is not str or not {fits_utf8}: {failure}")
            case nodes.Bytes():
                source.line(f"if type({value}) is not bytes: {failure}")
            case nodes.Uuid():
                source.line(f"if type({value}) is not {source.bind(UUID, 'UUID')}: {failure}")
            case nodes.EnumNode(cls):
                source.line(f"if type({value}) is not {source.bind(cls, 'enum')}: {failure}")
            case nodes.Timestamp():
                types, utc = source.bind(datetime, "datetime"), source.bind(UTC, "UTC")
                source.line(f"if type({value}) is not {types} or {value}.tzinfo is not {utc}: {failure}")
            case nodes.Duration():
                types, longest = source.bind(timedelta, "timedelta"), source.bind(nodes.LONGEST_DURATION, "longest")
                source.line(f"if type({value}) is not {types} or not -{longest} <= {value} <= {longest}: {failure}")
            case nodes.Array():
                if numbers_only:
                    source.line(f"if type({value}) is not {source.bind(numpy.ndarray, 'ndarray')}: {failure}")
                else:
                    fits_array = source.bind(arrays.tester(node), "fits_array")
                    source.line(f"if not {fits_array}({value}, {lengths.strip(', ') or '{}'}): {failure}")
            case nodes.Optional(item):
                with source.block(f"if {value} is not None:"):
                    emit(item, value, f"{depth} + 1" if nodes.is_boxed(item) else depth)
            case nodes.List(item) | nodes.Tuple(item):
                wanted = "list" if isinstance(node, nodes.List) else "tuple"
                length = node.length if isinstance(node, nodes.Tuple) else None
                wrong_length = "" if length is None else f" or len({value}) != {length}"
                source.line(f"if type({value}) is not {wanted}{wrong_length}: {failure}")
                each = source.fresh("item")
                with source.block(f"for {each} in {value}:"):
                    emit(item, each, f"{depth} + 1" if nodes.is_boxed(item) else depth)
            case nodes.Map(key, item):
                source.line(f"if type({value}) is not dict: {failure}")
                each = source.fresh("item")
                with source.block(f"for {each}_key, {each} in {value}.items():"):
                    source.line("pass")
                    emit(key, f"{each}_key", depth)
                    emit(item, each, f"{depth} + 2" if nodes.is_boxed(item) else f"{depth} + 1")
            case nodes.Message(cls):
                test = (
                    f"type({value}) is not {source.bind(cls, 'cls')} or not {fits[cls]}({value}, {depth} + 1{lengths})"
                )
                source.line(f"if {test}: {failure}")
            case nodes.Union(members):
                tests = [
                    f"(type({value}) is {source.bind(member.cls, 'cls')}"
                    f" and {fits[member.cls]}({value}, {depth} + 2{lengths}))"
                    for member in members
                ]
                source.line(f"if not ({' or '.join(tests)}): {failure}")
            case _:
                assert_never(node)

    for field in schema.fields:
        if not numbers_only or has_numbers(field.node):
            value = field.name if in_variables else source.fresh("value")
            if not in_variables:
                source.line(f"{value} = message.{field.name}")
            emit(field.node, value, depth)


def has_numbers(node: nodes.Node) -> bool:
    """Returns True if normalizing can change anything in a value of this node."""
    inside = list(nodes.walk(node))
    for message in [item for item in inside if isinstance(item, nodes.Message)]:
        inside += nodes.walk_all(message.schema)
    return any(isinstance(item, nodes.Float | nodes.Int | nodes.Bool | nodes.Array) for item in inside)


def _has_named_lengths(schema: nodes.MessageSchema) -> bool:
    asked = [node for node in nodes.walk_all(schema) if isinstance(node, nodes.Array)]
    return any(isinstance(length, str) for node in asked for length in node.shape or ())


def is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
