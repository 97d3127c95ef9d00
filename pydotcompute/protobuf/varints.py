"""Protobuf's integers of variable length, for code that writes and reads fields without protobuf."""

__all__ = ["read_varint", "varint"]


def varint(number: int) -> bytes:
    """Returns the bytes of a number, which must not be negative."""
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def read_varint(data: bytes | memoryview, at: int) -> tuple[int, int]:
    """Returns the number that begins at position `at`, and the position after it.

    Raises:
        ValueError: the varint is longer than 10 bytes.
        IndexError: the varint is cut off.
    """
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
        shift += 7
        if shift > 63:
            raise ValueError("a varint is too long")
