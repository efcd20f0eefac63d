"""JSON as data."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from electra_convert.json_text import indented_json, parse_json

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda values: st.lists(values) | st.dictionaries(TEXT, values),
)


@given(VALUES)
def test_bytes_are_those_of_json_dumps(value: Any) -> None:
    """Empty lists and maps, small and large numbers and every letter among them; and they are read again."""
    written = indented_json(value)
    assert written == json.dumps(value, indent=2, ensure_ascii=False).encode()
    assert parse_json(written) == value


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | TEXT,
        lambda values: st.lists(values) | st.dictionaries(TEXT, values),
    )
)
def test_bytes_are_the_same_where_there_are_no_floats(value: Any) -> None:
    """The faster way changes nothing else."""
    assert indented_json(value, floats=False) == indented_json(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_json_has_no_number_for_is_refused(value: float) -> None:
    """`NaN` is JavaScript."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        indented_json([value])
