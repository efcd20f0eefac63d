"""The wire format of protocol buffers, as far as TensorFlow's index of a checkpoint uses it.

A message is fields, each a number, a type and a value; the schema is code elsewhere. See
https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_VARINT_SIZE = 10
MAX_FIELDS = 1 << 12
"""Of one message. Slices of a tensor are repeated, and axes of a shape; nobody has as many."""
MORE = 0x80
"""Bit of a byte that says the number goes on."""

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
FIXED_SIZES = {FIXED64: 8, FIXED32: 4}


class DamageError(ValueError):
    """Bytes are not what they must be. The message names the place; only the caller knows the file."""


class Message:
    """The fields of a message by number, repetitions merged as protobuf merges them.

    A field of another type than the one asked for reads as absent, as it does in protobuf.

    Args:
        data: All bytes of the message.

    Raises:
        DamageError: The bytes are no message, or one of too many fields.
    """

    __slots__ = ("_numbers", "_parts")

    def __init__(self, data: bytes) -> None:
        self._numbers: dict[int, int] = {}
        self._parts: dict[int, list[bytes]] = {}
        for count, (number, value) in enumerate(_fields(data), 1):
            if count > MAX_FIELDS:
                raise DamageError(f"a message of {len(data)} bytes has more than {MAX_FIELDS} fields")
            if isinstance(value, bytes):
                self._parts.setdefault(number, []).append(value)
            else:
                self._numbers[number] = value

    def number(self, field: int, *, default: int = 0) -> int:
        """Return a number, signed; of several the last."""
        value = self._numbers.get(field, default)
        return value - 2**64 if value >= 2**63 else value

    def parts(self, field: int) -> list[bytes]:
        """Return the bytes of each value of a repeated field."""
        return self._parts.get(field, [])

    def submessage(self, field: int) -> Message:
        """Return a message within this one, empty if absent; several are merged by joining their bytes."""
        return Message(b"".join(self.parts(field)))

    def submessages(self, field: int) -> list[Message]:
        """Return each message of a repeated field."""
        return [Message(part) for part in self.parts(field)]


def number_field(field: int, value: int) -> bytes:
    """Encode a number; zeros are left out, as protobuf does."""
    return varint(field << 3 | VARINT) + varint(value) if value else b""


def fixed32_field(field: int, value: int) -> bytes:
    """Encode a number in four bytes; zeros are left out, as protobuf does."""
    return varint(field << 3 | FIXED32) + value.to_bytes(4, "little") if value else b""


def bytes_field(field: int, content: bytes) -> bytes:
    """Encode a message within a message."""
    return varint(field << 3 | BYTES) + varint(len(content)) + content


def read_varint(data: bytes, position: int) -> tuple[int, int]:
    """Return the variable-length number at `position`, below 2**64, and the position after it."""
    if position < len(data) and data[position] < MORE:  # as most do
        return data[position], position + 1
    value = shift = 0
    for byte in data[position : position + MAX_VARINT_SIZE]:
        value |= (byte & ~MORE) << shift
        shift += 7
        if byte < MORE:
            return value & 0xFFFF_FFFF_FFFF_FFFF, position + shift // 7
    raise DamageError(f"the number at byte {position} does not end")


def varint(value: int) -> bytes:
    """Encode a number from 0 to 2**64 - 1 in as few bytes as it needs."""
    encoded = bytearray()
    while value >= MORE:
        encoded.append(value & 0xFF | MORE)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the number and value of each field."""
    position = 0
    while position < len(data):
        start = position
        tag, position = read_varint(data, position)
        field, wire_type = tag >> 3, tag & 7
        if wire_type == VARINT:
            value, position = read_varint(data, position)
            yield field, value
        elif wire_type == BYTES:
            size, position = read_varint(data, position)
            yield field, _take(data, position, size)
            position += size
        elif wire_type in FIXED_SIZES:
            size = FIXED_SIZES[wire_type]
            yield field, int.from_bytes(_take(data, position, size), "little")
            position += size
        else:
            raise DamageError(f"the field at byte {start} is of the unknown type {wire_type}")


def _take(data: bytes, position: int, size: int) -> bytes:
    if position + size > len(data):
        raise DamageError(f"the {size} bytes at byte {position} reach past the end, at {len(data)}")
    return data[position : position + size]
