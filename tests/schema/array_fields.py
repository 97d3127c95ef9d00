"""What the tests of arrays in messages share."""

from dataclasses import field, make_dataclass
from typing import Any

import pytest

from pydotcompute.exceptions import MessageTypeError
from pydotcompute.schema.check import door_check


def one(annotation: Any, **options: Any) -> type:
    """A class that has this annotation alone."""
    return make_dataclass("One", [("x", annotation, field(**options))])


def passed(annotation: Any, value: Any) -> Any:
    """What of `value` is in the message after the door."""
    made = one(annotation)(value)
    door_check(type(made))(made)
    return made.x


def refusal(made: Any) -> MessageTypeError:
    """The error of the door."""
    with pytest.raises(MessageTypeError) as caught:
        door_check(type(made))(made)
    return caught.value
