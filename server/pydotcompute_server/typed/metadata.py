"""The metadata of a call to a kernel's own service: the message's header, and the call's options."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from pydotcompute.exceptions import InvalidConfigurationError
from pydotcompute.messages.header import MAX_PRIORITY
from pydotcompute.messages.ids import uuid_from_text
from pydotcompute.v1 import message_service_pb2 as pb
from pydotcompute_server.calls.answers import Metadata
from pydotcompute_server.limits import Limits

__all__ = ["PREFIX", "CallMetadata", "header_of", "kernel_id_in", "read_metadata"]

PREFIX = "pydotcompute-"
TAKEN = {
    "Ask": ("kernel-id", "priority", "message-id", "correlation-id"),
    "Send": ("kernel-id", "priority", "message-id", "correlation-id", "client-id", "daemon-epoch"),
    "Receive": ("kernel-id", "client-id", "lease", "daemon-epoch"),
    "Stream": ("kernel-id", "priority", "outputs"),
}
"""The metadata keys that each method takes, without the prefix."""


@dataclass(slots=True)
class CallMetadata:
    """The metadata of one call. Each default is that of the field of the same name in `MessageService`'s requests."""

    kernel_id: str = ""
    """The id of the kernel. Empty for the kernel whose id is the name of its type."""
    priority: int | None = None
    """The priority of the message, or of each message of a stream. None for the default priority."""
    message_id: str = ""
    """The id of the message, as the text of a UUID. Empty if the daemon is to choose one."""
    correlation_id: str = ""
    """The `message_id` of the message that this one answers. Empty if it answers none."""
    client_id: str = ""
    """The client whose replies are sent for or received."""
    daemon_epoch: str = ""
    """The run of the daemon that the call counts on. Empty for any."""
    lease: float | None = None
    """The lease of a received message, in seconds. None for no lease."""
    outputs: bool = False
    """True if a stream also receives the kernel's outputs."""


def read_metadata(method: str, metadata: Iterable[tuple[str, str | bytes]], limits: Limits) -> CallMetadata:
    """Return the metadata of a call of this method.

    Raises:
        InvalidConfigurationError: the method does not take a key that begins with `PREFIX`, a key is given twice, or a
            value is not valid.
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
            "kernel-id", "", "a kernel has a name; without this key, the call is for the kernel named as its type"
        )
    if not found:
        return CallMetadata()
    return CallMetadata(
        kernel_id=found.get("kernel-id", ""),
        priority=_priority(found.get("priority")),
        message_id=_uuid("message-id", found),
        correlation_id=_uuid("correlation-id", found),
        client_id=found.get("client-id", ""),
        daemon_epoch=found.get("daemon-epoch", ""),
        lease=_lease(found.get("lease"), limits.longest_lease),
        outputs=_outputs(found.get("outputs")),
    )


def kernel_id_in(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    """Return the kernel id in a call's metadata, without checking the metadata. Empty if there is none."""
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
            uuid_from_text(text)
        except ValueError:
            raise _refusal(name, text, "not a UUID in its form of 36 characters") from None
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
    """Return the header of a message, as metadata of the daemon's answer."""
    header = [(f"{PREFIX}message-id", message.message_id), (f"{PREFIX}priority", str(message.priority))]
    if message.correlation_id:
        header.append((f"{PREFIX}correlation-id", message.correlation_id))
    return header
