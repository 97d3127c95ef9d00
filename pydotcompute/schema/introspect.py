"""Reads message classes into nodes, once for each class."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import inspect
import re
import sys
import types
import typing
import uuid
from dataclasses import MISSING, InitVar, dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias, get_args, get_origin

import numpy

from pydotcompute.exceptions import MessageTypeError
from pydotcompute.schema import arrays, generics, lock, nodes
from pydotcompute.schema.foreign_arrays import is_cupy
from pydotcompute.schema.names import annotation_text, json_name, type_name

__all__ = ["FieldNumber", "introspect", "package_of"]

SUPPORTED = (
    "float, int, bool, str, bytes, UUID, an Enum, Literal of str, datetime, timedelta, ndarray, a dataclass, a union "
    "of dataclasses, a list, tuple, dict or None of these, or list, dict or Any alone"
)

_SCALARS = {numpy.timedelta64: "timedelta", numpy.integer: "int", numpy.floating: "float", numpy.bool_: "bool"}
_SCALARS |= {numpy.datetime64: "datetime", numpy.str_: "str", numpy.bytes_: "bytes"}
"""The classes of NumPy's scalars, and what to write instead. The first one counts: a timedelta64 is an int too."""

_LEAVES: dict[object, nodes.Node] = {
    float: nodes.Float(),
    int: nodes.Int(),
    bool: nodes.Bool(),
    str: nodes.Str(),
    bytes: nodes.Bytes(),
    uuid.UUID: nodes.Uuid(),
    datetime.datetime: nodes.Timestamp(),
    datetime.timedelta: nodes.Duration(),
}
_BASIC: dict[object, nodes.Node] = {
    list: nodes.Basic("list"),
    typing.List: nodes.Basic("list"),  # noqa: UP006  # The alias without arguments is another object than `list`.
    dict: nodes.Basic("dict"),
    typing.Dict: nodes.Basic("dict"),  # noqa: UP006
    Any: nodes.Basic("Any"),
}
_Key: TypeAlias = "tuple[type, tuple[Any, ...]]"
"""A class, and the arguments of a generic class."""
_Schemas: TypeAlias = "dict[_Key, nodes.MessageSchema | None]"
"""The classes met so far. The value is None while the class is being read; a cycle of references is allowed."""
_DEEPEST_ARGUMENTS = 30
"""How deep the arguments of a generic class may nest. A class that contains itself with longer ones would never end."""
_HEADER_ANNOTATIONS = (uuid.UUID, int, uuid.UUID | None)


@dataclass(frozen=True, slots=True)
class FieldNumber:
    """Sets a field's number on the wire: `Annotated[int, FieldNumber(7)]`. Other fields keep their own numbers."""

    number: int


def introspect(cls: type) -> nodes.MessageSchema:
    """Returns the schema of a dataclass. It is made on the first call and kept for as long as the class lives.

    Field numbers: fields are numbered 1, 2, 3, … in the order of declaration, without the header fields. `FieldNumber`
    sets the number of one field. If the lock (see `lock`) has the message, the fields in the lock have the numbers
    written there, and new fields get numbers above all that were ever used.

    Documentation: the text of a field is `field(metadata={"doc": …})`.

    Package: the protobuf package is the class attribute `__proto_package__`. Without that attribute, the package is the
    last part of the module's name, followed by ".v1".

    Raises:
        MessageTypeError: an annotation, a name or a number cannot be expressed on the wire. `path` says where, such as
            `$.items[].weight`. No schema is kept then.
    """
    schema = nodes.kept_schema(cls)
    if schema is None:
        read: _Schemas = {}
        schema = _read(cls, (), "$", read)
        for (found_class, arguments), found in read.items():
            assert found is not None
            nodes.keep_schema(found_class, arguments, found)
    return schema


def _read(cls: type, arguments: tuple[Any, ...], path: str, read: _Schemas) -> nodes.MessageSchema:
    """Introspects `cls` and, through `_node`, all classes that it refers to. Puts their schemas into `read`."""
    if not (isinstance(cls, type) and dataclasses.is_dataclass(cls)):
        raise MessageTypeError("a dataclass", type_name(cls) if isinstance(cls, type) else repr(cls), path)
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", cls.__name__):
        raise MessageTypeError("an ASCII name for the message", repr(cls.__name__), path)
    read[cls, arguments] = None
    if str(arguments).count("[") > _DEEPEST_ARGUMENTS:
        raise MessageTypeError("a generic class that contains itself only as it is", type_name(cls), path)
    declared = dataclasses.fields(cls)
    hints = generics.resolved(cls, arguments, _hints(cls, declared, path))
    name = cls.__name__ + generics.suffix(arguments)
    header = _header(cls)
    for field, annotation in zip(header, _HEADER_ANNOTATIONS, strict=False):
        if hints[field] != annotation:
            raise MessageTypeError(f"{annotation} for the header field", str(hints[field]), f"{path}.{field}")
    for field, annotation in hints.items():
        if isinstance(annotation, InitVar):
            problem = "a field that an instance holds: what only __init__ gets does not travel"
            raise MessageTypeError(problem, "InitVar", f"{path}.{field}")
    package = package_of(cls, path)
    body = {field.name: _pinned(hints[field.name]) for field in declared if field.name not in header}
    locked = lock.in_force().messages.get(f"{package}.{name}", {})
    numbers = _numbers(body, locked, path)
    fields = [
        _field(field, hints[field.name], numbers[field.name], f"{path}.{field.name}", read)
        for field in declared
        if field.name not in header
    ]
    _refuse_clashes(fields, path)
    doc = inspect.cleandoc(cls.__dict__.get("__doc__") or "")
    if doc.startswith(f"{cls.__name__}("):  # Dataclasses write this text where there is no docstring.
        doc = ""
    reserved = tuple(item for item in locked.items() if item[0] not in body)
    schema = nodes.MessageSchema(cls, name, package, doc, tuple(fields), header, reserved)
    read[cls, arguments] = schema
    return schema


def _hints(cls: type, declared: tuple[dataclasses.Field[Any], ...], path: str) -> dict[str, Any]:
    # Annotations can use more names than those of the module: the classes declared inside the class, and the class
    # itself, which a local class needs to contain itself. Only classes are added, because a field such as
    # `bytes: bytes = b""` must not hide the type.
    names = {name: value for base in cls.__mro__ for name, value in vars(base).items() if isinstance(value, type)}
    around = _names_around(cls)
    try:
        return typing.get_type_hints(cls, localns={**around, **names, cls.__name__: cls}, include_extras=True)
    except (NameError, AttributeError, TypeError, SyntaxError) as error:
        name = getattr(error, "name", None)
        where = next((f"{path}.{field.name}" for field in declared if name and name in str(field.type)), path)
        raise MessageTypeError("annotations that can be evaluated in their module", str(error), where) from error


def _names_around(cls: type) -> dict[str, Any]:
    """Returns the variables of the functions in which a class was declared and that are running now.

    With `from __future__ import annotations`, a class's annotations are texts, which can name classes of the function.
    """
    parts = cls.__qualname__.split(".<locals>.")[:-1]
    wanted = {".<locals>.".join(parts[: end + 1]) for end in range(len(parts))}
    names: dict[str, Any] = {}
    frame = inspect.currentframe() if wanted else None
    while frame is not None:
        if frame.f_code.co_qualname in wanted and frame.f_globals.get("__name__") == cls.__module__:
            names = {**frame.f_locals, **names}  # A function is met before the one around it, and hides its names.
        frame = frame.f_back
    return names


def _header(cls: type) -> tuple[str, ...]:
    """Returns all header fields if the class has all of them, and otherwise none.

    A plain nested dataclass may have a field `priority` of its own, which belongs to the body and must not be lost.
    """
    names = {field.name for field in dataclasses.fields(cls)}
    return nodes.HEADER_FIELDS if names.issuperset(nodes.HEADER_FIELDS) else ()


def _pinned(annotation: Any) -> int | None:
    """Returns the number that a FieldNumber in the annotation sets, or None."""
    extras = annotation.__metadata__ if get_origin(annotation) is Annotated else ()
    return next((extra.number for extra in reversed(extras) if isinstance(extra, FieldNumber)), None)


def _numbers(body: dict[str, int | None], locked: lock.Numbers, path: str) -> dict[str, int]:
    """Returns a number for each field of `body`, which has the numbers set by FieldNumber, or None."""
    if not locked:
        return {name: position if pin is None else pin for position, (name, pin) in enumerate(body.items(), 1)}
    owners = {number: name for name, number in locked.items()}
    for name, pin in body.items():
        if pin is not None and locked.get(name, pin) != pin:
            raise MessageTypeError(f"field number {locked[name]}, as in the lock", f"{pin}", f"{path}.{name}")
        if pin is not None and owners.get(pin, name) != name:
            problem = f"{pin}, which the lock has for {owners[pin]}"
            raise MessageTypeError("a field number of its own", problem, f"{path}.{name}")
    fresh = lock.numbers_above([*owners, *(pin for pin in body.values() if pin is not None)])
    return {name: pin if pin is not None else locked.get(name) or next(fresh) for name, pin in body.items()}


def _field(field: dataclasses.Field[Any], annotation: Any, number: int, path: str, read: _Schemas) -> nodes.Field:
    if not field.init:
        raise MessageTypeError("a field that the constructor takes", "init=False", path)
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", field.name):
        raise MessageTypeError("an ASCII name for the field", repr(field.name), path)
    if get_origin(annotation) is Annotated:
        asked = [extra for extra in annotation.__metadata__ if isinstance(extra, arrays.Array)]
        annotation = get_args(annotation)[0]
        if asked:
            annotation = Annotated[annotation, *asked]
    if not lock.is_field_number(number):
        raise MessageTypeError("a field number from 1 to 536870911, outside 19000 to 19999", str(number), path)
    factory = None if field.default_factory is MISSING else field.default_factory
    doc = field.metadata.get("doc", "")
    return nodes.Field(field.name, number, _node(annotation, path, read), field.default, factory, doc)


def _refuse_clashes(fields: list[nodes.Field], path: str) -> None:
    numbers: dict[int, str] = {}
    json_names: dict[str, str] = {}
    for field in fields:
        other = numbers.setdefault(field.number, field.name)
        if other != field.name:
            raise MessageTypeError("a field number of its own", f"{field.number}, as {other}", f"{path}.{field.name}")
        other = json_names.setdefault(json_name(field.name), field.name)
        if other != field.name:
            raise MessageTypeError("a field name of its own in JSON", f"that of {other}", f"{path}.{field.name}")


def _node(annotation: Any, path: str, read: _Schemas) -> nodes.Node:
    """Returns the node of one annotation.

    To add a kind of annotation, add a node in nodes.py, its case here, and a case at each place where mypy complains.
    """
    annotation = _plain(annotation)
    origin, args = get_origin(annotation), get_args(annotation)
    if _is_basic(annotation):
        return _BASIC[annotation]
    if origin is Annotated:
        if any(isinstance(extra, FieldNumber) for extra in annotation.__metadata__):
            raise MessageTypeError("FieldNumber on the field itself", "one inside its annotation", path)
        asked = [extra for extra in annotation.__metadata__ if isinstance(extra, arrays.Array)]
        node = _node(args[0], path, read)
        return _array(node, asked, path) if asked else node
    if origin is typing.Literal:
        if all(type(value) is str for value in args):
            return nodes.Literal(args)
    elif origin in (typing.Union, types.UnionType):
        return _union(annotation, args, path, read)
    elif origin is list and args:
        return nodes.List(_node(args[0], f"{path}[]", read))
    elif origin is tuple and args:
        return _tuple(annotation, args, path, read)
    elif origin is dict and args:
        key, value = _node(args[0], f"{path}[key]", read), _node(args[1], f"{path}[]", read)
        if isinstance(key, nodes.Str | nodes.Int | nodes.Bool):
            return nodes.Map(key, value)
        raise MessageTypeError("str, int or bool as the key of a dict", str(key), f"{path}[key]")
    elif _is_array_type(origin or annotation):
        return nodes.Array(on_device=is_cupy(origin or annotation))
    elif isinstance(annotation, type):
        if annotation in _LEAVES:
            return _LEAVES[annotation]
        if issubclass(annotation, enum.Enum):
            return _enum(annotation, path)
        if dataclasses.is_dataclass(annotation):
            return _message(annotation, (), path, read)
        if issubclass(annotation, numpy.generic):
            raise MessageTypeError(_instead_of(annotation), annotation_text(annotation), path)
    elif isinstance(origin, type) and dataclasses.is_dataclass(origin):
        return _message(origin, args, path, read)
    elif isinstance(annotation, typing.TypeVar):
        raise MessageTypeError("arguments of the generic class, as in Page[int]", f"none for {annotation}", path)
    raise MessageTypeError(SUPPORTED, annotation_text(annotation), path)


def _instead_of(scalar: type[numpy.generic]) -> str:
    """Returns what to write instead of the class of NumPy's scalars."""
    for cls, name in _SCALARS.items():
        if issubclass(scalar, cls):
            return f"{name}, and not NumPy's"
    return "ndarray, which may have no dimension"


def _plain(annotation: Any) -> Any:
    """Returns the type that a NewType, or an alias made by the statement `type`, stands for."""
    while True:
        if isinstance(annotation, typing.NewType):
            annotation = annotation.__supertype__
        elif type(annotation).__name__ == "TypeAliasType":
            annotation = annotation.__value__
        else:
            return annotation


def _is_basic(annotation: Any) -> bool:
    """Returns True for a `list`, a `dict` or `Any` without arguments."""
    return any(annotation is basic for basic in _BASIC)


def _array(node: nodes.Node, asked: list[arrays.Array], path: str) -> nodes.Array:
    if not isinstance(node, nodes.Array) or len(asked) != 1:
        raise MessageTypeError("one Array, on an ndarray itself", f"{len(asked)} on {node}", path)
    arrays.check_spec(asked[0], path)
    return nodes.Array(asked[0].dtype, asked[0].shape, node.on_device or asked[0].on_device)


def _union(annotation: Any, args: tuple[Any, ...], path: str, read: _Schemas) -> nodes.Node:
    rest = [arg for arg in args if arg is not types.NoneType]
    found = [_node(arg, path, read) for arg in rest]
    if len(found) == 1:
        node = found[0]
    else:
        node = union = nodes.Union(tuple(node for node in found if isinstance(node, nodes.Message)))
        names = {name for name, _ in union.named()}
        if len(names) != len(found):
            raise MessageTypeError("a union of dataclasses with different names", annotation_text(annotation), path)
    return node if len(rest) == len(args) else nodes.Optional(node)


def _tuple(annotation: Any, args: tuple[Any, ...], path: str, read: _Schemas) -> nodes.Tuple:
    variadic = args[-1] is Ellipsis
    items = args[:-1] if variadic else args
    if any(item != items[0] for item in items):
        raise MessageTypeError(
            "a tuple whose items are all of one type, or a dataclass", annotation_text(annotation), path
        )
    return nodes.Tuple(_node(items[0], f"{path}[]", read), None if variadic else len(items))


def _enum(cls: type[enum.Enum], path: str) -> nodes.EnumNode:
    package = package_of(cls, path)
    node = nodes.EnumNode(cls, package, tuple(lock.in_force().enums.get(f"{package}.{cls.__name__}", {}).items()))
    names = {name for _, name, _ in node.values()} - {node.prefix + "UNSPECIFIED"}
    if not names or len(names) != len(cls) or not all(re.fullmatch("[A-Z][A-Z0-9_]*", name) for name in names):
        expected = "an Enum with members, whose ASCII names differ in more than case, and none of them UNSPECIFIED"
        raise MessageTypeError(expected, type_name(cls), path)
    if issubclass(cls, enum.Flag):
        raise MessageTypeError("an Enum, or an int for flags", type_name(cls), path)
    return node


def _message(cls: type, arguments: tuple[Any, ...], path: str, read: _Schemas) -> nodes.Message:
    if (cls, arguments) not in read and nodes.kept_schema(cls, arguments) is None:
        _read(cls, arguments, path, read)
    header = _header(cls)
    for field in dataclasses.fields(cls):
        if field.name in header and field.default is MISSING and field.default_factory is MISSING:
            raise MessageTypeError("a default for the header of a nested message", "none", f"{path}.{field.name}")
    return nodes.Message(cls, arguments)


def _is_array_type(cls: Any) -> bool:
    """Returns True for the ndarray of NumPy or CuPy. Only names are compared, so neither needs to be installed."""
    module = getattr(cls, "__module__", None) or ""
    return getattr(cls, "__qualname__", "") == "ndarray" and module.partition(".")[0] in ("numpy", "cupy")


def package_of(cls: type, path: str) -> str:
    """Returns the protobuf package of a message class or an enum: see `introspect`.

    Raises:
        MessageTypeError: the class attribute `__proto_package__` is not a valid package name.
    """
    package = getattr(cls, "__proto_package__", None)
    if package is None:
        module = cls.__module__
        if module == "__main__":
            module = Path(getattr(sys.modules["__main__"], "__file__", None) or "main").stem
        stem = re.sub("[^a-z0-9]+", "_", module.rpartition(".")[2].lower()).strip("_")
        package = f"{stem if stem[:1].isalpha() else f'm_{stem}'}.v1"
    if not isinstance(package, str) or not re.fullmatch(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*", package):
        raise MessageTypeError("a protobuf package such as 'calculator.v1'", repr(package), path)
    return package
