"""The role that each method needs. The .proto files say it of the daemon's own methods."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from google.protobuf.descriptor import FileDescriptor, MethodDescriptor

from pydotcompute.access.roles import Role
from pydotcompute.v1 import access_pb2
from pydotcompute_server.calls.pipeline import UNKNOWN, Method
from pydotcompute_server.protos import SERVICES

__all__ = ["STANDARD", "needed_role", "roles_in"]

STANDARD = {
    "grpc.health.v1.Health": Role.VIEWER,
    "grpc.reflection.v1.ServerReflection": Role.VIEWER,
    "grpc.reflection.v1alpha.ServerReflection": Role.VIEWER,
}
"""The roles that the services need whose .proto files are not ours."""


def roles_in(file: FileDescriptor) -> dict[str, Role | None]:
    """Return the role that each method in a file needs, by its path. None if the file does not say it."""
    return {
        f"/{service.full_name}/{method.name}": _role(method)
        for service in file.services_by_name.values()
        for method in service.methods
    }


def _role(method: MethodDescriptor) -> Role | None:
    options: Any = method.GetOptions()
    number = options.Extensions[access_pb2.role]
    return Role(number) if number else None


_DECLARED = {path: role for module in SERVICES for path, role in roles_in(module.DESCRIPTOR).items()}


def needed_role(method: Method, typed: Collection[str]) -> Role | None:
    """Return the role that a caller of the method needs. None if it is not known: nobody may call the method then.

    Args:
        typed: the names of the services of kernel types, which exchange messages.
    """
    if method is UNKNOWN:
        return Role.VIEWER  # The answer lists services and methods.
    if method.service in typed:
        return Role.CALLER
    return _DECLARED.get(method.path) or STANDARD.get(method.service)
