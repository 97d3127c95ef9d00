"""The error tree.

Every concrete class has a `reason` and `fields`. The `reason` is the `google.rpc.ErrorInfo.reason` that names the error
on the wire. The `fields` are the attributes that say what happened. The text of an error is derived from its fields;
nothing ever parses the text. An error that crosses the wire is rebuilt as the same class with the same fields. The
fields are as they are; in the text, control characters are escaped, so that it is safe to print.
"""

from __future__ import annotations

import copy
import enum
from collections.abc import Sequence
from typing import ClassVar, NamedTuple, Self
from uuid import UUID

from pydotcompute.printable import escaped_lines

__all__ = [
    "AccessError",
    "BackendUnavailableError",
    "CircularAskError",
    "ConnectionLostError",
    "InvalidConfigurationError",
    "KernelAlreadyExistsError",
    "KernelError",
    "KernelFailedError",
    "KernelNotFoundError",
    "KernelStateError",
    "LimitExceededError",
    "MemoryExhaustedError",
    "MessageDeserializationError",
    "MessageError",
    "MessageSerializationError",
    "MessageTooLargeError",
    "MessageTypeError",
    "MisuseError",
    "NotAuthenticatedError",
    "NotPermittedError",
    "PyDotComputeError",
    "QueueError",
    "QueueFullError",
    "QueueTimeoutError",
    "RequestWithdrawnError",
    "SessionLostError",
    "TimeoutCause",
    "Violation",
]


class PyDotComputeError(Exception):
    """The base class of every error that this package raises on purpose."""

    reason: ClassVar[str] = ""
    """The name of this error on the wire. Empty for a class that is only a base."""

    fields: ClassVar[tuple[str, ...]] = ()
    """The attributes that describe the error, in the order of the constructor's parameters."""

    def __init__(self, text: str) -> None:
        super().__init__(escaped_lines(text))

    def again(self) -> Self:
        """Returns a copy of this error, to raise in place of it.

        An error object that is raised again and again keeps the traceback of every raise. So an error that many callers
        may meet is copied for each of them.
        """
        fresh = copy.copy(self)
        fresh.__cause__ = self.__cause__
        return fresh

    def __reduce__(self) -> tuple[object, ...]:
        if not self.fields:
            return super().__reduce__()  # type: ignore[return-value]
        return type(self), tuple(getattr(self, name) for name in self.fields)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self) or not self.fields:
            return self is other
        return all(getattr(self, name) == getattr(other, name) for name in self.fields)

    __hash__ = Exception.__hash__


class MisuseError(PyDotComputeError, RuntimeError):
    """The program breaks a rule for the use of a runtime: which one, and what to do instead, is in the text.

    A runtime may be used in one event loop only, and a connected one not in a process that is forked later.
    """


class KernelError(PyDotComputeError):
    """The base class of errors about one kernel."""


class KernelNotFoundError(KernelError):
    """There is no kernel, or no kernel type, with this id."""

    reason = "KERNEL_NOT_FOUND"
    fields = ("kernel_id", "available", "is_type")

    def __init__(self, kernel_id: str, available: Sequence[str] = (), is_type: bool = False) -> None:
        self.kernel_id = kernel_id
        self.available = tuple(available)
        self.is_type = is_type
        known = ", ".join(self.available) or "none"
        hint = (
            f"; there is a kernel type of this name, of which a kernel must be launched first, as by "
            f"KernelService.Launch or `pydotcompute launch {kernel_id} --activate`"
        )
        super().__init__(f"kernel {kernel_id!r} not found; known here: {known}{hint if is_type else ''}")


class KernelAlreadyExistsError(KernelError):
    """A kernel with this id exists already, or a kernel type with this id is declared twice."""

    reason = "KERNEL_ALREADY_EXISTS"
    fields = ("kernel_id",)

    def __init__(self, kernel_id: str) -> None:
        self.kernel_id = kernel_id
        super().__init__(f"kernel {kernel_id!r} already exists; terminate it first or choose another id")


class KernelStateError(KernelError):
    """The kernel's state does not allow the operation.

    `returned_after` is the number of messages that the actor had handled when it returned by itself, which has ended
    the kernel. It is None if the actor has not returned by itself.
    """

    reason = "KERNEL_STATE_INVALID"
    fields = ("kernel_id", "state", "operation", "allowed_states", "returned_after")

    def __init__(
        self,
        kernel_id: str,
        state: str,
        operation: str,
        allowed_states: Sequence[str] = (),
        returned_after: int | None = None,
    ) -> None:
        self.kernel_id = kernel_id
        self.state = state
        self.operation = operation
        self.allowed_states = tuple(allowed_states)
        self.returned_after = returned_after
        allowed = f"; it needs {' or '.join(self.allowed_states)}" if self.allowed_states else ""
        returned = (
            f", because its actor returned after {_count(returned_after, 'message')}"
            if returned_after is not None
            else ""
        )
        super().__init__(f"kernel {kernel_id!r} is {state}{returned}: cannot {operation}{allowed}")


class KernelFailedError(KernelError):
    """The actor of a kernel ended with an exception.

    In-process, `__cause__` is that exception. Over the wire, only its type and its text remain.
    """

    reason = "KERNEL_FAILED"
    fields = ("kernel_id", "cause_type", "cause_message")

    def __init__(self, kernel_id: str, cause_type: str, cause_message: str) -> None:
        self.kernel_id = kernel_id
        self.cause_type = cause_type
        self.cause_message = cause_message
        super().__init__(f"kernel {kernel_id!r} failed: {cause_type}: {cause_message}")


class CircularAskError(KernelError):
    """An actor has asked, or forwarded to, a kernel whose reply would wait for that very actor.

    `kernel_ids` are the kernels of the circle: each waits for the next, and the first is the last too.
    """

    reason = "CIRCULAR_ASK"
    fields = ("kernel_ids",)

    def __init__(self, kernel_ids: Sequence[str]) -> None:
        self.kernel_ids = tuple(kernel_ids)
        way = " -> ".join(self.kernel_ids)
        super().__init__(
            f"there would be no reply, because kernels would wait for each other in a circle: {way}. Let one of them "
            f"ask in a task of its own (asyncio.create_task), so that it takes messages meanwhile, or have it forward"
        )


class RequestWithdrawnError(KernelError):
    """An actor has asked another kernel for a request of its own, and whoever had sent that request wants no reply."""

    reason = "REQUEST_WITHDRAWN"
    fields = ("kernel_id",)

    def __init__(self, kernel_id: str) -> None:
        self.kernel_id = kernel_id
        super().__init__(
            f"the request to kernel {kernel_id!r} was withdrawn: the caller on whose behalf it was sent waits no more"
        )


class QueueError(PyDotComputeError):
    """The base class of errors about a mailbox."""


class QueueFullError(QueueError):
    """The mailbox has no room for the message.

    Under the policy `reject` this error is raised at once, and under `block` after the time-out. Under `drop_oldest` it
    says that this message was the one that was dropped to make room.
    """

    reason = "QUEUE_FULL"
    fields = ("kernel_id", "queue_size")

    def __init__(self, kernel_id: str, queue_size: int) -> None:
        self.kernel_id = kernel_id
        self.queue_size = queue_size
        super().__init__(f"the mailbox of kernel {kernel_id!r} is full ({queue_size} messages)")


class TimeoutCause(enum.StrEnum):
    """Why nothing arrived in time."""

    UNKNOWN = ""
    """Not known."""
    PAUSED = "PAUSED"
    """The kernel is paused, and the request waits in its mailbox."""
    QUEUED = "QUEUED"
    """The request waits in the mailbox, or for room in it."""
    IN_HAND = "IN_HAND"
    """The actor has taken the request, and has not answered it yet."""
    NO_REPLY = "NO_REPLY"
    """The actor has gone on without a reply to the request."""
    RESTARTING = "RESTARTING"
    """The actor has failed and is started again, and the request waits in the mailbox."""
    STUCK_IN_SEND = "STUCK_IN_SEND"
    """The actor waits in `ctx.send`, because the output mailbox is full and nobody receives."""
    ASKING = "ASKING"
    """The actor waits in `ctx.ask` for the reply of another kernel."""
    IDLE = "IDLE"
    """The actor waits for a message. Only for a `receive`."""
    SILENT = "SILENT"
    """There is a connection to the daemon, but the daemon did not say in time why."""
    DISCONNECTED = "DISCONNECTED"
    """There is no connection to the daemon."""


class QueueTimeoutError(QueueError, TimeoutError):
    """Nothing arrived within `timeout` seconds. A message that arrives later waits for the next `receive`.

    `cause` says why, as the value of a `TimeoutCause`. `before` is the number of messages that the actor gets before
    the request, or for a `receive` the number of messages that wait in the mailbox. `seconds` is how long the actor has
    had in hand what it works on, at most; or how long it has waited in `ctx.send` or `ctx.ask`; or how long there has
    been no connection. It is 0 if that is not known, or if the actor has nothing in hand. `asking` is the id of the
    kernel whose reply the actor waits for in `ctx.ask`; empty if it does not.
    """

    reason = "QUEUE_TIMEOUT"
    fields = ("kernel_id", "timeout", "operation", "cause", "before", "seconds", "asking")

    def __init__(
        self,
        kernel_id: str,
        timeout: float,
        operation: str,
        cause: str = TimeoutCause.UNKNOWN,
        before: int = 0,
        seconds: float = 0.0,
        asking: str = "",
    ) -> None:
        # This constructor is cheap on purpose: an idle actor with `receive(timeout=0.1)` makes ten errors a second.
        self.kernel_id = kernel_id
        self.timeout = timeout
        self.operation = operation
        self.cause = cause
        self.before = before
        self.seconds = seconds
        self.asking = asking

    def __str__(self) -> str:
        why = self._why()
        text = f"kernel {self.kernel_id!r}: {self.operation} timed out after {self.timeout:g} s"
        return f"{text}: {why}" if why else text

    def _why(self) -> str:
        for_long = f" for {self.seconds:.3g} s" if self.seconds else ""
        of_receive = self.operation == "receive"
        count, one = _count(self.before, "message"), "s" if self.before == 1 else ""
        ahead = f"{count} wait{one} in its mailbox" if of_receive else f"{count} come{one} before this one"
        match self.cause:
            case TimeoutCause.PAUSED:
                return f"the kernel is paused; {ahead}"
            case TimeoutCause.RESTARTING:
                return f"the actor has failed and is started again; {ahead}"
            case TimeoutCause.QUEUED:
                working = f"; the actor has had what it works on in hand{for_long}" if for_long else ""
                return f"{ahead}{working}"
            case TimeoutCause.IN_HAND:
                return f"the actor has had {'a message' if of_receive else 'this one'} in hand{for_long}"
            case TimeoutCause.NO_REPLY:
                what = "what this caller has sent" if of_receive else "it"
                return f"the actor has gone on without a reply to {what}; a reply has correlation_id=request.message_id"
            case TimeoutCause.STUCK_IN_SEND:
                behind = f"; {ahead}" if self.before else ""
                return f"the actor has waited in ctx.send{for_long}, because nobody receives its outputs{behind}"
            case TimeoutCause.ASKING:
                behind = f"; {ahead}" if self.before else ""
                return f"the actor has waited for the reply of kernel {self.asking!r}{for_long}{behind}"
            case TimeoutCause.IDLE:
                return "the kernel has sent nothing, and waits for a message"
            case TimeoutCause.SILENT:
                return "the daemon is connected, but did not say in time why"
            case TimeoutCause.DISCONNECTED:
                return f"there has been no connection to the daemon{for_long}"
            case _:
                return ""


class Violation(NamedTuple):
    """One mistake in a message."""

    path: str
    """The place of the mistake, such as `$.items[3].weight`. `$` is the message itself."""
    problem: str
    """The mistake in words: what was expected, and what was there."""


class MessageError(PyDotComputeError):
    """The base class of errors about one message."""

    path: str
    """The place of the wrong value, such as `$.items[3].weight`. `$` is the message itself."""
    violations: tuple[Violation, ...]
    """All mistakes that are known. The first one is at `path`."""

    def moved(self, old: str, new: str) -> Self:
        """Returns the same error with other paths: `new` replaces `old` at the beginning of every path.

        With `$.message.body` as `old` and `$` as `new`, an error about a request becomes one about the body in it.
        """

        def place(path: str) -> str:
            return new + path[len(old) :] if path == old or path.startswith((f"{old}.", f"{old}[")) else path

        values = {name: getattr(self, name) for name in self.fields}
        if "path" in values:
            values["path"] = place(self.path)
        if "violations" in values:
            values["violations"] = [Violation(place(path), problem) for path, problem in self.violations]
        return type(self)(*values.values())


class MessageTypeError(MessageError):
    """A value or a whole message is of the wrong type, or an annotation cannot be expressed on the wire.

    If a class does not fit the type of the other side, `actual` may be empty, and `expected` says in a sentence which
    of the two lacks what.
    """

    reason = "MESSAGE_INVALID"
    fields = ("expected", "actual", "path")

    def __init__(self, expected: str, actual: str, path: str = "$") -> None:
        self.expected = expected
        self.actual = actual
        self.path = path
        problem = f"expected {expected}, got {actual}" if actual else expected
        self.violations = (Violation(path, problem),)
        super().__init__(f"{path}: {problem}")


class MessageSerializationError(MessageError):
    """The message is of the right type, but cannot be sent.

    For example, a number is out of range, a text is not valid Unicode, or the message is too long.
    """

    reason = "MESSAGE_INVALID"
    fields = ("message_type", "problem", "path")

    def __init__(self, message_type: str, problem: str, path: str = "$") -> None:
        self.message_type = message_type
        self.problem = problem
        self.path = path
        self.violations = (Violation(path, problem),)
        super().__init__(f"cannot serialize {message_type}: {path}: {problem}")


class MessageTooLargeError(MessageSerializationError):
    """The message is longer than the other side accepts. `size` and `limit` are in bytes."""

    reason = "MESSAGE_INVALID"
    fields = ("message_type", "size", "limit")

    def __init__(self, message_type: str, size: int, limit: int) -> None:
        super().__init__(message_type, f"{size} bytes, the limit is {limit}")
        self.size = size
        self.limit = limit


class MessageDeserializationError(MessageError):
    """The bytes, or the JSON, are not a valid message of this type.

    `problem` and `path` are those of the first violation. If no `violations` are given, `problem` at `path` is the only
    one.
    """

    reason = "MESSAGE_INVALID"
    fields = ("message_type", "problem", "path", "violations")

    def __init__(
        self, message_type: str, problem: str, path: str = "$", violations: Sequence[tuple[str, str]] = ()
    ) -> None:
        self.message_type = message_type
        self.problem = problem
        self.path = path
        self.violations = tuple(Violation(*each) for each in violations) or (Violation(path, problem),)
        told = "; ".join(f"{violation.path}: {violation.problem}" for violation in self.violations)
        super().__init__(f"cannot deserialize {message_type}: {told}")


class BackendUnavailableError(PyDotComputeError):
    """A GPU, a library or something else that a kernel needs is missing."""

    reason = "BACKEND_UNAVAILABLE"
    fields = ("backend", "problem")

    def __init__(self, backend: str, problem: str) -> None:
        self.backend = backend
        self.problem = problem
        super().__init__(f"backend {backend!r} is unavailable: {problem}")


class InvalidConfigurationError(PyDotComputeError, ValueError):
    """A setting has an invalid value."""

    reason = "CONFIGURATION_INVALID"
    fields: ClassVar[tuple[str, ...]] = ("parameter", "value", "problem")

    def __init__(self, parameter: str, value: object, problem: str) -> None:
        self.parameter = parameter
        self.value = str(value)
        self.problem = problem
        super().__init__(f"{parameter}={value}: {problem}")


class LimitExceededError(PyDotComputeError):
    """There are already as many of something as a limit allows, or the request asks for more than that.

    `name` is the name of the setting, `limit` its value, and `asked` what there would have been. `retry_after` is the
    number of seconds after which it makes sense to try again; None if the same request is refused at any time.
    """

    reason = "LIMIT_EXCEEDED"
    fields = ("name", "limit", "asked", "retry_after")

    def __init__(self, name: str, limit: int, asked: int, retry_after: float | None = None) -> None:
        self.name = name
        self.limit = limit
        self.asked = asked
        self.retry_after = retry_after
        again = "" if retry_after is None else f", or try again in {retry_after:.3g} s"
        super().__init__(f"{name} is {limit}, and this would make {asked}; use fewer{again}, or raise the limit")


class MemoryExhaustedError(PyDotComputeError):
    """The daemon keeps so many bytes of messages that it takes no more of them now.

    `budget` is the most bytes that it keeps, `used` those that it keeps, and `asked` those of this request.
    """

    reason = "MEMORY_EXHAUSTED"
    fields = ("budget", "used", "asked")

    def __init__(self, budget: int, used: int, asked: int) -> None:
        self.budget = budget
        self.used = used
        self.asked = asked
        super().__init__(
            f"the messages that wait take {used} of {budget} bytes, so there is no room for {asked} more now; "
            f"receive what waits, or raise memory_bytes"
        )


class AccessError(PyDotComputeError, PermissionError):
    """The base class of errors about who may do what."""


class NotAuthenticatedError(AccessError):
    """The call does not say who it is from, or the daemon does not believe it.

    `role` is the role that the call needs. It is empty if what the call says of itself is wrong.
    """

    reason = "NOT_AUTHENTICATED"
    fields = ("problem", "role")

    def __init__(self, problem: str, role: str = "") -> None:
        self.problem = problem
        self.role = role
        super().__init__(problem)


class NotPermittedError(AccessError):
    """The one who calls does not have the role that the call needs.

    `method` is the method as `Service/Method`, and `role` the role that it needs. `kernel_id` is the kernel for which
    it is needed. It is empty if `principal` has the role for no kernel. Whether there is such a kernel is not said.
    """

    reason = "NOT_PERMITTED"
    fields = ("principal", "method", "role", "kernel_id")

    def __init__(self, principal: str, method: str, role: str, kernel_id: str = "") -> None:
        self.principal = principal
        self.method = method
        self.role = role
        self.kernel_id = kernel_id
        where = f" for kernel {kernel_id!r}" if kernel_id else ""
        super().__init__(f"{principal!r} may not call {method}: it needs the role {role}{where}")


class ConnectionLostError(PyDotComputeError, ConnectionError):
    """The daemon cannot be reached, or the connection to it broke."""

    reason = "CONNECTION_LOST"
    fields: ClassVar[tuple[str, ...]] = ("target", "problem")

    def __init__(self, target: str, problem: str) -> None:
        self.target = target
        self.problem = problem
        super().__init__(f"cannot reach the daemon at {target}: {problem}" if target else problem)


class SessionLostError(ConnectionLostError):
    """A session with a kernel cannot go on: the daemon has restarted, or a message or the client did not get through.

    The kernel may or may not have handled the requests in `message_ids`, and may still handle them. The requests in
    `unsent_ids` certainly did not reach the kernel, so they can be sent again.
    """

    reason = "SESSION_LOST"
    fields = ("target", "problem", "kernel_id", "message_ids", "unsent_ids")

    def __init__(
        self,
        target: str,
        problem: str,
        kernel_id: str = "",
        message_ids: Sequence[UUID | str] = (),
        unsent_ids: Sequence[UUID | str] = (),
    ) -> None:
        super().__init__(target, problem)
        self.kernel_id = kernel_id
        self.message_ids = tuple(UUID(str(each)) for each in message_ids)
        self.unsent_ids = tuple(UUID(str(each)) for each in unsent_ids)

    def __str__(self) -> str:
        at = f" at {self.target}" if self.target else ""
        text = f"the conversation with kernel {self.kernel_id!r}{at} is lost: {self.problem}"
        if not (self.message_ids or self.unsent_ids):
            return text
        return f"{text}; {len(self.message_ids)} requests are of unknown fate, {len(self.unsent_ids)} were not sent"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
