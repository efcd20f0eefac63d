"""The encodings TensorFlow makes slice keys of."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from electra_convert.formats.ordered_code import ordered_integer, ordered_number, ordered_string

INT64 = st.integers(-(2**63), 2**63 - 1)
UINT64 = st.integers(0, 2**64 - 1)


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        *[(0, "80"), (63, "bf"), (64, "c040"), (-1, "7f"), (-64, "40"), (-65, "3fbf")],
        *[(0x424242, "f0424242"), (-0x800, "3800")],  # the examples in ordered_code.cc
        *[(2**63 - 1, "ffc07fffffffffffffff"), (-(2**63), "003f8000000000000000")],
    ],
)
def test_integers_are_encoded_as_tensorflow_does(value: int, encoded: str) -> None:
    """Known values, on both sides of where an encoding gets longer."""
    assert ordered_integer(value).hex() == encoded


@pytest.mark.parametrize(
    ("value", "encoded"), [(0, "00"), (1, "01" + "01"), (255, "01ff"), (256, "020100"), (2**64 - 1, "08" + "ff" * 8)]
)
def test_numbers_are_encoded_as_tensorflow_does(value: int, encoded: str) -> None:
    """The length in bytes, then the bytes."""
    assert ordered_number(value).hex() == encoded


def test_zero_and_255_are_escaped_in_strings() -> None:
    """The escapes of one are not taken for the other."""
    assert ordered_string(b"a\0b\xffc") == b"a\0\xffb\xff\0c\0\1"


@given(first=INT64, second=INT64)
def test_integers_sort_as_their_encodings_do(first: int, second: int) -> None:
    """Order is kept, so different integers have different encodings."""
    assert (first < second) == (ordered_integer(first) < ordered_integer(second))


@given(first=UINT64, second=UINT64)
def test_numbers_sort_as_their_encodings_do(first: int, second: int) -> None:
    """Order is kept, so different numbers have different encodings."""
    assert (first < second) == (ordered_number(first) < ordered_number(second))


@given(first=st.binary(), second=st.binary())
def test_strings_sort_as_their_encodings_do(first: bytes, second: bytes) -> None:
    """Order is kept, so different strings have different encodings."""
    assert (first < second) == (ordered_string(first) < ordered_string(second))
