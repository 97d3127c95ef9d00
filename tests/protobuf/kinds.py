"""Any supported type, with any of its values."""

import dataclasses
import enum
import itertools
import struct
from dataclasses import dataclass, field, make_dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Literal
from uuid import UUID

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_strategies

from pydotcompute.protobuf.codec import Codec
from pydotcompute.protobuf.pool import TypePool
from pydotcompute.schema.basic import as_number

HEADER: dict[str, Any] = {"message_id": UUID(int=1), "priority": 7, "correlation_id": UUID(int=2)}


class Color(enum.Enum):
    RED = "r"
    GREEN = "g"


@dataclass
class Item:
    weight: float = 0.0


@dataclass
class Crate:
    load: int = 0


@dataclass
class Tree:
    label: str = ""
    children: "list[Tree]" = field(default_factory=list)
    best: "Tree | None" = None
    named: "dict[str, Tree]" = field(default_factory=dict)


def one(annotation: Any, **options: Any) -> type:
    """A class that has this annotation alone."""
    return make_dataclass("One", [("x", annotation, field(**options))])


PACKAGE = "made.v1"


def dataclass_named(name: str, **fields: Any) -> type:
    """Make a dataclass of PACKAGE. The package made of its module would be another on Python 3.11 than later."""
    return make_dataclass(name, fields.items(), namespace={"__proto_package__": PACKAGE})


def codec_of(cls: type) -> Codec[Any]:
    return Codec(cls, TypePool())


def through_bytes(annotation: Any, value: Any) -> Any:
    codec = codec_of(one(annotation))
    return codec.decode(codec.encode(codec.schema.cls(value)), **HEADER).x


def same(a: Any, b: Any) -> bool:
    """Whether two values are equal, bit for bit and type for type."""
    if isinstance(a, float) and isinstance(b, float):
        return struct.pack("d", a) == struct.pack("d", b)
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and (a.dtype.str, a.shape, a.tobytes()) == (b.dtype.str, b.shape, b.tobytes())
    if type(a) is not type(b):
        return False
    if dataclasses.is_dataclass(a):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return bool(a == b)


@dataclass
class Kind:
    """An annotation, and what may be where it stands."""

    annotation: Any
    values: st.SearchStrategy[Any]

    def __repr__(self) -> str:
        return str(self.annotation)


INT64 = st.integers(-(2**63), 2**63 - 1)


UNICODE = st.text(st.characters(exclude_categories=["Cs"]))


ZONES = st.sampled_from([UTC, timezone(timedelta(hours=14)), timezone(timedelta(hours=-12, minutes=-1))])


MOMENTS = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=ZONES)


DURATIONS = st.timedeltas(timedelta(days=-3_652_500), timedelta(days=3_652_500))


NUMBERS = numpy_strategies.scalar_dtypes().filter(lambda dtype: dtype.kind in "biufc")


ARRAYS = numpy_strategies.arrays(NUMBERS, numpy_strategies.array_shapes(min_dims=0, min_side=0, max_side=3))


BASIC = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | UNICODE
    | st.floats(allow_nan=False, allow_infinity=False, width=64).filter(lambda value: as_number(value) is value),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(UNICODE, inner, max_size=3),
    max_leaves=10,
)


KEYS = [Kind(str, UNICODE), Kind(int, INT64), Kind(bool, st.booleans())]


LEAVES = [
    Kind(float, st.floats(width=64)),
    Kind(bytes, st.binary()),
    Kind(UUID, st.uuids()),
    Kind(Color, st.sampled_from(Color)),
    Kind(Literal["a", "b"], UNICODE),
    Kind(datetime, MOMENTS),
    Kind(timedelta, DURATIONS),
    Kind(np.ndarray, ARRAYS),
    Kind(Any, BASIC),
    Kind(list, st.lists(BASIC, max_size=3)),
    Kind(dict, st.dictionaries(UNICODE, BASIC, max_size=3)),
    *KEYS,
]


_numbers = itertools.count()


def message_kind(fields: list[Kind], defaults: bool = False) -> Kind:
    name = f"Generated{next(_numbers)}"
    cls = make_dataclass(name, [(f"field_{i}", kind.annotation) for i, kind in enumerate(fields)])
    return Kind(cls, st.builds(cls, *[kind.values for kind in fields]))


def containers(kinds: st.SearchStrategy[Kind]) -> st.SearchStrategy[Kind]:
    messages = st.lists(kinds, max_size=3).map(message_kind)

    def mapping(key: Kind, item: Kind) -> Kind:
        return Kind(dict[key.annotation, item.annotation], st.dictionaries(key.values, item.values, max_size=3))  # type: ignore[name-defined]

    def fixed(item: Kind, length: int) -> Kind:
        return Kind(tuple[(item.annotation,) * length], st.tuples(*[item.values] * length))  # type: ignore[misc]

    return st.one_of(
        kinds.map(lambda item: Kind(item.annotation | None, item.values | st.none())),
        kinds.map(lambda item: Kind(list[item.annotation], st.lists(item.values, max_size=3))),  # type: ignore[name-defined]
        kinds.map(lambda item: Kind(tuple[item.annotation, ...], st.lists(item.values, max_size=3).map(tuple))),  # type: ignore[name-defined]
        st.builds(fixed, kinds, st.integers(1, 3)),
        st.builds(mapping, st.sampled_from(KEYS), kinds),
        messages,
        st.builds(lambda a, b: Kind(a.annotation | b.annotation, a.values | b.values), messages, messages),
    )


ANY_MESSAGE = st.lists(st.recursive(st.sampled_from(LEAVES), containers, max_leaves=6), max_size=5).map(message_kind)
