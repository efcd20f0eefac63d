"""The wire format of protocol buffers."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from electra_convert.formats.wire import (
    DamageError,
    Message,
    bytes_field,
    fixed32_field,
    number_field,
    read_varint,
    varint,
)


@given(value=st.integers(0, 2**64 - 1), before=st.binary(), after=st.binary())
def test_a_number_is_read_as_it_was_written(value: int, before: bytes, after: bytes) -> None:
    """Whatever comes before or after it."""
    assert read_varint(before + varint(value) + after, len(before)) == (value, len(before + varint(value)))


def test_numbers_are_encoded_as_protobuf_does() -> None:
    """The example of protobuf's own documentation."""
    assert varint(150) == b"\x96\x01"


@pytest.mark.parametrize("data", [b"", b"\x80", b"\xff" * 9, b"\xff" * 11])
def test_a_number_without_end_is_damage(data: bytes) -> None:
    """The bytes end, or the number is longer than ten bytes."""
    with pytest.raises(DamageError, match="at byte 0 does not end"):
        read_varint(data, 0)


def test_fields_are_read_by_number() -> None:
    """Of a number the last counts; negative ones have 64 bits; an absent one is the default."""
    negative = varint(3 << 3) + varint(2**64 - 5)
    message = Message(number_field(1, 7) + number_field(1, 8) + fixed32_field(2, 9) + negative)
    assert [message.number(field) for field in (1, 2, 3, 4)] == [8, 9, -5, 0]
    assert message.number(4, default=-1) == -1


def test_submessages_are_listed_or_merged() -> None:
    """Protobuf merges the repetitions of a field that is not repeated."""
    message = Message(bytes_field(1, number_field(1, 2)) + bytes_field(1, number_field(2, 3)))
    assert [part.number(1) for part in message.submessages(1)] == [2, 0]
    assert (message.submessage(1).number(1), message.submessage(1).number(2)) == (2, 3)


def test_a_field_of_another_type_is_absent() -> None:
    """A number is no message, and a message no number."""
    message = Message(number_field(1, 2) + bytes_field(2, b"ab"))
    assert message.parts(1) == []
    assert message.number(2) == 0


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"\x0a\x05abc", "the 5 bytes at byte 2 reach past the end, at 5"),
        (b"\x0d\0\0\0", "the 4 bytes at byte 1 reach past the end, at 4"),
        (b"\x09\0\0\0\0", "the 8 bytes at byte 1 reach past the end, at 5"),
        (b"\x0b", "the field at byte 0 is of the unknown type 3"),
        (b"\x08", "the number at byte 1 does not end"),
    ],
)
def test_damage_is_told_with_its_place(data: bytes, complaint: str) -> None:
    """Truncated fields of each type, and a type there is not."""
    with pytest.raises(DamageError, match=complaint):
        Message(data)


@given(data=st.binary(max_size=60))
def test_any_bytes_are_a_message_or_damage(data: bytes) -> None:
    """Nothing else comes of them."""
    with suppress(DamageError):
        Message(data)
