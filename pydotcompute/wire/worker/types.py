"""The message classes of one link: each has an index, and a codec."""

from __future__ import annotations

from typing import Any

from pydotcompute.exceptions import MessageDeserializationError, MessageTypeError, PyDotComputeError
from pydotcompute.messages.message import message_classes
from pydotcompute.messages.raw import Raw, raw_class
from pydotcompute.protobuf.codec import Codec
from pydotcompute.protobuf.described import class_described_by
from pydotcompute.protobuf.pool import TypePool
from pydotcompute.schema.introspect import introspect
from pydotcompute.wire.worker.frames import MOST_TYPES, LinkError

__all__ = ["LinkTypes"]


class LinkTypes:
    """The message classes of one kernel: first its output type, then its input type, then whatever else it sends.

    Both sides of the link give the same index to the same class. A class that the kernel has not declared gets the next
    index when its actor first sends it, and the worker tells its full name.
    """

    def __init__(self, input_type: type, output_type: type | None) -> None:
        self._pool = TypePool()
        self._indexes: dict[type, int] = {}
        # The classes without an index, of the replies to what the actor asks: their codecs by class, and by full name.
        self._others: dict[type, Codec[Any]] = {}
        self._named: dict[str, Codec[Any]] = {}
        self.codecs: list[Codec[Any]] = []
        """The codecs, by index."""
        self.raw: list[type[Raw]] = []
        """The classes of `Raw` messages, by index."""
        self.add(output_type or input_type)
        if input_type not in self._indexes:
            self.add(input_type)
        self.input_index = self._indexes[input_type]
        """The index of the input type."""
        self.of_input = self.codecs[self.input_index]
        """The codec of the input type."""
        self._declared = input_type, output_type

    @classmethod
    def of_kernel(cls, input_type: type, output_type: type | None, before: LinkTypes | None) -> LinkTypes:
        """Return the types of a new link of a kernel.

        To make a codec takes milliseconds. So if the link `before` of the same kernel was of the same types, and its
        actor has sent no others, it is that.
        """
        if before is not None and before._is_of(input_type, output_type):  # noqa: SLF001  # It is of this class.
            return before
        return cls(input_type, output_type)

    def _is_of(self, input_type: type, output_type: type | None) -> bool:
        """Return True if these are the types, and there are no others."""
        declared = {input_type, output_type or input_type}
        return self._declared == (input_type, output_type) and len(self.codecs) == len(declared)

    def add(self, cls: type) -> int:
        """Give a class the next index, and return it.

        Raises:
            MessageTypeError: the class cannot be a protobuf type.
            LinkError: there are too many classes.
        """
        if len(self.codecs) >= MOST_TYPES:
            raise LinkError(f"a kernel sends messages of at most {MOST_TYPES} classes")
        codec: Codec[Any] = Codec(cls, self._pool)
        self.codecs.append(codec)
        self.raw.append(raw_class(cls, codec.decode_checked))
        self._indexes[cls] = len(self.codecs) - 1
        return self._indexes[cls]

    def index(self, cls: type) -> int | None:
        """Return the index of a class; None if it has none yet."""
        return self._indexes.get(cls)

    def files(self, index: int) -> bytes:
        """Return the files that define the class with this index, as a serialized FileDescriptorSet."""
        return self._pool.file_set(self.codecs[index].schema.full_name).SerializeToString()

    def add_named(self, name: str, files: bytes) -> None:
        """Give the next index to the class with this full name. If there is none here, one is made of the files.

        Raises:
            LinkError: no class can be made of the files.
        """
        try:
            self.add(_class_named(name) or class_described_by(files, name))
        except MessageTypeError as error:
            raise LinkError(f"the actor sends messages of a class {name} that cannot be: {error}") from error

    def of(self, cls: type) -> Codec[Any]:
        """Return the codec of a class, also of one without an index. Raises MessageTypeError."""
        index = self._indexes.get(cls)
        if index is not None:
            return self.codecs[index]
        codec = self._others.get(cls)
        if codec is None:
            codec = self._others[cls] = Codec(cls, self._pool)
        return codec

    def named(self, name: str) -> Codec[Any]:
        """Return the codec of the class with this full name.

        Raises:
            MessageDeserializationError: there is no such class here.
        """
        codec = self._named.get(name)
        if codec is None:
            cls = _class_named(name)
            if cls is None:
                problem = (
                    "no class of this name is declared in the worker of the actor; import the file that declares it"
                )
                raise MessageDeserializationError(name, problem)
            codec = self._named[name] = self.of(cls)
        return codec


def _class_named(name: str) -> type | None:
    for cls in reversed(message_classes()):
        try:
            if introspect(cls).full_name == name:
                return cls
        except PyDotComputeError:  # A class that cannot cross the wire.
            continue
    return None
