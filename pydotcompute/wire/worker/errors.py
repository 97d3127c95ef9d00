"""Errors of this package as values of a note, and back. The statuses of gRPC are not needed, nor gRPC's import."""

from __future__ import annotations

from typing import Any

from pydotcompute import exceptions
from pydotcompute.exceptions import PyDotComputeError, Violation
from pydotcompute.wire.worker.frames import LinkError

__all__ = ["from_values", "to_values"]


def to_values(error: PyDotComputeError) -> dict[str, Any]:
    """Return an error as values of JSON."""
    fields = [getattr(error, name) for name in error.fields]
    return {"class": type(error).__name__, "fields": [_plain(value) for value in fields], "text": str(error)}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def from_values(values: dict[str, Any]) -> PyDotComputeError:
    """Return the error of which `to_values` has made these values. Raises LinkError if there is none."""
    try:
        found = getattr(exceptions, values["class"], None)
        if not (isinstance(found, type) and issubclass(found, PyDotComputeError)) or not found.fields:
            return PyDotComputeError(str(values["text"]))
        fields = dict(zip(found.fields, values["fields"], strict=True))
        if "violations" in fields:
            fields["violations"] = [Violation(*each) for each in fields["violations"]]
        return found(*fields.values())
    except (KeyError, TypeError, ValueError) as error:
        raise LinkError(f"an error is malformed: {error}") from error
