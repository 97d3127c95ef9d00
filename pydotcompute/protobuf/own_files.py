"""The files of the daemon's own types and services, as reflection serves them and `proto export` writes them."""

from __future__ import annotations

from importlib import resources

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from pydotcompute import v1

__all__ = ["documented_files"]


def documented_files() -> dict[str, FileDescriptorProto]:
    """Returns the files of `proto/` with their comments, by name. Protobuf's generated code has no comments."""
    found: dict[str, FileDescriptorProto] = {}
    for path in resources.files(v1).iterdir():
        if path.name.endswith(".binpb"):
            found.update((file.name, file) for file in FileDescriptorSet.FromString(path.read_bytes()).file)
    return found
