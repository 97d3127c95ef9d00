"""The schema of a message class as data: a small immutable node for each kind of annotation.

The text of a node (`str(node)`) is the annotation as a user would write it. Errors quote this text.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass
from datetime import UTC, datetime, timedelta
from math import copysign
from typing import Any, TypeAlias, TypeVar, cast
from typing import Literal as OneOf

from pydotcompute.schema.lock import numbers_above
from pydotcompute.schema.names import annotation_text, snake, type_name

__all__ = [
    "EPOCH",
    "HEADER_FIELDS",
    "INT64_MAX",
    "INT64_MIN",
    "LONGEST_DURATION",
    "MAX_DEPTH",
    "Array",
    "Basic",
    "Bool",
    "Bytes",
    "Duration",
    "EnumNode",
    "Field",
    "Float",
    "Int",
    "List",
    "Literal",
    "Map",
    "Message",
    "MessageSchema",
    "Node",
    "Optional",
    "Single",
    "Str",
    "Timestamp",
    "Tuple",
    "Union",
    "Uuid",
    "is_boxed",
    "keep_on_class",
    "keep_schema",
    "kept_on_class",
    "kept_schema",
    "reachable",
    "walk",
    "walk_all",
]

HEADER_FIELDS = ("message_id", "priority", "correlation_id")
"""The fields that the runtime reads. They are sent beside the body, never in it."""

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
"""The instant that a google.protobuf.Timestamp of zero stands for."""
LONGEST_DURATION = timedelta(seconds=315_576_000_000)
"""The longest google.protobuf.Duration, in both directions."""

MAX_DEPTH = 90
"""The largest depth to which messages may nest. Protobuf's parsers stop at 100 levels. The other 10 levels are for the
timestamps, boxes and map entries inside the innermost message."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Float:
    """`float`, on the wire a double. Every bit is kept, also of NaN, infinities and -0.0."""

    def __str__(self) -> str:
        return "float"


@dataclass(frozen=True, slots=True)
class Int:
    """`int`, on the wire an int64. Values outside the range are refused, never truncated."""

    def __str__(self) -> str:
        return "int"


@dataclass(frozen=True, slots=True)
class Bool:
    """`bool`, on the wire a bool."""

    def __str__(self) -> str:
        return "bool"


@dataclass(frozen=True, slots=True)
class Str:
    """`str`, on the wire a string. UTF-8 must be able to encode it, so lone surrogates are refused."""

    def __str__(self) -> str:
        return "str"


@dataclass(frozen=True, slots=True)
class Bytes:
    """`bytes`, on the wire bytes."""

    def __str__(self) -> str:
        return "bytes"


@dataclass(frozen=True, slots=True)
class Uuid:
    """`uuid.UUID`, on the wire a string in the canonical form of 36 characters."""

    def __str__(self) -> str:
        return "UUID"


@dataclass(frozen=True, slots=True)
class Literal:
    """`Literal["add", "sub"]`, on the wire a string.

    The values are only documentation. They are not enforced, because an actor may want to answer "unknown operation"
    itself.
    """

    values: tuple[str, ...]

    def __str__(self) -> str:
        return "str"


@dataclass(frozen=True, slots=True)
class EnumNode:
    """An `enum.Enum`, on the wire a protobuf enum whose values are named `<ENUM_NAME>_<MEMBER>`.

    Number 0 is `<ENUM_NAME>_UNSPECIFIED`, which is not a member. If all Python values of the members are distinct
    positive int32, each member has its Python value as its number. Otherwise the members are numbered 1, 2, 3, … in the
    order of declaration.

    If the lock has the enum, its values in the lock have the numbers written there. A new member has its Python value
    as its number if no value in the lock has that number, and otherwise the next number above all others.
    """

    cls: type[enum.Enum]
    package: str
    locked: tuple[tuple[str, int], ...] = ()
    """The names and numbers of this enum's values in the lock."""

    @property
    def name(self) -> str:
        """The name of the protobuf enum, without its package."""
        return self.cls.__name__

    @property
    def full_name(self) -> str:
        """The name of the protobuf enum, with its package."""
        return f"{self.package}.{self.name}"

    @property
    def prefix(self) -> str:
        """The beginning of the names of all protobuf values, such as `ENUM_NAME_`."""
        return snake(self.name).upper() + "_"

    def values(self) -> list[tuple[enum.Enum, str, int]]:
        """Returns each member with the name and the number of its protobuf value."""
        members = list(self.cls)
        usable = all(type(m.value) is int and 0 < m.value < 2**31 for m in members)
        names = [self.prefix + snake(member.name).upper() for member in members]
        numbers = dict(self.locked)
        taken = set(numbers.values())
        if usable:
            new = [(name, m.value) for name, m in zip(names, members, strict=True) if name not in numbers]
            numbers.update((name, value) for name, value in new if value not in taken)
        fresh = numbers_above(numbers.values())
        return [
            (member, name, numbers[name] if name in numbers else next(fresh))
            for member, name in zip(members, names, strict=True)
        ]

    @property
    def reserved(self) -> tuple[tuple[str, int], ...]:
        """The names and numbers of former values, which are in the lock and no longer in the enum."""
        names = {name for _, name, _ in self.values()}
        return tuple(item for item in self.locked if item[0] not in names)

    def __str__(self) -> str:
        return type_name(self.cls)


@dataclass(frozen=True, slots=True)
class Timestamp:
    """`datetime` with a time zone, on the wire a google.protobuf.Timestamp.

    The instant is kept, but the time zone becomes UTC.
    """

    def __str__(self) -> str:
        return "datetime with a time zone"


@dataclass(frozen=True, slots=True)
class Duration:
    """`timedelta`, on the wire a google.protobuf.Duration, which holds at most 10,000 years."""

    def __str__(self) -> str:
        return "timedelta"


@dataclass(frozen=True, slots=True)
class Array:
    """`numpy.ndarray` or `cupy.ndarray` of numbers, on the wire a pydotcompute.v1.Tensor.

    `arrays.Array` explains the dtype and the shape.
    """

    dtype: str | None = None
    shape: tuple[int | str | None, ...] | None = None
    on_device: bool = False
    """True if CuPy's arrays in this field stay on the GPU when they are sent in-process."""

    @property
    def wanted(self) -> str:
        """The requirements in words, such as "float32 array of shape (n, 3)". Empty if any array fits."""
        if self.dtype is None and self.shape is None:
            return ""
        text = "array" if self.dtype is None else f"{self.dtype} array"
        if self.shape is None:
            return text
        lengths = ", ".join(map(str, self.shape))
        return f"{text} of shape ({lengths}{',' if len(self.shape) == 1 else ''})"

    def __str__(self) -> str:
        return "ndarray"


@dataclass(frozen=True, slots=True)
class Basic:
    """A `list`, a `dict` or `Any` without arguments, on the wire a ListValue, a Struct or a Value of google.protobuf.

    The values inside are those that JSON has: see `basic`.
    """

    kind: OneOf["list", "dict", "Any"]

    def __str__(self) -> str:
        return self.kind


@dataclass(frozen=True, slots=True)
class Optional:
    """`X | None`. `None` is absent on the wire, and an empty value is present, so the two stay distinct."""

    item: Node

    def __str__(self) -> str:
        return f"{self.item} | None"


@dataclass(frozen=True, slots=True)
class List:
    """`list[X]`, on the wire a repeated field."""

    item: Node

    def __str__(self) -> str:
        return f"list[{self.item}]"


@dataclass(frozen=True, slots=True)
class Tuple:
    """`tuple[X, ...]`, or `tuple[X, X]` with a fixed length, on the wire a repeated field."""

    item: Node
    length: int | None
    """The number of elements, or None if any number is allowed."""

    def __str__(self) -> str:
        items = f"{self.item}, ..." if self.length is None else ", ".join([str(self.item)] * self.length)
        return f"tuple[{items}]"


@dataclass(frozen=True, slots=True)
class Map:
    """`dict[K, V]`, on the wire a map. K is str, int or bool. The order of the entries is not kept."""

    key: Str | Int | Bool
    value: Node

    def __str__(self) -> str:
        return f"dict[{self.key}, {self.value}]"


@dataclass(frozen=True, slots=True)
class Message:
    """Another dataclass. The node refers to the class, not to its schema, so that a message can contain itself.

    The header fields of a nested message are not sent. The receiver sees the defaults of these fields.
    """

    cls: type
    arguments: tuple[Any, ...] = ()
    """The arguments of a generic class: `Page[int]` has the class `Page` and the argument `int`."""

    @property
    def schema(self) -> MessageSchema:
        """The schema of the class. `introspect` keeps it on the class before it hands out this node."""
        return cast(MessageSchema, kept_schema(self.cls, self.arguments))

    def __str__(self) -> str:
        name = type_name(self.cls)
        return f"{name}[{', '.join(map(annotation_text, self.arguments))}]" if self.arguments else name


@dataclass(frozen=True, slots=True)
class Union:
    """A union of dataclasses, on the wire a message with a oneof that has a field for each class, named after it."""

    members: tuple[Message, ...]

    def named(self) -> list[tuple[str, Message]]:
        """Returns each member with its field name in the oneof. The fields are numbered 1, 2, 3, and so on."""
        return [(snake(member.cls.__name__), member) for member in self.members]

    def __str__(self) -> str:
        return " | ".join(map(str, self.members))


Single: TypeAlias = (
    Float
    | Int
    | Bool
    | Str
    | Bytes
    | Uuid
    | Literal
    | EnumNode
    | Timestamp
    | Duration
    | Array
    | Basic
    | Message
    | Union
)
"""The nodes that protobuf can hold directly as an element of a list. The others need a box: see `is_boxed`."""
Node: TypeAlias = Single | Optional | List | Tuple | Map

_ZERO: dict[type, object] = {Float: 0.0, Int: 0, Bool: False, Str: "", Literal: "", Bytes: b""}


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message's body."""

    name: str
    number: int
    node: Node
    default: object = MISSING
    default_factory: Callable[[], object] | None = None
    doc: str = ""

    @property
    def has_default(self) -> bool:
        """True if the constructor of the class can be called without a value for this field."""
        return self.default is not MISSING or self.default_factory is not None

    def make_default(self) -> Any:
        """Returns the value of this field in an instance that is made without it. The field must have a default."""
        return self.default if self.default_factory is None else self.default_factory()

    @property
    def is_required(self) -> bool:
        """True if there must be a value on the wire: absent means neither a default, nor None, nor protobuf's zero."""
        match self.node:
            case _ if self.has_default:
                return False
            case Tuple(length=length):
                return bool(length)
            case Optional() | Basic(kind="Any"):
                return False
            case _:
                return self.has_presence

    def make_absent(self) -> Any:
        """Returns the value that this field has if it is absent on the wire. The field must not be required."""
        if self.has_default:
            return self.make_default()
        match self.node:
            case List():
                return []
            case Tuple():
                return ()
            case Map():
                return {}
            case node:
                return _ZERO.get(type(node))

    @property
    def has_presence(self) -> bool:
        """True if this field, when it is absent on the wire, means something else than protobuf's zero.

        There are two cases. First, zero is not a value of the field: absent means `None`, or the field is an enum or a
        UUID, which have no zero. Second, the class has a default other than zero: a sender who leaves the field out, as
        in JSON, means that default.
        """
        match self.node:
            case List() | Tuple() | Map():
                return False
            case Float() | Int() | Bool() | Str() | Literal() | Bytes():
                if not self.has_default:
                    return False
                is_zero = self.default == _ZERO[type(self.node)]
                return not is_zero or (isinstance(self.default, float) and copysign(1, self.default) < 0)
            case _:
                return True

    @property
    def is_absent_if_empty(self) -> bool:
        """True if no elements on the wire mean the default: a tuple of a fixed length cannot be empty itself."""
        return isinstance(self.node, Tuple) and bool(self.node.length) and self.has_default


@dataclass(frozen=True, eq=False)
class MessageSchema:
    """The schema of one message class: the fields that are sent, with their names and numbers."""

    cls: type
    name: str
    """The name of the protobuf message, without its package. It is that of the class, and of the arguments after it."""
    package: str
    doc: str
    fields: tuple[Field, ...]
    """The fields of the body, in the order of declaration."""
    header: tuple[str, ...]
    """HEADER_FIELDS. Empty for a class without a header."""
    reserved: tuple[tuple[str, int], ...] = ()
    """The names and numbers of former fields, which are in the lock and no longer in the class."""

    @property
    def full_name(self) -> str:
        """The name of the protobuf message, with its package."""
        return f"{self.package}.{self.name}"


_SCHEMAS = "__pydotcompute_schemas__"


def kept_on_class(cls: type, key: str) -> Any:
    """Returns the value that `keep_on_class` kept for exactly this class under `key`, or None.

    The value is not inherited by a subclass. It is also not valid for a copy of the class, as made by
    `@dataclass(slots=True)`.
    """
    owner, value = cls.__dict__.get(key, (None, None))
    return value if owner is cls else None


def keep_on_class(cls: type, key: str, value: T) -> T:
    """Keeps `value` in an attribute of the class, exactly as long as the class lives. Returns `value`."""
    setattr(cls, key, (cls, value))
    return value


def kept_schema(cls: type, arguments: tuple[Any, ...] = ()) -> MessageSchema | None:
    """Returns the schema that `keep_schema` kept for this class with these arguments, or None."""
    schemas: dict[tuple[Any, ...], MessageSchema] = kept_on_class(cls, _SCHEMAS) or {}
    return schemas.get(arguments)


def keep_schema(cls: type, arguments: tuple[Any, ...], schema: MessageSchema) -> None:
    """Keeps the schema of a class. A generic class has one for each of the arguments with which it is used."""
    schemas: dict[tuple[Any, ...], MessageSchema] = kept_on_class(cls, _SCHEMAS) or keep_on_class(cls, _SCHEMAS, {})
    schemas[arguments] = schema


def walk(node: Node) -> Iterator[Node]:
    """Yields `node` and all nodes inside it. The fields of a message do not count as inside."""
    yield node
    match node:
        case Optional(item) | List(item) | Tuple(item):
            yield from walk(item)
        case Map(key, value):
            yield key
            yield from walk(value)
        case Union(members):
            yield from members
        case _:
            pass


def reachable(schema: MessageSchema) -> list[MessageSchema]:
    """Returns `schema` and the schema of every message that it contains, at any depth.

    Each schema is there once, in the order in which a breadth-first search finds it.
    """
    found = [schema]
    seen = {schema}
    for each in found:  # The list grows meanwhile.
        for field in each.fields:
            for node in walk(field.node):
                if isinstance(node, Message) and node.schema not in seen:
                    seen.add(node.schema)
                    found.append(node.schema)
    return found


def walk_all(schema: MessageSchema) -> Iterator[Node]:
    """Yields all nodes in `schema` and in every message that it contains, at any depth."""
    for found in reachable(schema):
        for field in found.fields:
            yield from walk(field.node)


def is_boxed(node: Node) -> bool:
    """Returns True if a value of this node needs a box: a protobuf message with the value as its only field.

    Protobuf needs the box where such a value is an element of a list or a map, or is optional.
    """
    return isinstance(node, Optional | List | Tuple | Map)
