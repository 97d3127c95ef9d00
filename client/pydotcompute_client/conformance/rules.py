"""The rules that a client of Exchange has to keep, and which of them it has. docs/conformance.md has the same table."""

from __future__ import annotations

from pydotcompute_client.conformance.results import BrokenError, Result

__all__ = ["RULES", "Record"]

RULES = {
    "first-frame": "The first frame of a stream is `open`, and no later one is.",
    "returns": "After a stream without `bye` the client opens another, with the token of its session.",
    "received-through": "`open.received_through` is from what was acknowledged to what was sent.",
    "sequences": "Sequences are consecutive from 1, and go on after `opened.received_through`.",
    "again": "What comes again is the same as before.",
    "credit": "Messages are within the daemon's credit, in number and in bytes.",
    "columns": "A batch has a message, and its columns fit together.",
    "parts": "The parts of a body follow each other, and a batch with `body_in_parts` follows them.",
    "ack-numbers": "Acks have numbers from 1, which rise.",
    "ack-through": "`ack.through` never falls, and is no more than what was sent.",
    "acknowledges": "By its `bye` the client has acknowledged everything, refusals too.",
    "last-frame": "`bye` is the last frame of the client.",
    "answers-bye": "The client answers the daemon's `bye` with its own.",
    "lost": "A token that is SESSION_LOST is not used again.",
    "taken-over": "A session that another stream has taken over is taken back once at most.",
}
"""The rules, by their names."""


class Record:
    """Which rules were tried, and which were broken."""

    def __init__(self) -> None:
        self._tried: set[str] = set()
        self._problems: dict[str, str] = {}

    def require(self, rule: str, holds: object, problem: str) -> None:
        """Note that a rule was tried. Note its first problem, and raise BrokenError, unless `holds` is true."""
        self._tried.add(rule)
        if not holds:
            self._problems.setdefault(rule, problem)
            raise BrokenError(f"{RULES[rule]} But: {problem}")

    def note(self, rule: str, holds: object, problem: str) -> None:
        """Do what `require` does, and raise nothing."""
        self._tried.add(rule)
        if not holds:
            self._problems.setdefault(rule, problem)

    def results(self) -> list[Result]:
        """Return the result of each rule."""
        return [Result(name, rule, self._problems.get(name), tried=name in self._tried) for name, rule in RULES.items()]
