"""The client of a daemon: `async with connect("host:50051") as runtime:` gives the API of the in-process runtime."""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydotcompute_client.clients import ConnectedClient, Kicked
    from pydotcompute_client.connecting import connect
    from pydotcompute_client.credentials import TLS
    from pydotcompute_client.dead_letters import UnreadableMessage
    from pydotcompute_client.description import DaemonMemory, KernelDescription, Reloaded
    from pydotcompute_client.kernel import RemoteKernel
    from pydotcompute_client.runtime import RemoteRuntime
    from pydotcompute_client.server_info import ServerInfo

__all__ = [
    "TLS",
    "ConnectedClient",
    "DaemonMemory",
    "KernelDescription",
    "Kicked",
    "Reloaded",
    "RemoteKernel",
    "RemoteRuntime",
    "ServerInfo",
    "UnreadableMessage",
    "connect",
]

# With gRPC's own support for forks, even a child that never uses gRPC may crash; see `forks`. This must be set before
# gRPC is imported.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

# No module here has the name of a function: once imported, the module would stand in the function's place.
_MODULES = {
    "ConnectedClient": "clients",
    "DaemonMemory": "description",
    "KernelDescription": "description",
    "Kicked": "clients",
    "Reloaded": "description",
    "RemoteKernel": "kernel",
    "RemoteRuntime": "runtime",
    "ServerInfo": "server_info",
    "TLS": "credentials",
    "UnreadableMessage": "dead_letters",
    "connect": "connecting",
}


def __getattr__(name: str) -> Any:
    # A name is imported when it is used. The command uses none of them: it must set gRPC's log level before gRPC is
    # imported.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
