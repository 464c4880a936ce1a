"""Protocol Buffers' wire format, as far as it can be read without a schema.

https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

VARINT: Final = 0
I64: Final = 1
LEN: Final = 2
I32: Final = 5
_FIXED_BYTES: Final = {I64: 8, I32: 4}
_VARINT_BYTES: Final = 10


class Field(NamedTuple):
    """One field of a message."""

    number: int
    wire_type: int
    begin: int
    """Where its value begins in the data."""
    end: int
    """Where its value ends; behind the end of the data when that is cut off."""


def fields(data: bytes, begin: int = 0, end: int | None = None) -> Iterator[Field]:
    """The fields of the message at ``data[begin:end]``. ``end`` may lie behind the data: they end with what there is.

    Raises: ValueError where it is no message.
    """
    end = len(data) if end is None else end
    while begin < min(end, len(data)):
        tag, begin = varint(data, begin)
        length, wire_type = 0, tag & 7
        if wire_type == LEN:
            length, begin = varint(data, begin)
        elif wire_type == VARINT:
            length = varint(data, begin)[1] - begin
        elif wire_type in _FIXED_BYTES:
            length = _FIXED_BYTES[wire_type]
        else:
            raise ValueError("not protobuf: a wire type that does not exist")
        if begin > len(data):  # the tag or the length is cut off
            return
        if not tag >> 3 or begin + length > end:
            raise ValueError("not protobuf: a field that does not fit into its message")
        yield Field(tag >> 3, wire_type, begin, begin + length)
        begin += length


def varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at ``at``, and where it ends: behind the data when it is cut off.

    Raises: ValueError when it is longer than 64 bits.
    """
    value = 0
    for count in range(_VARINT_BYTES):
        if at + count >= len(data):
            return 0, len(data) + 1
        byte = data[at + count]
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            return value, at + count + 1
    raise ValueError("not protobuf: a number of more than 64 bits")
