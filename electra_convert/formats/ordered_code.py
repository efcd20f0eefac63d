"""Encodings whose bytes sort as the values do, of which TensorFlow makes the keys of slices.

They are those of `tensorflow/core/lib/strings/ordered_code.cc`. There is no decoder: keys are generated and
looked up.
"""

from __future__ import annotations

STRING_END = b"\0\1"
ESCAPED = {0: b"\0\xff", 0xFF: b"\xff\0"}
ROOM = 7
"""Bits that each byte of an encoded integer leaves for its value and sign."""


def ordered_string(value: bytes) -> bytes:
    """Encode a string: 0 and 255 escaped, the end marked (`WriteString`)."""
    return b"".join(ESCAPED.get(byte, bytes([byte])) for byte in value) + STRING_END


def ordered_number(value: int) -> bytes:
    """Encode a number from 0 on: its length in bytes, then the bytes (`WriteNumIncreasing`)."""
    content = value.to_bytes((value.bit_length() + 7) // 8, "big")
    return bytes([len(content)]) + content


def ordered_integer(value: int) -> bytes:
    """Encode an integer with sign (`WriteSignedNumIncreasing`).

    A number from 0 on comes after as many ones as the encoding has bytes, and a zero. A negative number is
    the complement of its complement's encoding.
    """
    if value < 0:
        return bytes(byte ^ 0xFF for byte in ordered_integer(~value))
    size = value.bit_length() // ROOM + 1
    ones = (1 << size) - 1
    return (ones << ROOM * size | value).to_bytes(size, "big")
