"""The annotations of generic dataclasses, with the arguments that a use of the class gives."""

from __future__ import annotations

import inspect
import re
import types
import typing
from typing import Any, TypeVar, get_args, get_origin

from pydotcompute.schema.names import camel, snake

__all__ = ["resolved", "suffix"]

_Bound = dict[Any, Any]
"""The argument for each type variable of a class."""


def resolved(cls: type, arguments: tuple[Any, ...], hints: dict[str, Any]) -> dict[str, Any]:
    """Returns the annotations of a class with an argument in place of each type variable that has one.

    Args:
        cls: the class, which may also inherit from a generic class with arguments.
        arguments: the arguments of the class itself.
        hints: the annotations, those that are inherited included.
    """
    bound: dict[type, _Bound] = {}
    _bind(cls, dict(zip(getattr(cls, "__parameters__", ()), arguments, strict=False)), bound)
    if not any(bound.values()):
        return hints
    found = {}
    for name, annotation in hints.items():
        owner = next((base for base in cls.__mro__ if name in inspect.get_annotations(base)), cls)
        found[name] = _substituted(annotation, bound.get(owner, {}))
    return found


def _bind(cls: type, own: _Bound, bound: dict[type, _Bound]) -> None:
    """Puts the arguments of `cls`, and of the classes that it inherits from, into `bound`."""
    if cls in bound:
        return
    bound[cls] = own
    for base in _original_bases(cls):
        origin = get_origin(base) or base
        if isinstance(origin, type):
            arguments = [_substituted(argument, own) for argument in get_args(base)]
            _bind(origin, dict(zip(getattr(origin, "__parameters__", ()), arguments, strict=False)), bound)


def _original_bases(cls: type) -> tuple[Any, ...]:
    return cls.__dict__.get("__orig_bases__", cls.__bases__)  # type: ignore[no-any-return]


def _substituted(annotation: Any, bound: _Bound) -> Any:
    if isinstance(annotation, TypeVar):
        return bound.get(annotation, annotation)
    variables = () if isinstance(annotation, type) else getattr(annotation, "__parameters__", ())
    if not variables or not any(variable in bound for variable in variables):
        return annotation
    arguments = tuple(bound.get(variable, variable) for variable in variables)
    return annotation[arguments[0] if len(arguments) == 1 else arguments]


def suffix(arguments: tuple[Any, ...]) -> str:
    """Returns what the name of a protobuf message says of the arguments: `ListFloat` for `list[float]`."""
    return "".join(_words(argument) for argument in arguments)


def _words(argument: Any) -> str:
    if isinstance(argument, type | typing.NewType) and not get_args(argument):
        return camel(snake(argument.__name__))
    origin = get_origin(argument)
    if origin in (typing.Union, types.UnionType):
        return "Or".join(_words(each) for each in get_args(argument))
    if origin is not None:
        name = getattr(origin, "__name__", str(origin))
        return camel(snake(name)) + "".join(_words(each) for each in get_args(argument))
    return camel("_".join(re.findall("[A-Za-z0-9]+", str(argument))))
