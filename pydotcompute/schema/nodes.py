"""What a message class says, as data: a small immutable node for each kind of annotation.

The text of a node (`str(node)`) is the annotation as a user would write it; errors quote it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass
from datetime import UTC, datetime, timedelta
from math import copysign
from typing import Any, TypeAlias, TypeVar, cast

from pydotcompute.schema.lock import numbers_above
from pydotcompute.schema.names import snake, type_name

__all__ = [
    "EPOCH",
    "HEADER_FIELDS",
    "INT64_MAX",
    "INT64_MIN",
    "LONGEST_DURATION",
    "MAX_DEPTH",
    "SCHEMA_KEY",
    "Array",
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
    "kept_on_class",
    "reachable",
    "walk",
    "walk_all",
]

HEADER_FIELDS = ("message_id", "priority", "correlation_id")
"""The fields that the runtime reads. They travel beside the body, never in it."""

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
"""The zero of google.protobuf.Timestamp."""
LONGEST_DURATION = timedelta(seconds=315_576_000_000)
"""The end of google.protobuf.Duration's range, in both directions."""

MAX_DEPTH = 90
"""How deep messages may nest in each other. Protobuf's parsers stop at 100; the difference is for the timestamps, boxes
and map entries inside the innermost message."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Float:
    """`float`: a double, bit for bit (NaN, infinities and -0.0 included)."""

    def __str__(self) -> str:
        return "float"


@dataclass(frozen=True, slots=True)
class Int:
    """`int`: an int64. Values beyond it are refused, never wrapped."""

    def __str__(self) -> str:
        return "int"


@dataclass(frozen=True, slots=True)
class Bool:
    """`bool`."""

    def __str__(self) -> str:
        return "bool"


@dataclass(frozen=True, slots=True)
class Str:
    """`str`: a string that UTF-8 can hold, so without lone surrogates."""

    def __str__(self) -> str:
        return "str"


@dataclass(frozen=True, slots=True)
class Bytes:
    """`bytes`."""

    def __str__(self) -> str:
        return "bytes"


@dataclass(frozen=True, slots=True)
class Uuid:
    """`uuid.UUID`: a string, in the canonical form of 36 characters."""

    def __str__(self) -> str:
        return "UUID"


@dataclass(frozen=True, slots=True)
class Literal:
    """`Literal["add", "sub"]`: a string. The values are documentation, and not enforced: an actor may want to answer
    "unknown operation" itself.
    """

    values: tuple[str, ...]

    def __str__(self) -> str:
        return "str"


@dataclass(frozen=True, slots=True)
class EnumNode:
    """An `enum.Enum`: a protobuf enum, whose values are `<ENUM_NAME>_<MEMBER>`.

    Number 0 is `<ENUM_NAME>_UNSPECIFIED`, which is no member. The members have the numbers of their Python values if
    these are distinct positive int32, and else 1, 2, 3, … in the order of declaration. If the lock knows the enum, the
    values that it names have the numbers that it says; others those of their Python values where nothing had these,
    and else the next ones above all that ever were.
    """

    cls: type[enum.Enum]
    package: str
    locked: tuple[tuple[str, int], ...] = ()
    """The names and numbers in the lock."""

    @property
    def name(self) -> str:
        """The name of the protobuf enum, without its package."""
        return self.cls.__name__

    @property
    def full_name(self) -> str:
        """The name of the protobuf enum."""
        return f"{self.package}.{self.name}"

    @property
    def prefix(self) -> str:
        """What the names of the protobuf values start with."""
        return snake(self.name).upper() + "_"

    def values(self) -> list[tuple[enum.Enum, str, int]]:
        """Each member with the name and the number of its protobuf value."""
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
        """The names and numbers of values that were, and are no more."""
        names = {name for _, name, _ in self.values()}
        return tuple(item for item in self.locked if item[0] not in names)

    def __str__(self) -> str:
        return type_name(self.cls)


@dataclass(frozen=True, slots=True)
class Timestamp:
    """`datetime`, aware of its time zone: a google.protobuf.Timestamp. The instant is kept; the zone becomes UTC."""

    def __str__(self) -> str:
        return "datetime with a time zone"


@dataclass(frozen=True, slots=True)
class Duration:
    """`timedelta`: a google.protobuf.Duration, so within 10,000 years."""

    def __str__(self) -> str:
        return "timedelta"


@dataclass(frozen=True, slots=True)
class Array:
    """`numpy.ndarray` or `cupy.ndarray`, of numbers: a pydotcompute.v1.Tensor. What it asks for is as in
    `arrays.Array`.
    """

    dtype: str | None = None
    shape: tuple[int | str | None, ...] | None = None
    on_device: bool = False
    """Whether CuPy's arrays stay on the device in it, in-process."""

    @property
    def wanted(self) -> str:
        """What an array must be to fit, such as "float32 array of shape (n, 3)"; empty if any array does."""
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
class Optional:
    """`X | None`. `None` is absent on the wire, and only `None` is: empty and absent stay apart."""

    item: Node

    def __str__(self) -> str:
        return f"{self.item} | None"


@dataclass(frozen=True, slots=True)
class List:
    """`list[X]`."""

    item: Node

    def __str__(self) -> str:
        return f"list[{self.item}]"


@dataclass(frozen=True, slots=True)
class Tuple:
    """`tuple[X, ...]`, or `tuple[X, X]` with its length. On the wire it is a list."""

    item: Node
    length: int | None

    def __str__(self) -> str:
        items = f"{self.item}, ..." if self.length is None else ", ".join([str(self.item)] * self.length)
        return f"tuple[{items}]"


@dataclass(frozen=True, slots=True)
class Map:
    """`dict[K, V]`, where K is str, int or bool. The order of the entries is not kept."""

    key: Str | Int | Bool
    value: Node

    def __str__(self) -> str:
        return f"dict[{self.key}, {self.value}]"


@dataclass(frozen=True, slots=True)
class Message:
    """Another dataclass. Refers to the class, not to its schema, so that messages can contain themselves.

    The header fields of a nested message do not travel; where it arrives they have their defaults.
    """

    cls: type

    @property
    def schema(self) -> MessageSchema:
        """The schema of the class; `introspect` has made it by the time anyone holds this node."""
        return cast(MessageSchema, kept_on_class(self.cls, SCHEMA_KEY))

    def __str__(self) -> str:
        return type_name(self.cls)


@dataclass(frozen=True, slots=True)
class Union:
    """A union of dataclasses: a oneof, in a message of its own, which has a member for each class, named after it."""

    members: tuple[Message, ...]

    def named(self) -> list[tuple[str, Message]]:
        """Each member with its field name in the oneof; their numbers are 1, 2, 3, …"""
        return [(snake(member.cls.__name__), member) for member in self.members]

    def __str__(self) -> str:
        return " | ".join(map(str, self.members))


Single: TypeAlias = (
    Float | Int | Bool | Str | Bytes | Uuid | Literal | EnumNode | Timestamp | Duration | Array | Message | Union
)
"""What protobuf can hold as an element of a list as it is; see `is_boxed`."""
Node: TypeAlias = Single | Optional | List | Tuple | Map

_ZERO: dict[type, object] = {Float: 0, Int: 0, Bool: False, Str: "", Literal: "", Bytes: b""}


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
        """True if the class can do without a value for this field."""
        return self.default is not MISSING or self.default_factory is not None

    def make_default(self) -> Any:
        """The value of this field in an instance made without it. Only for a field that `has_default`."""
        return self.default if self.default_factory is None else self.default_factory()

    @property
    def has_presence(self) -> bool:
        """True if "absent" on the wire differs from protobuf's zero.

        It does where zero is no value of the field (`None` is meant, or there is no such enum member or UUID), and
        where the class has another default than zero: whoever leaves the field out, in JSON say, means that default.
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
        """True if no elements on the wire stand for the default: for a tuple with a length they are no value."""
        return isinstance(self.node, Tuple) and bool(self.node.length) and self.has_default


@dataclass(frozen=True, eq=False)
class MessageSchema:
    """One message class: what of it travels, and under which names."""

    cls: type
    package: str
    doc: str
    fields: tuple[Field, ...]
    """The body, in the order of declaration."""
    header: tuple[str, ...]
    """HEADER_FIELDS, or nothing for a class that has no header."""
    reserved: tuple[tuple[str, int], ...] = ()
    """The names and numbers of fields that were, and are no more."""

    @property
    def name(self) -> str:
        """The name of the protobuf message, without its package."""
        return self.cls.__name__

    @property
    def full_name(self) -> str:
        """The name of the protobuf message."""
        return f"{self.package}.{self.name}"


SCHEMA_KEY = "__pydotcompute_schema__"


def kept_on_class(cls: type, key: str) -> Any:
    """What `keep_on_class` kept for exactly this class under `key`, or None.

    Neither a subclass nor a copy of the class (`@dataclass(slots=True)` makes one) takes the other's for its own.
    """
    owner, value = cls.__dict__.get(key, (None, None))
    return value if owner is cls else None


def keep_on_class(cls: type, key: str, value: T) -> T:
    """Keeps `value` in an attribute of the class: for as long as the class lives, and no longer. Returns it."""
    setattr(cls, key, (cls, value))
    return value


def walk(node: Node) -> Iterator[Node]:
    """`node` and all nodes inside it; a message's own fields are not inside."""
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
    """`schema` and every message that it contains, at any depth, each once, in the order met."""
    found = {schema.cls: schema}
    waiting = [schema]
    while waiting:
        for field in waiting.pop(0).fields:
            for node in walk(field.node):
                if isinstance(node, Message) and node.cls not in found:
                    found[node.cls] = node.schema
                    waiting.append(node.schema)
    return list(found.values())


def walk_all(schema: MessageSchema) -> Iterator[Node]:
    """All nodes in `schema`, and in every message that it contains."""
    for found in reachable(schema):
        for field in found.fields:
            yield from walk(field.node)


def is_boxed(node: Node) -> bool:
    """Returns True if protobuf needs a message of its own ("box") to hold this as an element of a list or of a map, or
    as an optional value.
    """
    return isinstance(node, Optional | List | Tuple | Map)
