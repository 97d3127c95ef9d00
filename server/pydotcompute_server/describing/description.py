"""What a process tells of the kernel types that it has imported, and the kernel types that are made of that."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorSet

from pydotcompute.exceptions import InvalidConfigurationError
from pydotcompute.protobuf.described import class_of
from pydotcompute.protobuf.json.sample import sample_json
from pydotcompute.protobuf.pool import TypePool
from pydotcompute.ring_kernels.config import RingKernelConfig
from pydotcompute.ring_kernels.declaration import Executor, KernelFunction, KernelType
from pydotcompute.ring_kernels.supervision import Supervision
from pydotcompute.ring_kernels.worker_limits import WorkerLimits
from pydotcompute.schema.introspect import introspect
from pydotcompute.wire.worker.start import Elsewhere, Place, place_of

__all__ = ["describe", "kernel_types_of"]

OF_THEIR_OWN = ("name", "func", "config", "input_type", "output_type", "supervision", "worker_limits")
"""The fields of a kernel type that are described in a way of their own. All others are values of JSON."""


def describe(kernel_types: Iterable[KernelType]) -> tuple[dict[str, Any], bytes]:
    """Return the description of kernel types: values of JSON, and a serialized FileDescriptorSet of their messages.

    Raises:
        MessageTypeError: two message classes of one full name have different fields.
    """
    pool = TypePool()
    indexes: dict[type, int] = {}
    names = [field.name for field in fields(KernelType) if field.name not in OF_THEIR_OWN]
    described = []
    for each in kernel_types:
        types = {"input_type": each.input_type, "output_type": each.output_type}
        described.append({
            "name": each.name,
            "place": _place(each.func),
            "documentation": each.documentation,
            "executor": each.executor,
            "config": asdict(each.config),
            "supervision": asdict(each.supervision),
            "worker_limits": asdict(each.worker_limits),
            "settings": {name: getattr(each, name) for name in names},
            **{role: cls and indexes.setdefault(cls, len(indexes)) for role, cls in types.items()},
        })  # fmt: skip
    messages = [
        {"full_name": pool.add(cls).full_name, "sample": sample_json(introspect(cls)), "place": _place(cls)}
        for cls in indexes
    ]
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
    classes = [_message_class(pool, each, path) for each in values["messages"]]
    made = {}
    for each in values["kernel_types"]:
        indexes = each["input_type"], each["output_type"]
        input_type, output_type = (None if index is None else classes[index] for index in indexes)
        settings: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in each["settings"].items()
        }
        func = _stand_in(each["name"], each["executor"], each["documentation"])
        func.__dict__["__elsewhere__"] = _elsewhere(each["place"], path)
        settings["supervision"] = Supervision(**each["supervision"])
        settings["worker_limits"] = WorkerLimits(**each["worker_limits"])
        config = RingKernelConfig(**each["config"])
        made[each["name"]] = KernelType(each["name"], func, config, input_type, output_type, **settings)
    return made


def _message_class(pool: TypePool, described: Mapping[str, Any], path: tuple[str, ...]) -> type:
    cls = class_of(pool, described["full_name"])
    made: Any = cls
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
