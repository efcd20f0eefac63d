"""Google's classifier as the one of transformers: one dense module as dense, GELU and dense.

With `W` and `b` of Google's module, `dense` has the kernel `[W, -W, 0]` and the bias `[b, -b, 0]`, and `output` the
kernel `[I; -I; 0]` and the bias 0. For `gelu(x) - gelu(-x) = x`, exact GELU or not, they compute `x W + b` within
rounding. The halves must fit side by side: there are at most half as many labels as the encoder is wide.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from electra_convert.inventory import TensorSpec
from electra_convert.mapping import Binding
from electra_convert.tensor import Tensor, numpy_dtype

if TYPE_CHECKING:
    from electra_convert.tensor import Array

EXPLANATION = (
    "Google's code has one dense module where this head has two with GELU between them: classifier.dense holds "
    "[W, -W, 0] and classifier.output [I; -I; 0], which compute the same within rounding, for gelu(x) - gelu(-x) = x"
)


class Mirrored(msgspec.Struct, frozen=True):
    """A tensor of Google's one dense module, and the canonical tensors of two that are made of it.

    Args:
        binding: Google's tensor.
        specs: The tensor of the first module, and that of the second.
    """

    binding: Binding
    specs: tuple[TensorSpec, ...]

    @property
    def name(self) -> str:
        """Google's name."""
        return self.binding.name

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of Google's tensor."""
        return self.binding.shape

    def unpack(self, tensor: Tensor) -> Iterator[Tensor]:
        """Yield the canonical tensors that are made of Google's."""
        first, second = self.specs
        yield Tensor(first.name, first.shape, tensor.dtype, lambda: mirror(tensor.load(), first.shape))
        yield Tensor(second.name, second.shape, tensor.dtype, lambda: difference(second.shape, tensor.dtype))

    def pack(self, canonical: Mapping[str, Tensor]) -> Tensor:
        """Return Google's tensor, of which canonical ones are made as `is_made` says."""
        first = canonical[self.specs[0].name]
        return Tensor(self.name, self.shape, first.dtype, lambda: first.load()[..., : self.shape[-1]])

    def is_made(self, canonical: Mapping[str, Tensor]) -> bool:
        """Say whether canonical tensors are, bit for bit, those that `unpack` makes of Google's."""
        return not misfit(self.shape) and all(
            made.load().tobytes() == canonical[made.name].load().tobytes() for made in self.unpack(self.pack(canonical))
        )


def mirrored(bindings: Sequence[Binding], specs: Sequence[TensorSpec]) -> list[Mirrored]:
    """Return what makes the tensors of a head of Google's.

    Args:
        bindings: Google's tensors: kernel and bias of one module.
        specs: The canonical tensors of the head: those of two modules.
    """
    return [
        Mirrored(binding, tuple(spec for spec in specs if spec.leaf == binding.specs[0].leaf)) for binding in bindings
    ]


def mirror(values: Array, shape: tuple[int, ...]) -> Array:
    """Return `[values, -values, 0]` side by side: `[.., labels]` makes `[.., hidden]`."""
    import numpy as np

    count = values.shape[-1]
    made = np.zeros(shape, values.dtype)
    made[..., :count] = values
    made[..., count : 2 * count] = -values
    return made


def difference(shape: tuple[int, ...], dtype: str) -> Array:
    """Return the kernel `[hidden, labels]` that takes the mirrored half from the other, or a bias of zeros."""
    import numpy as np

    made = np.zeros(shape, numpy_dtype(dtype))
    if len(shape) == 2:
        labels = np.arange(shape[1])
        made[labels, labels] = 1
        made[labels + shape[1], labels] = -1
    return made


def misfit(shape: tuple[int, ...]) -> str:
    """Say why a kernel `[hidden, labels]` cannot be mirrored; nothing if it can."""
    if len(shape) != 2 or 2 * shape[1] <= shape[0]:
        return ""
    return (
        f"it has {shape[1]} labels; transformers' classification head, {shape[0]} wide, can be made to compute what "
        f"Google's computes for at most {shape[0] // 2}"
    )
