"""The dead letters of a daemon, with their messages as the program's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from pydotcompute.exceptions import MessageError
from pydotcompute.ring_kernels.mail.dead_letters import DeadLetter
from pydotcompute.v1 import dead_letter_service_pb2 as pb
from pydotcompute.wire.dead_letters import dead_letter_from_proto
from pydotcompute.wire.messages import from_message
from pydotcompute_client.channels import Call, Question
from pydotcompute_client.types import RemoteTypes

__all__ = ["UnreadableMessage", "dead_letters"]

LARGEST_PAGE = 1_000
"""The number of dead letters that one call asks for."""


@dataclass(frozen=True)
class UnreadableMessage:
    """Stands for the message of a dead letter that cannot cross the wire, or that its class in this program refuses."""

    message_id: UUID
    priority: int
    correlation_id: UUID | None
    problem: str
    """The reason why the message itself is not here."""


def dead_letters(kernel_id: str, types: RemoteTypes) -> Question[list[DeadLetter]]:
    """What could a kernel not deliver? The answer has all pages, oldest dead letter first."""
    request = pb.ListDeadLettersRequest(kernel_id=kernel_id, page_size=LARGEST_PAGE)
    letters: list[DeadLetter] = []
    while True:
        page: pb.ListDeadLettersResponse = yield Call(lambda daemon: daemon.dead_letters.ListDeadLetters, request)
        letters += _read_page(page, types)
        if not page.next_page_token:
            return letters
        request.page_token = page.next_page_token


def _read_page(page: pb.ListDeadLettersResponse, types: RemoteTypes) -> list[DeadLetter]:
    """Return the dead letters of a page, and learn the types of their bodies."""
    unknown: dict[str, str] = {}
    for message_type in page.types:
        try:
            types.learn(message_type)
        except MessageError as error:  # An earlier daemon at this address had another type of this name.
            unknown[message_type.full_name] = str(error)
    return [dead_letter_from_proto(letter, _message(letter, types, unknown)) for letter in page.dead_letters]


def _message(letter: pb.DeadLetter, types: RemoteTypes, unknown: dict[str, str]) -> Any:
    sent = letter.message
    name = sent.body.TypeName()
    problem = letter.problem or unknown.get(name)
    if not problem:
        try:
            return from_message(sent, types.receiving_codec(name))
        except MessageError as error:
            problem = str(error)
    correlation_id = UUID(sent.correlation_id) if sent.correlation_id else None
    return UnreadableMessage(UUID(sent.message_id), sent.priority, correlation_id, problem)
