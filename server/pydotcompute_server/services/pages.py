"""Pages of a list."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from google.protobuf.message import Message

from pydotcompute.exceptions import MessageDeserializationError
from pydotcompute_server.limits import Limits

__all__ = ["number_in", "take_page"]

M = TypeVar("M", bound=Message)


def take_page(entries: Iterable[M], page_size: int, limits: Limits) -> tuple[list[M], bool]:
    """Return the first entries, as many as go on a page, and True if there are more.

    Args:
        page_size: how many the client asks for; 0 for as many as there can be.
    """
    most = min(page_size or limits.list_page, limits.list_page)
    page: list[M] = []
    size = 0
    for entry in entries:
        size += entry.ByteSize()
        if page and (len(page) == most or size > limits.list_page_bytes):
            return page, True
        page.append(entry)
    return page, False


def number_in(page_token: str, request: str) -> int:
    """Return the number in a token for a page, or 0 for the first page.

    Args:
        request: the name of the request message, for the error.

    Raises:
        MessageDeserializationError: the token is none that this service gives.
    """
    if not page_token:
        return 0
    if not (page_token.isascii() and page_token.isdecimal() and len(page_token) <= 20):
        raise MessageDeserializationError(request, "not a token of ours", "$.page_token")
    return int(page_token)
