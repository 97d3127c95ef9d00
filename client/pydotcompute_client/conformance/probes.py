"""Probes as bytes, with which the checks need no codec: any client can make them by hand."""

from __future__ import annotations

from pydotcompute.protobuf.varints import read_varint, varint

__all__ = ["TYPE", "number_in", "probe"]

TYPE = "conformance.v1.Probe"
"""The full name of the type, which `kernels.Probe` declares."""
_NUMBER, _NOTE, _OUTPUTS = 1 << 3, 2 << 3 | 2, 3 << 3
"""Tags: the number of each field, with the wire type of a varint (0) or of bytes with their length (2)."""


def probe(number: int = 0, note: str = "", outputs: int = 0) -> bytes:
    """Return the bytes of a probe. The arguments are the fields of `kernels.Probe`, none of them negative."""
    encoded = note.encode()
    return b"".join(
        (
            bytes([_NUMBER]) + varint(number) if number else b"",
            bytes([_NOTE]) + varint(len(encoded)) + encoded if note else b"",
            bytes([_OUTPUTS]) + varint(outputs) if outputs else b"",
        )
    )


def number_in(body: bytes) -> int:
    """Return the number in the bytes of a probe."""
    return read_varint(body, 1)[0] if body[:1] == bytes([_NUMBER]) else 0
