"""Names of messages, fields and classes, in the forms that they have in different places."""

from __future__ import annotations

import re

__all__ = ["camel", "json_name", "snake", "type_name"]


def snake(name: str) -> str:
    """`HTTPRequest2Go` → `http_request2_go`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def camel(name: str) -> str:
    """`field_name` → `FieldName`, as protoc names the entry type of a map field."""
    return "".join(part[:1].upper() + part[1:] for part in name.split("_"))


def json_name(name: str) -> str:
    """`field_name` → `fieldName`, as protoc names a field in JSON. Underscores at the end are dropped too."""
    return re.sub("_+(.?)", lambda match: match[1].upper(), name)


def type_name(cls: type) -> str:
    """A class as errors name it: with its module, unless built in."""
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
