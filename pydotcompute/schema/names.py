"""Converts names of messages, fields and classes to the forms that protobuf, JSON and errors use."""

from __future__ import annotations

import re

__all__ = ["annotation_text", "camel", "json_name", "snake", "type_name"]


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


def type_name(cls: type) -> str:
    """Returns the name of a class as errors show it: with its module, unless the class is built in."""
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
