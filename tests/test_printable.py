"""Text as a line that a terminal can show, and that does nothing to it."""

from __future__ import annotations

import pytest

from electra_convert.printable import printable, printable_lines


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("layer.0/kernel", "layer.0/kernel"),
        ("", ""),
        ("한국어 é 😀", "한국어 é 😀"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("two\nlines\tand\r", r"two\nlines\tand\r"),
        ("\x9b31m\u202e\u2028", r"\x9b31m\u202e\u2028"),
        ("\udcff", r"\udcff"),
        (b"kernel", "kernel"),
        (b"\xff\x1b", r"\xff\x1b"),
    ],
)
def test_what_cannot_be_printed_is_escaped(text: str | bytes, shown: str) -> None:
    """All else is as it was; the result is printable, whatever the text."""
    assert printable(text) == shown
    assert printable(text).isprintable()


def test_a_long_text_is_cut() -> None:
    """By its own length, not by that of what is shown."""
    assert printable("abcdef", 6) == "abcdef"
    assert printable("abcdefg", 6) == "abcdef..."
    assert printable(b"\x1b" * 7, 6) == r"\x1b" * 6 + "..."


def test_lines_stay_lines() -> None:
    """Those of a message; a carriage return is none."""
    assert printable_lines("one\ntwo\r\n") == "one\ntwo\\r\n"
