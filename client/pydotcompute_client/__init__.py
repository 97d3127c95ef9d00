"""The client of a daemon: `async with connect("host:50051") as runtime:` gives the API of the in-process runtime."""

from pydotcompute_client.runtime import KernelDescription, RemoteKernel, RemoteRuntime, connect

__all__ = ["KernelDescription", "RemoteKernel", "RemoteRuntime", "connect"]
