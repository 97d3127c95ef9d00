"""A codec that leaves bodies as they are."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

from pydotcompute.messages.raw import Raw, opened, raw_class
from pydotcompute.protobuf.codec import Codec

__all__ = ["RawCodec"]

COPIED = 1 << 20
"""The most bytes of a body that is a view and is copied when it is encoded. It goes in a frame of `Exchange`."""


class RawCodec(Codec[Raw]):
    """Takes `Raw` messages for those of a message class. What it decodes and encodes is not looked at.

    `from_proto` makes messages of the class itself.

    Args:
        codec: the codec of the message class.
    """

    def __init__(self, codec: Codec[Any]) -> None:
        self.__dict__.update(codec.__dict__)
        self.__dict__.update(weigh=None, weigh_elements=None)
        self.real = codec
        """The codec of the message class."""
        raw = self.message_type = raw_class(codec.schema.cls, codec.decode_checked)
        take: Any = raw
        self.decode = self.decode_checked = take
        self.encode_aligned = _body_of if codec.gather is not None else attrgetter("body")
        self.gather = None if codec.gather is None else _pieces_of
        has_padding = codec.encode_aligned is not codec.encode
        self.encode = self._encode_without_padding if has_padding else self.encode_aligned

    def _encode_without_padding(self, message: Raw) -> bytes:
        """Return the body as people and other programs read it: decoded, and encoded again."""
        return self.real.encode(opened(message))


def _body_of(message: Raw) -> Any:
    """Return the body as bytes; a long one as it is, which may be a view."""
    body = message.body
    return body if len(body) > COPIED else bytes(body)


def _pieces_of(message: Raw) -> list[Any]:
    return [message.body]
