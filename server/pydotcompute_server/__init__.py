"""The daemon: the ring-kernel runtime behind gRPC. Programs that embed the daemon import these names."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydotcompute_server.calls.errors import StatusError
    from pydotcompute_server.calls.pipeline import Call, Method, Proceed, Step
    from pydotcompute_server.daemon import Daemon, ListenError
    from pydotcompute_server.describing.process import describe_kernel_types
    from pydotcompute_server.limits import Limits
    from pydotcompute_server.loading import LoadError, load_kernel_types
    from pydotcompute_server.reloading import Reloaded
    from pydotcompute_server.settings import Settings

__all__ = [
    "Call",
    "Daemon",
    "Limits",
    "ListenError",
    "LoadError",
    "Method",
    "Proceed",
    "Reloaded",
    "Settings",
    "StatusError",
    "Step",
    "describe_kernel_types",
    "load_kernel_types",
]

_MODULES = {
    "StatusError": "calls.errors",
    **dict.fromkeys(("Call", "Method", "Proceed", "Step"), "calls.pipeline"),
    **dict.fromkeys(("Daemon", "ListenError"), "daemon"),
    **dict.fromkeys(("LoadError", "load_kernel_types"), "loading"),
    "Limits": "limits",
    "Reloaded": "reloading",
    "describe_kernel_types": "describing.process",
    "Settings": "settings",
}


def __getattr__(name: str) -> Any:
    # A name is imported when it is used, because the command needs few of these modules at its start.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
