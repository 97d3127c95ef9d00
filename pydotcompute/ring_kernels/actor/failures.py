"""What is told about an actor that has failed."""

from __future__ import annotations

import traceback
from typing import Any

from pydotcompute.exceptions import KernelFailedError
from pydotcompute.ring_kernels.actor.runner import ActorError
from pydotcompute.ring_kernels.mail.mail import Mail

__all__ = ["count_failure", "failure_of", "forget_variables"]


def failure_of(kernel_id: str, error: BaseException) -> KernelFailedError:
    """Return the error for callers after this failure of an actor."""
    cause_type = error.cause_type if isinstance(error, ActorError) else type(error).__name__
    return KernelFailedError(kernel_id, cause_type, _text(error))


def count_failure(mail: Mail[Any, Any], error: BaseException) -> KernelFailedError:
    """Count this failure of the actor, and return the error for callers."""
    failure = failure_of(mail.kernel_id, error)
    mail.counters.error_count += 1
    mail.counters.last_error = f"{failure.cause_type}: {failure.cause_message}"
    return failure


def forget_variables(failure: BaseException | None) -> None:
    """Drop the actor's local variables, which its exception keeps alive, and so free its arrays on the device."""
    left = [failure]
    met: set[int] = set()
    while left:
        error = left.pop()
        if error is None or id(error) in met:
            continue
        met.add(id(error))
        traceback.clear_frames(error.__traceback__)
        left += [error.__cause__, error.__context__, *getattr(error, "exceptions", ())]


def _text(error: BaseException) -> str:
    """Return the text of an actor's exception, even if `str(error)` raises or is not valid Unicode."""
    try:
        text = str(error)
    except BaseException as broken:
        text = f"(its text cannot be made: {type(broken).__name__})"
    return text.encode("utf-8", "backslashreplace").decode()
