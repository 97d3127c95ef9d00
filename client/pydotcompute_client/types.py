"""Matches the classes of this program with the types of the daemon."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from pydotcompute.exceptions import MessageTypeError, PyDotComputeError
from pydotcompute.messages.message import classes_declared, message, message_classes
from pydotcompute.protobuf.classes import dataclass_from
from pydotcompute.protobuf.codec import Codec
from pydotcompute.protobuf.compatible import compatible
from pydotcompute.protobuf.conventions import required_fields
from pydotcompute.protobuf.pool import TypePool
from pydotcompute.schema.introspect import introspect
from pydotcompute.schema.nodes import MessageSchema
from pydotcompute.v1 import message_service_pb2 as pb

__all__ = ["RemoteTypes"]


@contextmanager
def _distrusted(full_name: str) -> Iterator[None]:
    """Turn every error in the block into MessageTypeError: a daemon may describe types that no class could have."""
    try:
        yield
    except PyDotComputeError:
        raise
    except Exception as error:
        found = f"{full_name}, of which none can be made: {type(error).__name__}: {error}"
        raise MessageTypeError("a type that a message class can have", found) from error


class RemoteTypes:
    """The daemon's types, and the classes of this program that stand for them.

    A class stands for a type if it has the same name and is `compatible`. It may be of another module than the type.
    But then it must have all fields of the type, unless the main program declares it: chance may have named it so, and
    fields that it lacks are lost.
    """

    def __init__(self) -> None:
        self._pool = TypePool()
        self._codecs: dict[tuple[type, str], Codec[Any]] = {}
        self._classes: dict[str, type] = {}
        self._required: set[str] = set()
        self._made: dict[str, type] = {}  # The classes that were made for types.
        self._declared = 0

    def learn(self, message_type: pb.MessageType) -> str:
        """Take in a type that the daemon described. Return the type's full name. MessageTypeError if it is none."""
        with _distrusted(message_type.full_name):
            self._pool.add_files(message_type.files.file)
            self._required |= required_fields(message_type.files.file)
        return message_type.full_name

    def prefer(self, cls: type) -> None:
        """Decode messages of the type that this class stands for as this class, until it is declared again."""
        self._look_again()
        self._classes[introspect(cls).full_name] = cls

    def codec(self, cls: type, full_name: str) -> Codec[Any]:
        """Return the codec between a class of this program and a type of the daemon.

        Raises:
            MessageTypeError: the class does not stand for the type; the path names the first field that differs.
        """
        codec = self._codecs.get((cls, full_name))
        if codec is None:
            descriptor = self._pool.descriptor(full_name)
            if cls.__name__ != descriptor.name:
                raise MessageTypeError(descriptor.name, cls.__name__)
            with _distrusted(full_name):
                codec = self._codecs[cls, full_name] = Codec(cls, self._pool, descriptor, self._required)
        return codec

    def receiving_codec(self, full_name: str) -> Codec[Any]:
        """Return the codec for received messages of a type of the daemon.

        It decodes to the class of this program that stands for the type, or to a class made for it. If the class was
        declared again, as in a notebook, it decodes to the one that was declared last.

        Raises:
            MessageTypeError: no class can be made for the type.
        """
        self._look_again()
        cls = self._classes.get(full_name) or self._made.get(full_name)
        if cls is None:
            with _distrusted(full_name):
                cls = self._find(full_name)
        return self.codec(cls, full_name)

    def _look_again(self) -> None:
        """Replace the classes that have been declared again, if they still stand for their types."""
        if self._declared == classes_declared():
            return
        declared = {(cls.__module__, cls.__qualname__): cls for cls in message_classes(after=self._declared)}
        for full_name, cls in self._classes.items():
            newest = declared.get((cls.__module__, cls.__qualname__))
            if newest is not None and self._stands_for(newest, full_name):
                self._classes[full_name] = newest
        self._declared = classes_declared()

    def _stands_for(self, cls: type, full_name: str) -> bool:
        schema = introspect(cls)
        if schema.full_name != full_name and cls.__module__ != "__main__":
            ours = {field.name for field in schema.fields}
            if not ours.issuperset(self._pool.descriptor(full_name).fields_by_name):
                return False
        try:
            self._lacking(schema, full_name)
        except MessageTypeError:
            return False
        return True

    def _lacking(self, schema: MessageSchema, full_name: str) -> int:
        return compatible(schema, self._pool.descriptor(full_name), self._required)

    def _find(self, full_name: str) -> type:
        name = full_name.rpartition(".")[2]
        candidates: dict[tuple[str, str], type] = {}  # Of those declared again, the last
        for cls in message_classes():
            if cls.__name__ == name and self._stands_for(cls, full_name):
                candidates[cls.__module__, cls.__qualname__] = cls
        if candidates:
            return self._classes.setdefault(full_name, min(candidates.values(), key=partial(self._rank, full_name)))
        return self._made.setdefault(full_name, message(dataclass_from(self._pool.descriptor(full_name))))

    def _rank(self, full_name: str, cls: type) -> tuple[bool, int, bool, str, str]:
        """Return the key by which the class that stands best for a type is the least."""
        schema = introspect(cls)
        place = (cls.__module__ != "__main__", cls.__module__, cls.__qualname__)
        return (schema.full_name != full_name, self._lacking(schema, full_name), *place)
