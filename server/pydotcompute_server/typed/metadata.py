"""The header of a message, and what else is not in its body, as metadata of a call to a kernel's own service."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from pydotcompute.exceptions import InvalidConfigurationError
from pydotcompute.messages.header import MAX_PRIORITY
from pydotcompute.v1 import message_service_pb2 as pb
from pydotcompute_server.calls.answers import Metadata
from pydotcompute_server.limits import Limits

__all__ = ["PREFIX", "CallMetadata", "header_of", "kernel_id_in", "read_metadata"]

PREFIX = "pydotcompute-"
TAKEN = {
    "Ask": ("kernel-id", "priority", "message-id", "correlation-id"),
    "Send": ("kernel-id", "priority", "message-id", "correlation-id", "client-id"),
    "Receive": ("kernel-id", "client-id", "lease"),
    "Stream": ("kernel-id", "priority", "outputs"),
}
"""The keys that each method takes, without the prefix."""


@dataclass(slots=True)
class CallMetadata:
    """What a call says; each default is that of the request message of the same name."""

    kernel_id: str = ""
    """Empty: the kernel that is called as its type."""
    priority: int | None = None
    message_id: str = ""
    correlation_id: str = ""
    client_id: str = ""
    lease: float | None = None
    """Seconds."""
    outputs: bool = False


def read_metadata(method: str, metadata: Iterable[tuple[str, str | bytes]], limits: Limits) -> CallMetadata:
    """What a call of this method says.

    Raises:
        InvalidConfigurationError: a key of ours that the method does not take, or that is there twice, or a value that
            cannot be.
    """
    found: dict[str, str] = {}
    for key, value in metadata:
        if not key.startswith(PREFIX):
            continue
        name = key.removeprefix(PREFIX)
        if name not in TAKEN[method]:
            taken = ", ".join(f"{PREFIX}{each}" for each in TAKEN[method])
            raise InvalidConfigurationError(key, _text(value), f"{method} takes no such metadata; it takes {taken}")
        if name in found:
            raise InvalidConfigurationError(key, _text(value), "it is given twice")
        found[name] = _text(value)
    if found.get("kernel-id") == "":
        raise _refusal(
            "kernel-id", "", "a kernel has a name; without this key, the one that is called as the type is meant"
        )
    if not found:
        return CallMetadata()
    return CallMetadata(
        kernel_id=found.get("kernel-id", ""),
        priority=_priority(found.get("priority")),
        message_id=_uuid("message-id", found),
        correlation_id=_uuid("correlation-id", found),
        client_id=found.get("client-id", ""),
        lease=_lease(found.get("lease"), limits.longest_lease),
        outputs=_outputs(found.get("outputs")),
    )


def kernel_id_in(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    """The kernel that a call names, before all that it says is checked; empty if it names none."""
    return next((_text(value) for key, value in metadata if key == f"{PREFIX}kernel-id"), "")


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode(errors="replace")


def _refusal(name: str, value: str, problem: str) -> InvalidConfigurationError:
    return InvalidConfigurationError(PREFIX + name, value, problem)


def _priority(text: str | None) -> int | None:
    if text is None:
        return None
    if not re.fullmatch("[0-9]{1,3}", text) or int(text) > MAX_PRIORITY:
        raise _refusal("priority", text, f"a priority is a whole number from 0 to {MAX_PRIORITY}")
    return int(text)


def _uuid(name: str, found: dict[str, str]) -> str:
    text = found.get(name, "")
    if name in found:
        try:
            UUID(text)
        except ValueError:
            raise _refusal(name, text, "not a UUID") from None
    return text


def _lease(text: str | None, longest: float) -> float | None:
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?s?", text) or not 0 < float(text.rstrip("s")) <= longest:
        problem = f"a lease is more than 0 s and at most {longest:g} s, as in 30s"
        raise _refusal("lease", text, problem)
    return float(text.rstrip("s"))


def _outputs(text: str | None) -> bool:
    if text not in (None, "true", "false"):
        raise _refusal("outputs", text, "true or false")
    return text == "true"


def header_of(message: pb.Message) -> Metadata:
    """The header of a message that the daemon answers with."""
    header = [(f"{PREFIX}message-id", message.message_id), (f"{PREFIX}priority", str(message.priority))]
    if message.correlation_id:
        header.append((f"{PREFIX}correlation-id", message.correlation_id))
    return header
