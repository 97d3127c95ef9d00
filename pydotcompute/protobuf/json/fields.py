"""Describes the fields of a message in JSON, for people who are about to write one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from pydotcompute.protobuf.conventions import comments_of_fields, is_map, message_type
from pydotcompute.protobuf.json.values import kind_of

__all__ = ["field_lines"]

Row = tuple[str, str, str]


def field_lines(message: Descriptor, files: Iterable[FileDescriptorProto]) -> list[str]:
    """Returns a line for each field, at any depth, with its place, its kind of value and its documentation."""
    comments = {name: " ".join(text.split()) for name, text in comments_of_fields(files).items()}
    rows = list(_rows(message, "", comments, (message.full_name,)))
    places, kinds = (max((len(row[column]) for row in rows), default=0) for column in (0, 1))
    return [f"{place:{places}}  {kind:{kinds}}  {doc}".rstrip() for place, kind, doc in rows] or ["(none)"]


def _rows(message: Descriptor, before: str, comments: dict[str, str], outer: tuple[str, ...]) -> Iterator[Row]:
    for field in message.fields:
        place = f"{before}.{field.name}" if before else field.name
        doc = comments.get(field.full_name, "")
        value = field
        if is_map(field):
            value = message_type(field).fields_by_name["value"]
            yield place, "an object", doc
            place, doc = f'{place}["…"]', ""
        elif field.is_repeated:
            yield place, "a list", doc
            place, doc = f"{place}[]", ""
        yield from _value_rows(value, place, doc, comments, outer)


def _value_rows(
    field: FieldDescriptor, place: str, doc: str, comments: dict[str, str], outer: tuple[str, ...]
) -> Iterator[Row]:
    kind, message = kind_of(field), field.message_type
    if message is None or not kind.startswith("an object"):
        yield place, kind, doc
    elif message.full_name in outer:
        yield place, f"{kind}, again", doc
    else:
        yield place, kind, doc
        yield from _rows(message, place, comments, (*outer, message.full_name))
