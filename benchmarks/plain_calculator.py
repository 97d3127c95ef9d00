"""The calculator without header fields, for actor libraries that match replies to calls themselves.

The fields and the arithmetic of calculator_kernel.py, which cannot be imported where only the peer is installed.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass
class Calculation:
    """What is asked of the calculator."""

    a: float = 0.0
    b: float = 0.0
    operation: Literal["add", "sub", "mul", "div"] = "add"


@dataclass
class Result:
    """What it answers."""

    result: float = 0.0
    success: bool = True
    error: str | None = None


def answer(asked: Calculation) -> Result:
    """The answer to one request."""
    try:
        if asked.operation == "add":
            return Result(asked.a + asked.b)
        if asked.operation == "sub":
            return Result(asked.a - asked.b)
        if asked.operation == "mul":
            return Result(asked.a * asked.b)
        if asked.operation == "div":
            return Result(asked.a / asked.b)
    except ZeroDivisionError:
        return Result(success=False, error="Division by zero")
    return Result(success=False, error=f"Unknown operation: {asked.operation}")
