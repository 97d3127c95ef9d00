"""Nothing is declared that nobody implements, and nothing implemented that nobody uses."""

import ast
import inspect
import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor import MethodDescriptor

import pydotcompute
import pydotcompute_client
from pydotcompute import RingKernelRuntime
from pydotcompute.exceptions import PyDotComputeError
from pydotcompute.ring_kernels.api import KernelHandle, KernelRuntime
from pydotcompute.ring_kernels.kernel import RingKernel
from pydotcompute.v1 import (
    client_service_pb2,
    dead_letter_service_pb2,
    kernel_service_pb2,
    message_service_pb2,
    server_service_pb2,
    telemetry_service_pb2,
)
from pydotcompute_client import RemoteKernel, RemoteRuntime
from pydotcompute_server.services.clients import ClientServicer
from pydotcompute_server.services.dead_letters import DeadLetterServicer
from pydotcompute_server.services.kernels import KernelServicer
from pydotcompute_server.services.messages import MessageServicer
from pydotcompute_server.services.server_info import ServerServicer
from pydotcompute_server.services.telemetry import TelemetryServicer

SERVICERS: dict[str, type] = {
    "KernelService": KernelServicer,
    "MessageService": MessageServicer,
    "TelemetryService": TelemetryServicer,
    "DeadLetterService": DeadLetterServicer,
    "ServerService": ServerServicer,
    "ClientService": ClientServicer,
}
MODULES = (
    kernel_service_pb2,
    message_service_pb2,
    telemetry_service_pb2,
    dead_letter_service_pb2,
    server_service_pb2,
    client_service_pb2,
)
METHODS = [
    method
    for module in MODULES
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]
FOREVER = ("Exchange", "WatchTelemetry")
"""The methods that stream, which only their clients end."""


# -- methods of the services -------------------------------------------------------------------------------------------


def test_every_service_of_the_protos_has_a_servicer() -> None:
    protos = {path.name for path in (Path(pydotcompute.__file__).parents[1] / "proto").rglob("*_service.proto")}
    assert protos == {method.containing_service.file.name.rpartition("/")[2] for method in METHODS}
    assert {method.containing_service.name for method in METHODS} == set(SERVICERS)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_every_method_is_implemented(method: MethodDescriptor) -> None:
    servicer = SERVICERS[method.containing_service.name]
    assert method.name in vars(servicer), "else the generated one answers UNIMPLEMENTED"
    implementation = vars(servicer)[method.name]
    if method.server_streaming and not method.client_streaming:
        assert inspect.isasyncgenfunction(implementation)
    else:
        hands_on = str(implementation.__annotations__["return"]).startswith("Awaitable[")
        assert hands_on or inspect.iscoroutinefunction(implementation)
    assert (method.name in FOREVER) == method.server_streaming


@pytest.mark.parametrize("servicer", SERVICERS.values(), ids=SERVICERS)
def test_a_servicer_has_no_method_that_the_protos_do_not_declare(servicer: type) -> None:
    declared = {method.name for method in METHODS if SERVICERS[method.containing_service.name] is servicer}
    assert {name for name in vars(servicer) if name[0].isupper()} == declared


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_every_method_is_used_by_the_client_or_the_command(method: MethodDescriptor) -> None:
    assert method.name in _attributes_that_the_client_uses()


def _attributes_that_the_client_uses() -> set[str]:
    used: set[str] = set()
    for path in Path(pydotcompute_client.__file__).parent.rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        used |= {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        texts = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
        used |= {text.rpartition("/")[2] for text in texts if text.startswith("/")}  # Without the generated stub.
    return used


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_every_reason_that_a_comment_names_is_an_error_of_ours(method: MethodDescriptor) -> None:
    proto = Path(pydotcompute.__file__).parents[1] / "proto" / method.containing_service.file.name
    comment = _comment_above(proto.read_text().splitlines(), f"  rpc {method.name}(")
    assert comment, "a method says what it guarantees"
    named = set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", comment))
    assert named <= {error.reason for error in _concrete_errors(PyDotComputeError)}


def _comment_above(lines: list[str], start: str) -> str:
    (at,) = [number for number, line in enumerate(lines) if line.startswith(start)]
    comment: list[str] = []
    while lines[at - 1].startswith("  //"):
        at -= 1
        comment.insert(0, lines[at].removeprefix("  //"))
    return " ".join(comment)


def _concrete_errors(base: type[PyDotComputeError]) -> list[type[PyDotComputeError]]:
    return [error for cls in base.__subclasses__() for error in [cls, *_concrete_errors(cls)] if error.reason]


# -- the two worlds ----------------------------------------------------------------------------------------------------


def _members(protocol: type) -> list[str]:
    return sorted(name for name in vars(protocol) if not name.startswith("_") or name in ("__aenter__", "__aexit__"))


SAME = [
    *[(KernelRuntime, name, cls) for name in _members(KernelRuntime) for cls in (RingKernelRuntime, RemoteRuntime)],
    *[(KernelHandle, name, cls) for name in _members(KernelHandle) for cls in (RingKernel, RemoteKernel)],
]


def test_the_protocols_are_what_the_suite_thinks_they_are() -> None:
    assert {"launch", "send", "receive", "kernel_scope", "get_telemetry", "kernel_ids"} <= set(_members(KernelRuntime))
    assert {"send", "receive", "state", "kernel_id"} <= set(_members(KernelHandle))


@pytest.mark.parametrize(("protocol", "name", "cls"), SAME, ids=[f"{cls.__name__}.{name}" for _, name, cls in SAME])
def test_a_member_of_a_protocol_has_the_same_signature_in_both_worlds(protocol: type, name: str, cls: type) -> None:
    wanted = inspect.getattr_static(protocol, name)
    if isinstance(wanted, property):
        found = inspect.getattr_static(cls, name, None)
        assert isinstance(found, property) or (found is None and name in _assigned(cls)), "read like an attribute"
        return
    implemented = getattr(cls, name)
    assert _parameters(implemented) == _parameters(wanted)
    assert inspect.getdoc(implemented) or name.startswith("__"), "what a user sees has a docstring"


def _parameters(function: Callable[..., Any]) -> list[tuple[str, Any, Any]]:
    parameters = inspect.signature(function).parameters.values()
    return [(parameter.name, parameter.kind, parameter.default) for parameter in parameters]


def _assigned(cls: type) -> set[str]:
    """The attributes that the constructors of a class and its bases assign."""
    constructors = [
        each.__dict__["__init__"] for each in cls.__mro__ if inspect.isfunction(each.__dict__.get("__init__"))
    ]
    nodes = [node for each in constructors for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(each))))]
    return {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}


@pytest.mark.parametrize("name", [name for name in _members(KernelRuntime) if name.startswith(("get_", "kernel_ids"))])
def test_every_call_that_blocks_has_a_twin_that_does_not(name: str) -> None:
    twin = getattr(RemoteRuntime, f"fetch_{name.removeprefix('get_')}")
    assert inspect.iscoroutinefunction(twin)
    original: Any = inspect.getattr_static(RemoteRuntime, name)
    original = original.fget if isinstance(original, property) else original
    assert _parameters(twin) == _parameters(original)


def test_both_runtimes_are_what_the_protocol_wants() -> None:
    assert isinstance(RingKernelRuntime(), KernelRuntime)
    for name in _members(KernelRuntime):
        assert hasattr(RemoteRuntime, name), name
