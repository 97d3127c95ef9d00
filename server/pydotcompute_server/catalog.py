"""The protobuf types of the daemon's message classes."""

from __future__ import annotations

from typing import Any, NamedTuple

from google.protobuf.descriptor_pb2 import FileDescriptorSet

from pydotcompute.exceptions import InvalidConfigurationError, MessageTypeError
from pydotcompute.messages.raw import Raw, raw_class, stands_for
from pydotcompute.protobuf.codec import Codec
from pydotcompute.protobuf.packages import is_reserved
from pydotcompute.protobuf.pool import TypePool
from pydotcompute.protobuf.raw import RawCodec
from pydotcompute.protobuf.services import add_service
from pydotcompute.ring_kernels.declaration import KernelType
from pydotcompute.ring_kernels.kernel import RingKernel
from pydotcompute.v1 import message_service_pb2 as pb

__all__ = ["Catalog"]


class MessageTypeFiles(NamedTuple):
    """A message type that another one has replaced."""

    codec: Codec[Any]
    full_name: str
    files: FileDescriptorSet


class Catalog:
    """The codecs and descriptors of message classes, made once for each class. One pool has all of the descriptors.

    Reflection serves the types and services of that pool.
    """

    def __init__(self) -> None:
        self.pool = TypePool()
        self._codecs: dict[type, Codec[Any]] = {}
        self._earlier: dict[type, MessageTypeFiles] = {}  # Of classes that are no more.
        self.services: dict[str, KernelType] = {}
        """The kernel types that have a service, by the full name of the service."""

    def add(self, *kernel_types: KernelType) -> None:
        """Add the message types and services of kernel types.

        Raises:
            MessageTypeError: another message class of the same full name has other fields.
            InvalidConfigurationError: the name of a service is reserved, or something else has it.
        """
        for kernel_type in kernel_types:
            for cls in (kernel_type.input_type, kernel_type.output_type):
                if cls is not None:
                    self.codec(cls)
        # The services come last, so that a message type with the name of a service is found here.
        for kernel_type in kernel_types:
            if kernel_type.input_type is not None:
                self._add_service(kernel_type, kernel_type.input_type)

    def replaced_by(self, *kernel_types: KernelType) -> Catalog:
        """Return a catalog of these kernel types, with the daemon's own files, for `become`.

        Raises:
            MessageTypeError, InvalidConfigurationError: as `add`.
        """
        other = Catalog()
        other.add(*kernel_types)
        other.pool.add_files(file for file in self.pool.files if is_reserved(file.package))
        return other

    def become(self, other: Catalog) -> None:
        """Hold what another catalog holds from now on.

        Sessions that have begun go on with the codecs that they have. What they were told of their types stays known.
        """
        for cls, codec in self._codecs.items():
            if cls not in other._codecs and not issubclass(cls, Raw):
                name = codec.descriptor.full_name
                self._earlier[cls] = MessageTypeFiles(codec, name, self.pool.file_set(name))
        self.pool.become(other.pool)
        self._codecs = other._codecs
        self.services.clear()
        self.services.update(other.services)

    def _add_service(self, kernel_type: KernelType, input_type: type) -> None:
        name = kernel_type.service

        def refusal(problem: str) -> InvalidConfigurationError:
            problem = f"kernel type {kernel_type.name!r}: {problem}; choose another with service="
            return InvalidConfigurationError("service", name, problem)

        other = self.services.get(name)
        if other is not None and other.name != kernel_type.name:
            raise refusal(f"the service of {other.name!r} has this name")
        if is_reserved(name):
            raise refusal("there are services of the daemon in this package")
        output_type = kernel_type.output_type
        try:
            add_service(
                self.pool,
                name,
                self.codec(input_type).descriptor,
                None if output_type is None else self.codec(output_type).descriptor,
                kernel_type.documentation,
            )
        except MessageTypeError as error:
            raise refusal("a message type, or a file of one, has this name") from error
        self.services[name] = kernel_type

    def codec(self, cls: type) -> Codec[Any]:
        """Return the codec of a message class, or of the `Raw` messages that stand for one."""
        codec = self._codecs.get(cls)
        if codec is None and cls in self._earlier:
            return self._earlier[cls].codec
        if codec is None:
            codec = RawCodec(self.codec(stands_for(cls))) if issubclass(cls, Raw) else Codec(cls, self.pool)
            self._codecs[codec.message_type] = codec
        return codec

    def lane_codecs(self, kernel: RingKernel[Any, Any]) -> list[Codec[Any]]:
        """Return the codecs of `codecs` for the messages of a kernel. If its actor runs elsewhere, they are `Raw` ones.

        Raises:
            MessageTypeError: as `codecs`.
        """
        codecs = self.codecs(kernel.type)
        return [self._raw(codec) for codec in codecs] if kernel.mail.takes_raw else codecs

    def _raw(self, codec: Codec[Any]) -> Codec[Any]:
        return self.codec(raw_class(codec.schema.cls, codec.decode_checked))

    def codecs(self, kernel_type: KernelType) -> list[Codec[Any]]:
        """Return the codec of a kernel's input type, and that of its output type if that is another class.

        Raises:
            MessageTypeError: the kernel was declared without an input type, so that no message can cross the wire.
        """
        if kernel_type.input_type is None:
            raise MessageTypeError("a kernel declared with an input_type", f"kernel {kernel_type.name!r} without one")
        classes = dict.fromkeys((kernel_type.input_type, kernel_type.output_type or kernel_type.input_type))
        return [self.codec(cls) for cls in classes]

    def service_files(self, name: str) -> FileDescriptorSet | None:
        """Return the files that define a service, with all their imports; None if there is no such service."""
        return self.pool.file_set(name) if name in self.services else None

    def message_type(self, cls: type) -> pb.MessageType:
        """Return the full name of a message class, and the files that define it."""
        if (earlier := self._earlier.get(cls)) is not None:
            return pb.MessageType(full_name=earlier.full_name, files=earlier.files)
        full_name = self.codec(cls).descriptor.full_name
        return pb.MessageType(full_name=full_name, files=self.pool.file_set(full_name))
