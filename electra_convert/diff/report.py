"""What a comparison of two checkpoints found."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Fate = Literal["cast", "differs", "another shape", "missing in A", "missing in B"]


class ComparedSide(msgspec.Struct, frozen=True, kw_only=True):
    """A checkpoint that was compared.

    Args:
        source: Where it is.
        format: The format that was read.
        model: Its class, without a framework's prefix.
        unread: Other formats in the same directory, which were not read.
        unknown: Its tensors that are in no mapping; they are compared under the names they have.
    """

    source: str
    format: str
    model: str
    unread: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


class FieldDifference(msgspec.Struct, frozen=True, kw_only=True):
    """A field of the config that differs.

    Args:
        field: Its name.
        a: Its value in A.
        b: Its value in B.
        assumed: The sides that follow Google's rule, for nothing in them shows it.
    """

    field: str
    a: Any
    b: Any
    assumed: tuple[str, ...] = ()


class TensorDifference(msgspec.Struct, frozen=True, kw_only=True):
    """A tensor that is not equal bit for bit.

    Args:
        name: Its canonical name.
        fate: In what it differs; `cast` is equal after rounding to the narrower dtype.
        a: Dtype and shape in A; empty if it is missing there.
        b: Dtype and shape in B.
        largest: The largest absolute difference; none if it is no finite number, or nothing was compared.
        at: Where that is.
    """

    name: str
    fate: Fate
    a: str = ""
    b: str = ""
    largest: float | None = None
    at: tuple[int, ...] | None = None


class FileDifference(msgspec.Struct, frozen=True, kw_only=True):
    """A file of the tokenizer that differs.

    Args:
        file: Its name.
        says: In what.
    """

    file: str
    says: str


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """In what two checkpoints differ.

    Args:
        equal: They do not.
        a: The one.
        b: The other.
        fields: How many fields of the config were compared.
        config: Those that differ.
        tensors: How many tensors there are, in either.
        different: Those that are not equal bit for bit.
        files: Names of the tokenizer's files that were compared.
        tokenizer: Those that differ.
    """

    equal: bool
    a: ComparedSide
    b: ComparedSide
    fields: int
    config: list[FieldDifference]
    tensors: int
    different: list[TensorDifference]
    files: list[str]
    tokenizer: list[FileDifference]
