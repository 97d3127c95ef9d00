"""Message instances as bytes, and bytes as message instances.

For each class there is generated code (see `source`) of about one line a field; it costs little more than protobuf
itself. Writers leave the search for errors to the checker. Readers carry the path of the value along as a linked list,
which is turned into text only if something is wrong.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from itertools import takewhile
from typing import Any, Generic, NoReturn, Protocol, TypeAlias, TypeVar, assert_never
from uuid import UUID

import google.protobuf.message
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from pydotcompute.exceptions import MessageDeserializationError, MessageError, MessageSerializationError
from pydotcompute.messages.constructor import only_assigns
from pydotcompute.protobuf import tensors
from pydotcompute.protobuf.descriptors import BOX_FIELD, ONEOF, TypePool, compatible, message_type
from pydotcompute.protobuf.flat import Layout, layout_of
from pydotcompute.schema.check import checker
from pydotcompute.schema.codegen import Source
from pydotcompute.schema.introspect import introspect
from pydotcompute.schema.nodes import (
    EPOCH,
    HEADER_FIELDS,
    Array,
    Bool,
    Bytes,
    Duration,
    EnumNode,
    Field,
    Float,
    Int,
    List,
    Literal,
    Map,
    Message,
    MessageSchema,
    Node,
    Optional,
    Str,
    Timestamp,
    Tuple,
    Union,
    Uuid,
    is_boxed,
    reachable,
    walk,
)
from pydotcompute.schema.normalize import settled

__all__ = ["Codec", "UnreadableError", "read_array"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Proto: TypeAlias = google.protobuf.message.Message

_Path: TypeAlias = "tuple[Any, ...] | None"
"""Where a value is: None for the message itself, `(parent, field_name)`, or `(parent, None, index_or_key)`."""


class Decode(Protocol[T_co]):
    """The type of `Codec.decode`."""

    def __call__(
        self, data: bytes | memoryview, message_id: UUID, priority: int, correlation_id: UUID | None
    ) -> T_co: ...


class FromProto(Protocol[T_co]):
    """The type of `Codec.from_proto`."""

    def __call__(self, pb: Proto, message_id: UUID, priority: int, correlation_id: UUID | None) -> T_co: ...


class Codec(Generic[T]):
    """Turns instances of one message class into bytes of its protobuf type, and back.

    Floats come back bit for bit, ints, texts, bytes and arrays exactly, datetimes as the same instant in UTC; arrays as
    read-only views of the received bytes. Unknown fields are ignored, as protobuf does.

    Args:
        cls: the message class.
        pool: gets the type of the class, if no `descriptor` is given.
        descriptor: encode as, and decode from, this type, which may be the other side's. It must be `compatible`.

    Raises:
        MessageTypeError: the class cannot be a protobuf type, or not this one.
    """

    encode: Callable[[T], bytes]
    """The body as bytes; the header is not in it. Expects a message that has passed `door_check`.

    Raises MessageTypeError or MessageSerializationError, with the path, where protobuf cannot take a value.
    """
    gather: Callable[[T], list[Any]] | None
    """As `encode`, but gives the pieces of the bytes: bytes objects, and arrays of bytes that share the memory of the
    message's own. None if a message of this class has no arrays that could be given so. Those that have can also be
    decoded from a memoryview, which their arrays then share."""
    decode: Decode[T]
    """An instance with this body and this header; a class without header fields gets none.

    The header is taken as it is: whoever received it has checked it. The constructor runs only where it does more than
    to assign the fields (a `__post_init__`, say).

    Raises MessageDeserializationError: the bytes are no such message, or its constructor refuses it. Errors about the
    header are the constructor's own.
    """
    decode_checked: Decode[T]
    """As `decode`, but also refuses arrays that are not what the annotations ask for: those of the sender's class may
    not. Raises MessageTypeError then.
    """
    to_proto: Callable[[T], Proto]
    """As `encode`, but gives protobuf's own object."""
    from_proto: FromProto[T]
    """As `decode`, but takes protobuf's own object."""

    def __init__(self, cls: type[T], pool: TypePool, descriptor: Descriptor | None = None) -> None:
        self.schema = introspect(cls)
        if descriptor is None:
            descriptor = pool.add(cls)
        else:
            compatible(self.schema, descriptor)
        self.descriptor = descriptor
        """The protobuf type that travels."""
        self.message_class = message_factory.GetMessageClass(descriptor)
        """Protobuf's own class for that type."""
        functions = _Compiler(self.schema, descriptor).compile()
        self.encode = functions["encode"]
        self.gather = functions.get("gather")
        self.decode = functions["decode"]
        self.decode_checked = _checked(self.decode, self.schema) if _asks_of_arrays(self.schema) else self.decode
        self.to_proto = functions["to_proto"]
        self.from_proto = functions["from_proto"]


def _asks_of_arrays(schema: MessageSchema) -> bool:
    inside = [node for found in reachable(schema) for field in found.fields for node in walk(field.node)]
    return any(isinstance(node, Array) and node.wanted for node in inside)


def _checked(decode: Decode[T], schema: MessageSchema) -> Decode[T]:
    check = checker(schema.cls)

    def decode_checked(data: bytes | memoryview, message_id: UUID, priority: int, correlation_id: UUID | None) -> T:
        message = decode(data, message_id, priority, correlation_id)
        check(message)
        return message

    return decode_checked


class _Compiler:
    """Generates the functions of one codec: `write_N(pb, message)` and `read_N(pb, path)` for each class in it."""

    def __init__(self, schema: MessageSchema, descriptor: Descriptor) -> None:
        self._schema = schema
        self._descriptor = descriptor
        self._source = Source(f"codec of {schema.full_name}")
        self._names: dict[tuple[type, str], int] = {}
        self._waiting: list[tuple[MessageSchema, Descriptor]] = []

    def compile(self) -> dict[str, Any]:
        source, schema = self._source, self._schema
        pb_class = message_factory.GetMessageClass(self._descriptor)
        new, bound_schema = source.bind(pb_class, "new"), source.bind(schema, "schema")
        serialize = source.bind(pb_class.SerializeToString, "serialize")
        parse = source.bind(pb_class.FromString, "parse")
        layout = layout_of(schema, self._descriptor)
        in_front = self._in_front()
        encode, decode = "encode", "decode"
        if layout is not None:
            encode = "encode_any"
            self._flat_encode(layout)
        if layout is not None and only_assigns(schema.cls):
            decode = "decode_any"
            self._flat_decode(layout)
        if in_front:
            decode = "decode_any"
            self._gather_in_front(in_front)
            self._decode_in_front(in_front)
        writers = [("to_proto", "pb")] if in_front else [(encode, f"{serialize}(pb)"), ("to_proto", "pb")]
        for name, result in writers:
            with source.block(f"def {name}(message):"):
                with source.block("try:"):
                    source.line(f"pb = {new}()")
                    self._write_fields(schema, self._descriptor)
                    source.line(f"return {result}")
                with source.block("except Exception as error:"):
                    source.line(f"{self._call(_explain_writing)}({bound_schema}, message, error)")
        for name, parameter in [(decode, "data"), ("from_proto", "pb")]:
            with source.block(f"def {name}({parameter}, {', '.join(HEADER_FIELDS)}):"):
                with source.block("try:"):
                    if name == decode:
                        source.line(f"pb = {parse}(data)")
                    source.line("path = None")
                    source.line(f"return {self._read_message(schema, self._descriptor, schema.header)}")
                with source.block("except Exception as error:"):
                    source.line(f"{self._call(_explain_reading)}({bound_schema}, error)")
        while self._waiting:
            schema, descriptor = self._waiting.pop()
            number = self._names[schema.cls, descriptor.full_name]
            with source.block(f"def write_{number}(pb, message):"):
                self._write_fields(schema, descriptor)
                source.line("return")
            with source.block(f"def read_{number}(pb, path):"):
                instance = self._read_message(schema, descriptor, ())
                with source.block("try:"):
                    source.line(f"return {instance}")
                with source.block("except Exception as error:"):
                    problem = f"{self._call(_text_of)}(error)"
                    source.line(f"raise {self._call(UnreadableError)}({problem}, path) from error")
        return source.run()

    def _flat_encode(self, layout: Layout) -> None:
        """The `encode` of a class with a layout; what does not fit is left to `encode_any`."""
        otherwise = "return encode_any(message)"
        with self._source.block("def encode(message):"):
            with self._source.block("try:"):
                layout.emit_encode(self._source, otherwise)
            with self._source.block("except Exception:"):
                self._source.line(otherwise)

    def _flat_decode(self, layout: Layout) -> None:
        """The `decode` of a class with a layout; what does not fit is left to `decode_any`."""
        header = dict(zip(self._schema.header, self._schema.header, strict=True))
        otherwise = f"return decode_any(data, {', '.join(HEADER_FIELDS)})"
        with self._source.block(f"def decode(data, {', '.join(HEADER_FIELDS)}):"):
            with self._source.block("try:"):
                values = layout.emit_decode(self._source, otherwise)
                self._source.line(f"return {self._make(self._schema, header | values)}")
            with self._source.block("except Exception:"):
                self._source.line(otherwise)

    def _in_front(self) -> dict[str, bool]:
        """The fields of the message itself that hold arrays, and whether they hold many; see `tensors`."""
        found = {}
        for field in self._schema.fields:
            match field.node:
                case Array() | Optional(Array()):
                    found[field.name] = False
                case List(Array()) | Tuple(Array()):
                    found[field.name] = True
        return found

    def _tag_of(self, name: str) -> tuple[int, bytes]:
        return tensors.tag_of(self._descriptor.fields_by_name[name].number)

    def _gather_in_front(self, in_front: dict[str, bool]) -> None:
        """The `gather` and `encode` of a class with arrays: these first, without a way through protobuf's objects."""
        source = self._source
        pb_class = message_factory.GetMessageClass(self._descriptor)
        append = self._call(tensors.append)
        with source.block("def gather(message):"):
            with source.block("try:"):
                source.line(f"pb = {source.bind(pb_class, 'new')}()")
                self._write_fields(self._schema, self._descriptor, but=in_front)
                source.line("parts, at = [], 0")
                for field in self._schema.fields:
                    if field.name not in in_front:
                        continue
                    tag, value = source.bind(self._tag_of(field.name)[1], "tag"), source.fresh("value")
                    source.line(f"{value} = message.{field.name}")
                    add = f"at = {append}(parts, at, {tag}, {value})"
                    match field.node:
                        case Array():
                            source.line(add)
                        case Optional():
                            source.line(f"if {value} is not None: {add}")
                        case _:
                            source.line(f"for {value} in {value}: {add}")
                source.line(f"parts.append({source.bind(pb_class.SerializeToString, 'serialize')}(pb))")
                source.line("return parts")
            with source.block("except Exception as error:"):
                source.line(f"{self._call(_explain_writing)}({source.bind(self._schema, 'schema')}, message, error)")
        with source.block("def encode(message):"):
            source.line("return b''.join(gather(message))")

    def _decode_in_front(self, in_front: dict[str, bool]) -> None:
        """The `decode` of a class with arrays; what is laid out in another way is left to `decode_any`."""
        source, schema = self._source, self._schema
        otherwise = f"return decode_any(data, {', '.join(HEADER_FIELDS)})"
        tags = source.bind({self._tag_of(name)[0]: many for name, many in in_front.items()}, "tags")
        pb_class = message_factory.GetMessageClass(self._descriptor)
        with source.block(f"def decode(data, {', '.join(HEADER_FIELDS)}):"):
            source.line(f"taken = {self._call(tensors.take)}(data, {tags})")
            source.line(f"if taken is None: {otherwise}")
            source.line("arrays, at = taken")
            with source.block("try:"):
                source.line(f"pb = {source.bind(pb_class.FromString, 'parse')}(data[at:])")
                for name, many in in_front.items():
                    is_there = f"pb.{name}" if many else f"{self._method(self._descriptor, 'HasField')}(pb, {name!r})"
                    source.line(f"if {is_there}: {otherwise}")
                source.line("path = None")
                made = self._read_message(schema, self._descriptor, schema.header, in_front)
                source.line(f"return {made}")
            with source.block("except Exception as error:"):
                source.line(f"{self._call(_explain_reading)}({source.bind(schema, 'schema')}, error)")

    def _number(self, message: Message, descriptor: Descriptor) -> int:
        """The N of a class's functions, which are then generated later."""
        key = (message.cls, descriptor.full_name)
        if key not in self._names:
            self._names[key] = len(self._names)
            self._waiting.append((message.schema, descriptor))
        return self._names[key]

    def _call(self, function: Callable[..., Any]) -> str:
        return self._source.bind(function, function.__name__.strip("_"))

    def _method(self, descriptor: Descriptor, name: str) -> str:
        """A method of protobuf's, taken from the class: in an instance, a field of that name would hide it."""
        return self._source.bind(getattr(message_factory.GetMessageClass(descriptor), name), name)

    # Writing: statements that put `value` into the field `name` of the protobuf object `pb`.

    def _write_fields(self, schema: MessageSchema, descriptor: Descriptor, but: Collection[str] = ()) -> None:
        for field in schema.fields:
            if field.name not in but:
                self._write(field.node, descriptor.fields_by_name[field.name], "pb", f"message.{field.name}")

    def _write(self, node: Node, field: FieldDescriptor, pb: str, value: str) -> None:
        source, target = self._source, f"{pb}.{field.name}"
        match node:
            case Optional(item):
                kept = source.fresh("value")
                source.line(f"{kept} = {value}")
                with source.block(f"if {kept} is not None:"):
                    if is_boxed(item):
                        self._write_message(item, field, target, kept)
                    else:
                        self._write(item, field, pb, kept)
            case List(item) | Tuple(item):
                if field.message_type is None:
                    each = self._to_scalar(item, "each")
                    source.line(f"{target}.extend({value if each == 'each' else f'[{each} for each in {value}]'})")
                else:
                    added, each = source.fresh("add"), source.fresh("each")
                    source.line(f"{added} = {target}.add")
                    with source.block(f"for {each} in {value}:"):
                        self._write_message(item, field, f"{added}()", each)
            case Map(_, item):
                entries, key, each = source.fresh("entries"), source.fresh("key"), source.fresh("each")
                source.line(f"{entries} = {target}")
                with source.block(f"for {key}, {each} in {value}.items():"):
                    value_field = message_type(field).fields_by_name["value"]
                    if value_field.message_type is None:
                        source.line(f"{entries}[{key}] = {self._to_scalar(item, each)}")
                    else:
                        self._write_message(item, value_field, f"{entries}[{key}]", each)
            case _ if field.message_type is None:
                source.line(f"{target} = {self._to_scalar(node, value)}")
            case _:
                self._write_message(node, field, target, value)

    def _to_scalar(self, node: Node, value: str) -> str:
        """What protobuf holds for a value that needs no message."""
        match node:
            case Uuid():
                return f"{self._call(str)}({value})"
            case EnumNode():
                numbers = {member: number for member, _, number in node.values()}
                return f"{self._source.bind(numbers, 'numbers')}[{value}]"
            case _:
                return value

    def _write_message(self, node: Node, field: FieldDescriptor, target: str, value: str) -> None:
        """Fills the message `target`, of the type of `field`, with `value`."""
        source, descriptor, pb = self._source, message_type(field), self._source.fresh("pb")
        source.line(f"{pb} = {target}")
        source.line(f"{self._method(descriptor, 'SetInParent')}({pb})")  # present, even if it stays empty
        match node:
            case Timestamp():
                source.line(f"{self._call(_write_timestamp)}({pb}, {value})")
            case Duration():
                source.line(f"{self._call(_write_duration)}({pb}, {value})")
            case Array():
                source.line(f"{self._call(tensors.write_tensor)}({pb}, {value})")
            case Message():
                source.line(f"write_{self._number(node, descriptor)}({pb}, {value})")
            case Union():
                source.line(f"kind = type({value})")
                for position, (name, member) in enumerate(node.named()):
                    test = f"{'elif' if position else 'if'} kind is {source.bind(member.cls, 'cls')}:"
                    with source.block(test):
                        self._write_message(member, descriptor.fields_by_name[name], f"{pb}.{name}", value)
                with source.block("else:"):
                    source.line("raise TypeError(kind)")
            case _:
                self._write(node, descriptor.fields_by_name[BOX_FIELD], pb, value)

    # Reading: expressions for the value of a field, where `path` is an expression for where it is.

    def _read_message(
        self,
        schema: MessageSchema,
        descriptor: Descriptor,
        header: tuple[str, ...],
        in_front: Collection[str] = (),
    ) -> str:
        """Reads the fields of `pb`, and those `in_front` of `arrays`, into variables; an expression for the instance
        made of them."""
        source = self._source
        values = {name: name for name in header}
        for field in schema.fields:
            kept = values[field.name] = source.fresh("value")
            if field.name in in_front:
                source.line(f"{kept} = {self._taken_field(field)}")
            else:
                source.line(f"{kept} = {self._read_field(field, descriptor.fields_by_name[field.name], kept)}")
        return self._make(schema, values)

    def _make(self, schema: MessageSchema, values: dict[str, str]) -> str:
        """An instance with these values, made by the constructor, or without it where that is the same."""
        source, cls = self._source, self._source.bind(schema.cls, "cls")
        names = [field.name for field in dataclasses.fields(schema.cls)]
        if only_assigns(schema.cls) and values.keys() == set(names):
            source.line(f"made = {source.bind(object.__new__, 'make')}({cls})")
            for name in names:
                source.line(f"made.{name} = {values[name]}")
            return "made"
        # By position as far as that goes: half the cost of the same call by name.
        parameters = inspect.signature(schema.cls).parameters.values()
        by_position = [
            values.pop(parameter.name)
            for parameter in takewhile(lambda p: p.kind is p.POSITIONAL_OR_KEYWORD and p.name in values, parameters)
        ]
        by_name = [f"{name}={value}" for name, value in values.items()]
        return f"{cls}({', '.join(by_position + by_name)})"

    def _taken_field(self, field: Field) -> str:
        """The value of a field whose arrays are in `arrays`."""
        tag, path = self._tag_of(field.name)[0], f"(path, {field.name!r})"
        match field.node:
            case List():
                return f"arrays.get({tag}, [])"
            case Tuple(length=length):
                value = f"tuple(arrays.get({tag}, ()))"
                if length is None:
                    return value
                value = f"{self._call(_of_length)}({value}, {length}, {path})"
                if not field.is_absent_if_empty:
                    return value
                return f"{value} if {tag} in arrays else {self._absent_value(field, path)}"
            case Optional():
                absent = "None"
            case _:
                absent = self._absent_value(field, path)
        return f"arrays[{tag}][0] if {tag} in arrays else {absent}"

    def _absent_value(self, field: Field, path: str) -> str:
        """What a field that is not there has for a value: the default, or an error."""
        if not field.has_default:
            return f"{self._call(_absent)}({path})"
        return f"{self._source.bind(lambda: settled(field.node, field.make_default()), 'default')}()"

    def _read_field(self, field: Field, descriptor: FieldDescriptor, kept: str) -> str:
        """The value of a field; where it is absent, None or the default."""
        source, path = self._source, f"(path, {field.name!r})"
        value = self._read(field.node, descriptor, "pb", path)
        if field.is_absent_if_empty:
            return f"{value} if pb.{field.name} else {self._absent_value(field, path)}"
        if not descriptor.has_presence or isinstance(field.node, Optional):
            return value
        default = self._absent_value(field, path)
        present = f"{self._method(_owner(descriptor), 'HasField')}(pb, {field.name!r})"
        if isinstance(field.node, Float | Int | Bool | Str | Bytes | Literal):
            # Anything but zero is there without asking.
            source.line(f"{kept} = {value}")
            return f"{kept} if {kept} or {present} else {default}"
        return f"{value} if {present} else {default}"

    def _read(self, node: Node, field: FieldDescriptor, pb: str, path: str) -> str:
        target = f"{pb}.{field.name}"
        match node:
            case Optional(item):
                present = f"{self._method(_owner(field), 'HasField')}({pb}, {field.name!r})"
                value = self._read_single(item, field, target, path)
                return f"{value} if {present} else None"
            case List(item):
                return self._read_elements(item, field, target, path, "list")
            case Tuple(item, length):
                elements = self._read_elements(item, field, target, path, "tuple")
                return elements if length is None else f"{self._call(_of_length)}({elements}, {length}, {path})"
            case Map(_, item):
                key, each = self._source.fresh("key"), self._source.fresh("each")
                value_field = message_type(field).fields_by_name["value"]
                value = self._read_single(item, value_field, each, f"({path}, None, {key})")
                if value == each:
                    return f"dict({target})"
                return f"{{{key}: {value} for {key}, {each} in {target}.items()}}"
            case _:
                return self._read_single(node, field, target, path)

    def _read_elements(self, item: Node, field: FieldDescriptor, target: str, path: str, kind: str) -> str:
        index, each = self._source.fresh("index"), self._source.fresh("each")
        value = self._read_single(item, field, each, f"({path}, None, {index})")
        elements = target if value == each else f"[{value} for {index}, {each} in enumerate({target})]"
        return elements if kind == "list" and value != each else f"{kind}({elements})"

    def _read_single(self, node: Node, field: FieldDescriptor, value: str, path: str) -> str:
        """What Python holds for one value: of the field itself, or of its elements."""
        match node:
            case Float() | Int() | Bool() | Str() | Literal() | Bytes():
                return value
            case Uuid():
                return f"{self._call(_read_uuid)}({value}, {path})"
            case EnumNode():
                members = self._source.bind({number: member for member, _, number in node.values()}, "members")
                return f"{self._call(_read_enum)}({members}, {value}, {path})"
            case Timestamp():
                return f"{self._call(_read_timestamp)}({value}, {path})"
            case Duration():
                return f"{self._call(_read_duration)}({value}, {path})"
            case Array():
                return f"{self._call(read_array)}({value}, {path})"
            case Message():
                return f"read_{self._number(node, message_type(field))}({value}, {path})"
            case Union():
                return f"({self._read_union(node, message_type(field), value, path)})"
            case Optional() | List() | Tuple() | Map():
                return f"({self._read(node, message_type(field).fields_by_name[BOX_FIELD], value, path)})"
            case _:
                assert_never(node)

    def _read_union(self, node: Union, descriptor: Descriptor, value: str, path: str) -> str:
        kind = self._source.fresh("kind")
        which = f"({kind} := {self._method(descriptor, 'WhichOneof')}({value}, {ONEOF!r}))"
        choices = ""
        for name, member in node.named():
            member_type = message_type(descriptor.fields_by_name[name])
            choices += f"read_{self._number(member, member_type)}({value}.{name}, {path}) if {which} == {name!r} else "
            which = kind
        return f"{choices}{self._call(_absent)}({path})"


def _owner(field: FieldDescriptor) -> Descriptor:
    assert field.containing_type is not None
    return field.containing_type


# What the generated code calls when something is wrong.


class UnreadableError(Exception):
    """A value that is none of its annotation. Becomes a MessageDeserializationError on the way out."""

    def __init__(self, problem: str, path: _Path) -> None:
        self.problem = problem
        self.path = path


def _path_text(path: _Path) -> str:
    if path is None:
        return "$"
    parent, name, *key = path
    # A key as JSON, as in the paths of the door.
    return _path_text(parent) + (f"[{json.dumps(key[0])}]" if name is None else f".{name}")


def _text_of(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _explain_writing(schema: MessageSchema, message: object, error: Exception) -> NoReturn:
    """Raises what says best why an instance could not be encoded."""
    checker(schema.cls)(message)
    raise MessageSerializationError(schema.name, _text_of(error)) from error


def _explain_reading(schema: MessageSchema, error: Exception) -> NoReturn:
    """Raises what says best why bytes could not be decoded."""
    match error:
        case MessageError():
            raise error
        case UnreadableError():
            raise MessageDeserializationError(schema.name, error.problem, _path_text(error.path)) from error.__cause__
        case google.protobuf.message.DecodeError():
            raise MessageDeserializationError(schema.name, str(error)) from error
        case _:
            raise MessageDeserializationError(schema.name, _text_of(error)) from error


# What it calls for values that protobuf holds in another form.


def _absent(path: _Path) -> NoReturn:
    raise UnreadableError("a value is required, and there is none", path)


def _of_length(elements: tuple[Any, ...], length: int, path: _Path) -> tuple[Any, ...]:
    if len(elements) != length:
        raise UnreadableError(f"{length} elements are required, and there are {len(elements)}", path)
    return elements


def _read_uuid(text: str, path: _Path) -> UUID:
    try:
        value = UUID(text)
    except ValueError:
        value = None
    if value is None or str(value) != text.lower():  # UUID() takes braces and the like, too.
        raise UnreadableError(f"{text!r} is no UUID in its form of 36 characters", path)
    return value


def _read_enum(members: dict[int, Any], number: int, path: _Path) -> Any:
    try:
        return members[number]
    except KeyError:
        raise UnreadableError(f"{number} is none of the enum's members", path) from None


def _write_timestamp(pb: Any, value: datetime) -> None:
    since = value - EPOCH
    pb.seconds = since.days * 86_400 + since.seconds
    pb.nanos = since.microseconds * 1000


def _read_timestamp(pb: Any, path: _Path) -> datetime:
    try:
        if 0 <= pb.nanos < 1_000_000_000:
            return EPOCH + timedelta(seconds=pb.seconds, microseconds=pb.nanos // 1000)
    except OverflowError:
        pass
    raise UnreadableError(f"{pb.seconds} s and {pb.nanos} ns are no time of the years 1 to 9999", path)


def _write_duration(pb: Any, value: timedelta) -> None:
    # A timedelta counts its microseconds up from below; protobuf has both parts of one sign.
    seconds, microseconds = value.days * 86_400 + value.seconds, value.microseconds
    if seconds < 0 and microseconds:
        seconds, microseconds = seconds + 1, microseconds - 1_000_000
    pb.seconds = seconds
    pb.nanos = microseconds * 1000


def _read_duration(pb: Any, path: _Path) -> timedelta:
    if abs(pb.seconds) > 315_576_000_000 or abs(pb.nanos) >= 1_000_000_000 or pb.seconds * pb.nanos < 0:
        raise UnreadableError(f"{pb.seconds} s and {pb.nanos} ns are no duration", path)
    return timedelta(seconds=pb.seconds, microseconds=int(pb.nanos / 1000))


def read_array(pb: Any, path: _Path) -> Any:
    """The array in a Tensor: a read-only view of its bytes. Raises UnreadableError."""
    try:
        return tensors.read_tensor(pb)
    except ValueError as error:
        raise UnreadableError(str(error), path) from None
