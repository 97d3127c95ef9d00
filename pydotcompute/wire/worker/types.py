"""The message classes of one link: each has an index, and a codec."""

from __future__ import annotations

from typing import Any

from pydotcompute.exceptions import MessageTypeError, PyDotComputeError
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
        for cls in reversed(message_classes()):
            try:
                if introspect(cls).full_name == name:
                    self.add(cls)
                    return
            except PyDotComputeError:  # A class that cannot cross the wire.
                continue
        try:
            self.add(class_described_by(files, name))
        except MessageTypeError as error:
            raise LinkError(f"the actor sends messages of a class {name} that cannot be: {error}") from error
