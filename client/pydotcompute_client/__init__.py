"""The client of a daemon: `async with connect("host:50051") as runtime:` gives the API of the in-process runtime."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydotcompute_client.dead_letters import UnreadableMessage
    from pydotcompute_client.runtime import KernelDescription, RemoteKernel, RemoteRuntime, connect

__all__ = ["KernelDescription", "RemoteKernel", "RemoteRuntime", "UnreadableMessage", "connect"]


def __getattr__(name: str) -> Any:
    # Imported when it is used: the command does without it, and has to come before gRPC, to silence it.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pydotcompute_client import dead_letters, runtime

    return getattr(dead_letters if name == "UnreadableMessage" else runtime, name)
