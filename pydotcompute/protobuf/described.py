"""Message classes that stand for those of another process, which describes them by files of protobuf."""

from __future__ import annotations

from typing import Any

from pydotcompute.messages.message import message
from pydotcompute.protobuf.classes import dataclass_from
from pydotcompute.protobuf.pool import TypePool

__all__ = ["class_described_by", "class_of"]


def class_of(pool: TypePool, full_name: str) -> type:
    """Return a new message class for a type of a pool. A pool that it is added to has the same files then.

    Raises:
        MessageTypeError: the pool has no such type, or no class can be made for it.
    """
    made: Any = message(dataclass_from(pool.descriptor(full_name)))
    made.__proto_files__ = pool.file_set(full_name).file
    cls: type = made
    return cls


def class_described_by(files: bytes, full_name: str) -> type:
    """Return a new message class for a type that a serialized FileDescriptorSet defines.

    Raises:
        MessageTypeError: the files do not define it, or no class can be made for it.
    """
    pool = TypePool()
    pool.add_files(files)
    return class_of(pool, full_name)
