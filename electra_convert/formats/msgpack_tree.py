"""A tree of arrays in msgpack, walked without reading their values.

msgpack's own reader copies every value into memory. See https://github.com/msgpack/msgpack/blob/master/spec.md.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

from electra_convert.formats.table import LONGEST_NAME, MOST_AXES, MOST_LEVELS, MOST_TENSORS, Row

ARRAY = 1
"""Extension type of arrays (`flax/serialization.py`, `_MsgpackExtType`)."""
MOST_NODES = 4 * MOST_TENSORS
"""Maps and leaves that a file may have."""

SHORT = {
    **{code: ("int", code) for code in range(0x80)},
    **{code: ("map", code - 0x80) for code in range(0x80, 0x90)},
    **{code: ("array", code - 0x90) for code in range(0x90, 0xA0)},
    **{code: ("str", code - 0xA0) for code in range(0xA0, 0xC0)},
    0xC3: ("true", 1),
    **{code: ("ext", 1 << code - 0xD4) for code in range(0xD4, 0xD9)},
}
"""Codes that are a kind and a number at once: a value, a count or a length."""
LONG = {
    **dict(zip((0xC4, 0xC5, 0xC6), (("bin", form) for form in (">B", ">H", ">I")), strict=True)),
    **dict(zip((0xC7, 0xC8, 0xC9), (("ext", form) for form in (">B", ">H", ">I")), strict=True)),
    **dict(zip((0xCC, 0xCD, 0xCE, 0xCF), (("int", form) for form in (">B", ">H", ">I", ">Q")), strict=True)),
    **dict(zip((0xD9, 0xDA, 0xDB), (("str", form) for form in (">B", ">H", ">I")), strict=True)),
    **dict(zip((0xDC, 0xDD), (("array", form) for form in (">H", ">I")), strict=True)),
    **dict(zip((0xDE, 0xDF), (("map", form) for form in (">H", ">I")), strict=True)),
}
"""Codes that are a kind, and how the number after them is stored."""

Node = dict[str, "Node"] | Row | int
"""What a tree is made of; a `Row` has no name yet."""


class Walk:
    """A walk through a file, from its beginning to its end.

    Args:
        stream: The file, at its beginning.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._nodes = 0

    def tree(self) -> Node:
        """Return the tree that the file is.

        Raises:
            ValueError: It is none, or has more levels, nodes or axes than a model. The message names the byte.
        """
        tree = self._node(level=0)
        end = self._stream.tell()
        if self._stream.read(1):
            raise ValueError(f"the tree ends at byte {end}, and the file does not")
        return tree

    def _node(self, level: int) -> Node:
        begin = self._stream.tell()
        self._nodes += 1
        if self._nodes > MOST_NODES or level > MOST_LEVELS:
            raise ValueError(f"byte {begin}: more than {MOST_NODES} maps and arrays, or {MOST_LEVELS} levels")
        kind, number = self._head()
        if kind == "map":
            return self._map(number, level)
        if kind == "ext":
            return self._array(number)
        if kind in ("int", "true"):
            return number
        raise ValueError(f"byte {begin}: {kind}; expected a map or an array")

    def _map(self, count: int, level: int) -> dict[str, Node]:
        found: dict[str, Node] = {}
        for _ in range(count):
            begin = self._stream.tell()
            key = self._text()
            if key in found:
                raise ValueError(f"byte {begin}: the key {key!r} stands twice in a map")
            found[key] = self._node(level + 1)
        return found

    def _array(self, length: int) -> Row:
        """Read what an array says of itself: shape and dtype. Its values are passed over."""
        (kind,) = self._take(1)
        begin = self._stream.tell()
        if kind != ARRAY:
            raise ValueError(f"byte {begin}: extension type {kind} is no array")
        self._expect("array", 3)
        rank = self._expect("array")
        if rank > MOST_AXES:
            raise ValueError(f"byte {begin}: an array has {rank} axes; expected at most {MOST_AXES}")
        shape = tuple(self._expect("int") for _ in range(rank))
        dtype = self._text()
        size = self._expect("bin")
        offset = self._stream.tell()
        row = Row("", dtype, shape, offset)
        if offset + size != begin + length or not row.takes(size):
            raise ValueError(f"byte {begin}: an array {list(shape)} of {dtype!r} has {size} bytes of {length}")
        self._stream.seek(size, 1)
        return row

    def _text(self) -> str:
        begin = self._stream.tell()
        length = self._expect("str")
        if length > LONGEST_NAME:
            raise ValueError(f"byte {begin}: a name has {length} bytes; expected at most {LONGEST_NAME}")
        try:
            return self._take(length).decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"byte {begin}: a name is not UTF-8") from error

    def _expect(self, kind: str, number: int | None = None) -> int:
        """Return the number of a head that must be of one kind, and may have to be one number."""
        begin = self._stream.tell()
        found = self._head()
        if found[0] != kind or number not in (None, found[1]):
            raise ValueError(f"byte {begin}: {found[0]} {found[1]}; expected {kind}" + (f" {number}" if number else ""))
        return found[1]

    def _head(self) -> tuple[str, int]:
        """Return a kind, and its number: a value, a count or a length."""
        (code,) = self._take(1)
        if code in SHORT:
            return SHORT[code]
        if code not in LONG:
            raise ValueError(f"byte {self._stream.tell() - 1}: code {code:#x} has no place in a tree of arrays")
        kind, form = LONG[code]
        return kind, struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _take(self, count: int) -> bytes:
        taken = self._stream.read(count)
        if len(taken) < count:
            raise ValueError(f"it ends at byte {self._stream.tell()}, in the middle of something")
        return taken
