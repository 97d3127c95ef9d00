"""Converts names of messages, fields and classes to the forms that protobuf, JSON and errors use."""

from __future__ import annotations

import re

__all__ = ["LONGEST_SHOWN", "annotation_text", "camel", "json_name", "shortened", "snake", "type_name"]

LONGEST_SHOWN = 40
"""The largest number of characters of a received value that the text of an error quotes."""


def snake(name: str) -> str:
    """Returns a class name in snake case: `HTTPRequest2Go` → `http_request2_go`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def camel(name: str) -> str:
    """Returns a field name in camel case, as protoc names the entry type of a map: `field_name` → `FieldName`."""
    return "".join(part[:1].upper() + part[1:] for part in name.split("_"))


def json_name(name: str) -> str:
    """Returns the name of a field in JSON, as protoc makes it: `field_name` → `fieldName`, and `name_` → `name`."""
    return re.sub("_+(.?)", lambda match: match[1].upper(), name)


def annotation_text(annotation: object) -> str:
    """Returns an annotation as errors show it."""
    return type_name(annotation) if type(annotation) is type else str(annotation)


def shortened(text: str) -> str:
    """Returns a text of at most `LONGEST_SHOWN` characters: `text` itself, or its beginning and an ellipsis.

    An error shortens what it quotes before it makes its text of it, because a client can send very much.
    """
    return text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN - 1]}…"


def type_name(cls: type) -> str:
    """Returns the name of a class as errors show it: with its module, unless the class is built in."""
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
