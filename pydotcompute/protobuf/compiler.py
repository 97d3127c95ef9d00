"""Generates the code of codecs: about one line for each field, which costs little more than protobuf itself.

The generated writers do not look for errors. If protobuf refuses a value, the check of the schema finds the mistake.
The generated readers carry the path of the current value along as a linked list, which becomes text only in an error.
"""

from __future__ import annotations

import dataclasses
import inspect
import keyword
from collections.abc import Callable, Collection
from itertools import takewhile
from typing import Any, assert_never

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from pydotcompute.interrupts import pass_interrupt
from pydotcompute.messages.constructor import only_assigns
from pydotcompute.protobuf import basics, tensors
from pydotcompute.protobuf import runtime_helpers as helpers
from pydotcompute.protobuf.compatible import lacks_theirs
from pydotcompute.protobuf.conventions import BOX_FIELD, ONEOF, describe, members, message_type
from pydotcompute.protobuf.flat import Layout, layout_of
from pydotcompute.schema import nodes
from pydotcompute.schema.codegen import Source
from pydotcompute.schema.normalize import settled

__all__ = ["Compiler"]


class Compiler:
    """Generates the functions of one codec, and `write_N(pb, message)` and `read_N(pb, path)` for nested messages."""

    def __init__(self, schema: nodes.MessageSchema, descriptor: Descriptor) -> None:
        self._schema = schema
        self._descriptor = descriptor
        self._source = Source(f"codec of {schema.full_name}")
        self._names: dict[tuple[nodes.MessageSchema, str], int] = {}
        self._waiting: list[tuple[nodes.MessageSchema, Descriptor]] = []

    def compile(self) -> dict[str, Any]:
        """Returns the functions of the codec by name.

        They are `encode`, `decode`, `to_proto` and `from_proto`; and `gather` and `encode_aligned`, if the class has
        arrays that it can give.
        To be called once.
        """
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
                with source.block("except BaseException as error:"):
                    source.line(f"{self._call(helpers.explain_writing)}({bound_schema}, message, error)")
        for name, parameter in [(decode, "data"), ("from_proto", "pb")]:
            with source.block(f"def {name}({parameter}, {', '.join(nodes.HEADER_FIELDS)}):"):
                with source.block("try:"):
                    if name == decode:
                        source.line(f"pb = {parse}(data)")
                    source.line("path = None")
                    source.line(f"return {self._read_message(schema, self._descriptor, schema.header)}")
                with source.block("except BaseException as error:"):
                    source.line(f"{self._call(helpers.explain_reading)}({bound_schema}, error)")
        while self._waiting:
            schema, descriptor = self._waiting.pop()
            number = self._names[schema, descriptor.full_name]
            with source.block(f"def write_{number}(pb, message):"):
                self._write_fields(schema, descriptor)
                source.line("return")
            with source.block(f"def read_{number}(pb, path):"):
                instance = self._read_message(schema, descriptor, ())
                with source.block("try:"):
                    source.line(f"return {instance}")
                with source.block("except BaseException as error:"):
                    source.line(f"{self._call(pass_interrupt)}(error)")
                    problem = f"{self._call(helpers.text_of)}(error)"
                    source.line(f"raise {self._call(helpers.UnreadableError)}({problem}, path) from error")
        return source.run()

    def _flat_encode(self, layout: Layout) -> None:
        """Adds the `encode` of a class with a layout. It calls `encode_any` if a message does not fit the layout."""
        otherwise = "return encode_any(message)"
        with self._source.block("def encode(message):"):
            with self._source.block("try:"):
                layout.emit_encode(self._source, otherwise)
            with self._source.block("except BaseException as error:"):
                self._source.line(f"{self._call(pass_interrupt)}(error)")
                self._source.line(otherwise)

    def _flat_decode(self, layout: Layout) -> None:
        """Adds the `decode` of a class with a layout. It calls `decode_any` for bytes that do not fit the layout."""
        header = dict(zip(self._schema.header, self._schema.header, strict=True))
        otherwise = f"return decode_any(data, {', '.join(nodes.HEADER_FIELDS)})"
        with self._source.block(f"def decode(data, {', '.join(nodes.HEADER_FIELDS)}):"):
            with self._source.block("try:"):
                values = layout.emit_decode(self._source, otherwise)
                self._source.line(f"return {self._make(self._schema, header | values)}")
            with self._source.block("except BaseException as error:"):
                self._source.line(f"{self._call(pass_interrupt)}(error)")
                self._source.line(otherwise)

    def _in_front(self) -> dict[str, bool]:
        """Returns the fields of the message itself that hold arrays, with True if one holds many. See `tensors`."""
        found = {}
        for field in self._schema.fields:
            match field.node:
                case _ if field.name not in self._descriptor.fields_by_name:
                    pass
                case nodes.Array() | nodes.Optional(nodes.Array()):
                    found[field.name] = False
                case nodes.List(nodes.Array()) | nodes.Tuple(nodes.Array()):
                    found[field.name] = True
        return found

    def _tag_of(self, name: str) -> tuple[int, bytes]:
        return tensors.tag_of(self._descriptor.fields_by_name[name].number)

    def _gather_in_front(self, in_front: dict[str, bool]) -> None:
        """Adds the functions of a class with arrays that write the arrays first and without protobuf."""
        source = self._source
        pb_class = message_factory.GetMessageClass(self._descriptor)
        append = self._call(tensors.append)
        with source.block("def gather(message, aligned=True):"):
            with source.block("try:"):
                source.line(f"pb = {source.bind(pb_class, 'new')}()")
                self._write_fields(self._schema, self._descriptor, but=in_front)
                source.line("parts, at = [], 0")
                for field in self._schema.fields:
                    if field.name not in in_front:
                        continue
                    tag, value = source.bind(self._tag_of(field.name)[1], "tag"), source.fresh("value")
                    source.line(f"{value} = message.{field.name}")
                    add = f"at = {append}(parts, at, {tag}, {value}, aligned)"
                    match field.node:
                        case nodes.Array():
                            source.line(add)
                        case nodes.Optional():
                            source.line(f"if {value} is not None: {add}")
                        case _:
                            source.line(f"for {value} in {value}: {add}")
                source.line(f"parts.append({source.bind(pb_class.SerializeToString, 'serialize')}(pb))")
                source.line("return parts")
            with source.block("except BaseException as error:"):
                source.line(
                    f"{self._call(helpers.explain_writing)}({source.bind(self._schema, 'schema')}, message, error)"
                )
        with source.block("def encode(message):"):
            source.line("return b''.join(gather(message, False))")
        with source.block("def encode_aligned(message):"):
            source.line("return b''.join(gather(message))")

    def _decode_in_front(self, in_front: dict[str, bool]) -> None:
        """Adds the `decode` of a class with arrays. It calls `decode_any` if the arrays are not at the beginning."""
        source, schema = self._source, self._schema
        otherwise = f"return decode_any(data, {', '.join(nodes.HEADER_FIELDS)})"
        tags = source.bind({self._tag_of(name)[0]: many for name, many in in_front.items()}, "tags")
        pb_class = message_factory.GetMessageClass(self._descriptor)
        with source.block(f"def decode(data, {', '.join(nodes.HEADER_FIELDS)}):"):
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
            with source.block("except BaseException as error:"):
                source.line(f"{self._call(helpers.explain_reading)}({source.bind(schema, 'schema')}, error)")

    def _number(self, message: nodes.Message, descriptor: Descriptor) -> int:
        """Returns the N in the names of a class's functions, and marks the functions to be generated."""
        key = (message.schema, descriptor.full_name)
        if key not in self._names:
            self._names[key] = len(self._names)
            self._waiting.append((message.schema, descriptor))
        return self._names[key]

    def _call(self, function: Callable[..., Any]) -> str:
        return self._source.bind(function, function.__name__.strip("_"))

    def _method(self, descriptor: Descriptor, name: str) -> str:
        """Returns the name of a protobuf method in the source.

        The method is taken from the class, because in an instance a field with the same name would hide it.
        """
        return self._source.bind(getattr(message_factory.GetMessageClass(descriptor), name), name)

    # Writing: these methods add statements that put `value` into a field of the protobuf object `pb`.

    def _write_fields(self, schema: nodes.MessageSchema, descriptor: Descriptor, but: Collection[str] = ()) -> None:
        for field in schema.fields:
            if field.name in but:
                continue
            theirs = descriptor.fields_by_name.get(field.name)
            if theirs is None:
                self._write_nothing(schema, field, descriptor)
            else:
                self._write(field.node, theirs, "pb", f"message.{field.name}")

    def _write_nothing(self, schema: nodes.MessageSchema, field: nodes.Field, descriptor: Descriptor) -> None:
        """Adds a statement that refuses a value of a field that the other side lacks, unless it is its default."""
        default = settled(field.node, field.make_absent())
        if not helpers.same(default, settled(field.node, field.make_absent())):
            return  # The default is another one each time, such as a new UUID: nobody can tell if it was set.
        problem = (
            f"{lacks_theirs(schema, field, descriptor)}; it can only be sent while it has its default, {default!r:.100}"
        )
        bound = self._source.bind(default, "default")
        self._source.line(f"if not {self._call(helpers.same)}(message.{field.name}, {bound}):")
        arguments = f"{schema.name!r}, {problem!r}, {f'$.{field.name}'!r}"
        self._source.line(f"    {self._call(helpers.refuse)}({arguments})")

    def _write(self, node: nodes.Node, field: FieldDescriptor, pb: str, value: str) -> None:
        source, target = self._source, f"{pb}.{field.name}"
        match node:
            case nodes.Optional(item):
                kept = source.fresh("value")
                source.line(f"{kept} = {value}")
                with source.block(f"if {kept} is not None:"):
                    if nodes.is_boxed(item):
                        self._write_message(item, field, target, kept)
                    else:
                        self._write(item, field, pb, kept)
                if not field.has_presence:
                    problem = f"the daemon's {_owner(field).full_name} has no None here: its type is {describe(field)}"
                    arguments = f"{self._schema.name!r}, {problem!r}, {f'$.{field.name}'!r}"
                    source.line(f"else: {self._call(helpers.refuse)}({arguments})")
            case nodes.List(item) | nodes.Tuple(item):
                if field.message_type is None:
                    each = self._to_scalar(item, field, "each")
                    source.line(f"{target}.extend({value if each == 'each' else f'[{each} for each in {value}]'})")
                else:
                    added, each = source.fresh("add"), source.fresh("each")
                    source.line(f"{added} = {target}.add")
                    with source.block(f"for {each} in {value}:"):
                        self._write_message(item, field, f"{added}()", each)
            case nodes.Map(_, item):
                entries, key, each = source.fresh("entries"), source.fresh("key"), source.fresh("each")
                source.line(f"{entries} = {target}")
                with source.block(f"for {key}, {each} in {value}.items():"):
                    value_field = message_type(field).fields_by_name["value"]
                    if value_field.message_type is None:
                        source.line(f"{entries}[{key}] = {self._to_scalar(item, value_field, each)}")
                    else:
                        self._write_message(item, value_field, f"{entries}[{key}]", each)
            case _ if field.message_type is None:
                source.line(f"{target} = {self._to_scalar(node, field, value)}")
            case _:
                self._write_message(node, field, target, value)

    def _to_scalar(self, node: nodes.Node, field: FieldDescriptor, value: str) -> str:
        """Returns an expression for the protobuf scalar of a value that is not a message in protobuf."""
        match node:
            case nodes.Uuid():
                return f"{self._call(str)}({value})"
            case nodes.EnumNode():
                theirs = members(field.enum_type) if field.enum_type is not None else {}
                ours = {member: (name.removeprefix(node.prefix), number) for member, name, number in node.values()}
                numbers = {member: number for member, (name, number) in ours.items() if name in theirs}
                bound = self._source.bind(numbers, "numbers")
                if len(numbers) == len(ours):
                    return f"{bound}[{value}]"
                other = f"the daemon's {field.enum_type.full_name}" if field.enum_type is not None else "the daemon"
                arguments = f"{self._schema.name!r}, {other!r}, {f'$.{field.name}'!r}"
                return f"{self._call(helpers.enum_number)}({bound}, {value}, {arguments})"
            case _:
                return value

    def _write_message(self, node: nodes.Node, field: FieldDescriptor, target: str, value: str) -> None:
        """Adds statements that set the message `target`, which has the type of `field`, to `value`."""
        source, descriptor, pb = self._source, message_type(field), self._source.fresh("pb")
        source.line(f"{pb} = {target}")
        # The message must be present even if it stays empty.
        source.line(f"{self._method(descriptor, 'SetInParent')}({pb})")
        match node:
            case nodes.Timestamp():
                source.line(f"{self._call(helpers.write_timestamp)}({pb}, {value})")
            case nodes.Duration():
                source.line(f"{self._call(helpers.write_duration)}({pb}, {value})")
            case nodes.Array():
                source.line(f"{self._call(tensors.write_tensor)}({pb}, {value})")
            case nodes.Basic(kind):
                source.line(f"{self._call(basics.WRITERS[kind])}({pb}, {value})")
            case nodes.Message():
                source.line(f"write_{self._number(node, descriptor)}({pb}, {value})")
            case nodes.Union():
                source.line(f"kind = type({value})")
                known = [(name, member) for name, member in node.named() if name in descriptor.fields_by_name]
                for position, (name, member) in enumerate(known):
                    test = f"{'elif' if position else 'if'} kind is {source.bind(member.cls, 'cls')}:"
                    with source.block(test):
                        self._write_message(member, descriptor.fields_by_name[name], _attribute(pb, name), value)
                with source.block("else:"):
                    if len(known) == len(node.members):
                        source.line("raise TypeError(kind)")
                    else:
                        problem = f"the daemon's union has only {', '.join(name for name, _ in known)}"
                        arguments = f"{self._schema.name!r}, kind.__name__ + {f': {problem}'!r}, {f'$.{field.name}'!r}"
                        source.line(f"{self._call(helpers.refuse)}({arguments})")
            case _:
                self._write(node, descriptor.fields_by_name[BOX_FIELD], pb, value)

    # Reading: these methods return expressions for values. `path` is an expression for the place of the value.

    def _read_message(
        self,
        schema: nodes.MessageSchema,
        descriptor: Descriptor,
        header: tuple[str, ...],
        in_front: Collection[str] = (),
    ) -> str:
        """Adds statements that read all fields into variables. Returns an expression for an instance made from them.

        The fields `in_front` are read from `arrays`, and all others from `pb`.
        """
        source = self._source
        values = {name: name for name in header}
        for field in schema.fields:
            kept = values[field.name] = source.fresh("value")
            if field.name not in descriptor.fields_by_name:
                source.line(f"{kept} = {self._lacking_value(field)}")
            elif field.name in in_front:
                source.line(f"{kept} = {self._taken_field(field)}")
            else:
                source.line(f"{kept} = {self._read_field(field, descriptor.fields_by_name[field.name], kept)}")
        return self._make(schema, values)

    def _make(self, schema: nodes.MessageSchema, values: dict[str, str]) -> str:
        """Returns an expression for an instance with these values.

        The instance is made without the constructor if the constructor would only assign the fields.
        """
        source, cls = self._source, self._source.bind(schema.cls, "cls")
        names = [field.name for field in dataclasses.fields(schema.cls)]
        if only_assigns(schema.cls) and values.keys() == set(names):
            source.line(f"made = {source.bind(object.__new__, 'make')}({cls})")
            for name in names:
                source.line(f"made.{name} = {values[name]}")
            return "made"
        # As many arguments as possible are given by position, which costs half as much as by name.
        parameters = inspect.signature(schema.cls).parameters.values()
        by_position = [
            values.pop(parameter.name)
            for parameter in takewhile(lambda p: p.kind is p.POSITIONAL_OR_KEYWORD and p.name in values, parameters)
        ]
        by_name = [f"{name}={value}" for name, value in values.items()]
        return f"{cls}({', '.join(by_position + by_name)})"

    def _taken_field(self, field: nodes.Field) -> str:
        """Returns an expression for the value of a field whose arrays are in `arrays`."""
        tag, path = self._tag_of(field.name)[0], f"(path, {field.name!r})"
        match field.node:
            case nodes.List():
                return f"arrays.get({tag}, [])"
            case nodes.Tuple(length=length):
                value = f"tuple(arrays.get({tag}, ()))"
                if length is None:
                    return value
                value = f"{self._call(helpers.of_length)}({value}, {length}, {path})"
                if not field.is_absent_if_empty:
                    return value
                return f"{value} if {tag} in arrays else {self._absent_value(field, path)}"
            case nodes.Optional():
                absent = "None"
            case _:
                absent = self._absent_value(field, path)
        return f"arrays[{tag}][0] if {tag} in arrays else {absent}"

    def _absent_value(self, field: nodes.Field, path: str) -> str:
        """Returns an expression for the value of an absent field: what absent means, or a call that raises an error."""
        return f"{self._call(helpers.absent)}({path})" if field.is_required else self._lacking_value(field)

    def _lacking_value(self, field: nodes.Field) -> str:
        """Returns an expression for the value of a field that the other side lacks: what absent means."""
        return f"{self._source.bind(lambda: settled(field.node, field.make_absent()), 'default')}()"

    def _read_field(self, field: nodes.Field, descriptor: FieldDescriptor, kept: str) -> str:
        """Returns an expression for the value of a field. If the field is absent, that is None or the default."""
        source, path = self._source, f"(path, {field.name!r})"
        value = self._read(field.node, descriptor, "pb", path)
        if field.is_absent_if_empty:
            return f"{value} if pb.{field.name} else {self._absent_value(field, path)}"
        if not descriptor.has_presence or isinstance(field.node, nodes.Optional):
            return value
        default = self._absent_value(field, path)
        present = f"{self._method(_owner(descriptor), 'HasField')}(pb, {field.name!r})"
        if isinstance(field.node, nodes.Float | nodes.Int | nodes.Bool | nodes.Str | nodes.Bytes | nodes.Literal):
            # A value other than zero is certainly present, so `HasField` is called only for zero.
            source.line(f"{kept} = {value}")
            return f"{kept} if {kept} or {present} else {default}"
        return f"{value} if {present} else {default}"

    def _read(self, node: nodes.Node, field: FieldDescriptor, pb: str, path: str) -> str:
        target = f"{pb}.{field.name}"
        match node:
            case nodes.Optional(item):
                value = self._read_single(item, field, target, path)
                if not field.has_presence:
                    return value
                present = f"{self._method(_owner(field), 'HasField')}({pb}, {field.name!r})"
                return f"{value} if {present} else None"
            case nodes.List(item):
                return self._read_elements(item, field, target, path, "list")
            case nodes.Tuple(item, length):
                elements = self._read_elements(item, field, target, path, "tuple")
                return elements if length is None else f"{self._call(helpers.of_length)}({elements}, {length}, {path})"
            case nodes.Map(_, item):
                key, each = self._source.fresh("key"), self._source.fresh("each")
                value_field = message_type(field).fields_by_name["value"]
                value = self._read_single(item, value_field, each, f"({path}, None, {key})")
                if value == each:
                    return f"dict({target})"
                return f"{{{key}: {value} for {key}, {each} in {target}.items()}}"
            case _:
                return self._read_single(node, field, target, path)

    def _read_elements(self, item: nodes.Node, field: FieldDescriptor, target: str, path: str, kind: str) -> str:
        index, each = self._source.fresh("index"), self._source.fresh("each")
        value = self._read_single(item, field, each, f"({path}, None, {index})")
        elements = target if value == each else f"[{value} for {index}, {each} in enumerate({target})]"
        return elements if kind == "list" and value != each else f"{kind}({elements})"

    def _read_single(self, node: nodes.Node, field: FieldDescriptor, value: str, path: str) -> str:
        """Returns an expression for a single value: of the field itself or, if it is repeated, of an element."""
        match node:
            case nodes.Float() | nodes.Int() | nodes.Bool() | nodes.Str() | nodes.Literal() | nodes.Bytes():
                return value
            case nodes.Uuid():
                return f"{self._call(helpers.read_uuid)}({value}, {path})"
            case nodes.EnumNode():
                ours = self._source.bind({number: member for member, _, number in node.values()}, "members")
                theirs = members(field.enum_type) if field.enum_type is not None else {}
                unknown = {number: name for name, number in theirs.items()}
                names = self._source.bind(unknown, "names")
                return f"{self._call(helpers.read_enum)}({ours}, {value}, {path}, {names})"
            case nodes.Timestamp():
                return f"{self._call(helpers.read_timestamp)}({value}, {path})"
            case nodes.Duration():
                return f"{self._call(helpers.read_duration)}({value}, {path})"
            case nodes.Array():
                return f"{self._call(helpers.read_array)}({value}, {path})"
            case nodes.Basic(kind):
                return f"{self._call(basics.READERS[kind])}({value}, {path})"
            case nodes.Message():
                return f"read_{self._number(node, message_type(field))}({value}, {path})"
            case nodes.Union():
                return f"({self._read_union(node, message_type(field), value, path)})"
            case nodes.Optional() | nodes.List() | nodes.Tuple() | nodes.Map():
                return f"({self._read(node, message_type(field).fields_by_name[BOX_FIELD], value, path)})"
            case _:
                assert_never(node)

    def _read_union(self, node: nodes.Union, descriptor: Descriptor, value: str, path: str) -> str:
        kind = self._source.fresh("kind")
        which = f"({kind} := {self._method(descriptor, 'WhichOneof')}({value}, {ONEOF!r}))"
        choices = ""
        for name, member in node.named():
            if name not in descriptor.fields_by_name:
                continue
            member_type = message_type(descriptor.fields_by_name[name])
            read = f"read_{self._number(member, member_type)}({_attribute(value, name)}, {path})"
            choices += f"{read} if {which} == {name!r} else "
            which = kind
        return f"{choices}{self._call(helpers.no_member)}({which if which == kind else 'None'}, {path})"


def _attribute(value: str, name: str) -> str:
    """Returns an expression for an attribute. A member of a union may have the name of a keyword, such as `in`."""
    return f"getattr({value}, {name!r})" if keyword.iskeyword(name) else f"{value}.{name}"


def _owner(field: FieldDescriptor) -> Descriptor:
    assert field.containing_type is not None
    return field.containing_type
