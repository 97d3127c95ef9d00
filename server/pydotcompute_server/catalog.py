"""The protobuf types of the daemon's message classes."""

from __future__ import annotations

from typing import Any

from pydotcompute.exceptions import MessageTypeError
from pydotcompute.ring_kernels.declaration import KernelType
from pydotcompute.schema.codec import Codec
from pydotcompute.schema.descriptors import TypePool
from pydotcompute.v1 import message_service_pb2 as pb

__all__ = ["Catalog"]


class Catalog:
    """Codecs and descriptors, made once for each message class. One pool holds them all, which reflection serves."""

    def __init__(self) -> None:
        self.pool = TypePool()
        self._codecs: dict[type, Codec[Any]] = {}

    def add(self, kernel_type: KernelType) -> None:
        """Make the types of a kernel type known.

        Raises:
            MessageTypeError: another message class of the same full name has other fields.
        """
        for cls in (kernel_type.input_type, kernel_type.output_type):
            if cls is not None:
                self.codec(cls)

    def codec(self, cls: type) -> Codec[Any]:
        """The codec of a message class."""
        codec = self._codecs.get(cls)
        if codec is None:
            codec = self._codecs[cls] = Codec(cls, self.pool)
        return codec

    def codecs(self, kernel_type: KernelType) -> list[Codec[Any]]:
        """The codecs of a kernel: its input type's, then its output type's if that is another.

        Raises:
            MessageTypeError: the kernel was declared without an input type, so that no message can cross the wire.
        """
        if kernel_type.input_type is None:
            raise MessageTypeError("a kernel declared with an input_type", f"kernel {kernel_type.name!r} without one")
        classes = dict.fromkeys((kernel_type.input_type, kernel_type.output_type or kernel_type.input_type))
        return [self.codec(cls) for cls in classes]

    def message_type(self, cls: type) -> pb.MessageType:
        """The type with the files that define it."""
        full_name = self.codec(cls).descriptor.full_name
        return pb.MessageType(full_name=full_name, files=self.pool.file_set(full_name))
