"""What a process tells of the kernel types that it has imported, and the kernel types that are made of that."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorSet

from pydotcompute.exceptions import InvalidConfigurationError
from pydotcompute.messages.message import message
from pydotcompute.protobuf.classes import dataclass_from
from pydotcompute.protobuf.json.sample import sample_json
from pydotcompute.protobuf.pool import TypePool
from pydotcompute.ring_kernels.config import RingKernelConfig
from pydotcompute.ring_kernels.declaration import Executor, KernelFunction, KernelType
from pydotcompute.schema.introspect import introspect
from pydotcompute.wire.worker.start import Elsewhere, Place, place_of

__all__ = ["describe", "kernel_types_of"]

OF_THEIR_OWN = ("name", "func", "config", "input_type", "output_type")
"""The fields of a kernel type that are described in a way of their own. All others are values of JSON."""


def describe(kernel_types: Iterable[KernelType]) -> tuple[dict[str, Any], bytes]:
    """Return the description of kernel types: values of JSON, and a serialized FileDescriptorSet of their messages.

    Raises:
        MessageTypeError: two message classes of one full name have different fields.
    """
    pool = TypePool()
    messages: dict[str, Any] = {}
    described = []
    for each in kernel_types:
        types = {"input_type": each.input_type, "output_type": each.output_type}
        for cls in types.values():
            if cls is not None:
                name = pool.add(cls).full_name
                messages.setdefault(name, {"place": _place(cls), "sample": sample_json(introspect(cls))})
        described.append({
            "name": each.name,
            "place": _place(each.func),
            "documentation": each.documentation,
            "executor": each.executor,
            "config": asdict(each.config),
            "settings": {field.name: getattr(each, field.name) for field in fields(each) if field.name not in OF_THEIR_OWN},
            **{role: None if cls is None else introspect(cls).full_name for role, cls in types.items()},
        })  # fmt: skip
    path = [entry for entry in sys.path if isinstance(entry, str)]
    values = {"kernel_types": described, "messages": messages, "path": path}
    return values, FileDescriptorSet(file=pool.files).SerializeToString()


def _place(value: object) -> dict[str, Any]:
    try:
        return {"place": place_of(value), "problem": ""}
    except InvalidConfigurationError as error:
        return {"place": None, "problem": error.problem}


def kernel_types_of(values: Mapping[str, Any], files: bytes) -> dict[str, KernelType]:
    """Return the kernel types of a description that `describe` has made, by name.

    Something else stands for their functions and message classes. It has `__elsewhere__`, which says where they are.

    Raises:
        MessageTypeError: no class can be made for a message type.
    """
    pool = TypePool()
    pool.add_files(files)
    path = tuple(values["path"])
    classes = {name: _message_class(pool, name, each, path) for name, each in values["messages"].items()}
    made = {}
    for each in values["kernel_types"]:
        input_type, output_type = (classes.get(each[role] or "") for role in ("input_type", "output_type"))
        settings = {name: tuple(it) if isinstance(it, list) else it for name, it in each["settings"].items()}
        func = _stand_in(each["name"], each["executor"], each["documentation"])
        func.__dict__["__elsewhere__"] = _elsewhere(each["place"], path)
        config = RingKernelConfig(**each["config"])
        made[each["name"]] = KernelType(each["name"], func, config, input_type, output_type, **settings)
    return made


def _message_class(pool: TypePool, name: str, described: Mapping[str, Any], path: tuple[str, ...]) -> type:
    cls = message(dataclass_from(pool.descriptor(name)))
    made: Any = cls
    made.__proto_files__ = pool.file_set(name).file
    made.__sample_json__ = described["sample"]
    made.__elsewhere__ = _elsewhere(described["place"], path)
    return cls


def _elsewhere(described: Mapping[str, Any], path: tuple[str, ...]) -> Elsewhere:
    place = described["place"]
    return Elsewhere(None if place is None else Place(*place), described["problem"], path)


def _stand_in(name: str, executor: Executor, documentation: str) -> KernelFunction:
    """Return a function that stands for an actor. It is of the same kind, and is never called."""

    def refuse() -> None:
        raise InvalidConfigurationError("isolation", "none", f"the file of kernel type {name!r} is not imported here")

    async def in_loop(_: Any) -> None:
        refuse()

    def in_thread(_: Any) -> None:
        refuse()

    func: KernelFunction = in_loop if executor == "loop" else in_thread
    func.__doc__ = documentation
    return func
