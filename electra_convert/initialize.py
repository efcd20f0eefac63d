"""First values of the parameters that no checkpoint supplies.

The rule, so that anybody can draw them again: let `d` be the SHA-256 digest of `"<seed>/<canonical name>"` in
UTF-8, read as eight little-endian 32-bit words. Seed NumPy's `RandomState` (MT19937) with these words. Draw
standard normal float64 values for the whole tensor, in C order. While any lies outside [-2, 2], draw as many as
there are of those and put them in their places, in order. Multiply by `initializer_range`; round to float32.

So a value depends on the seed and its own name alone: not on the format, the machine, or which heads are written.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from electra_convert.tensor import Tensor

if TYPE_CHECKING:
    from electra_convert.inventory import Initializer, TensorSpec
    from electra_convert.tensor import Array

TRUNCATION = 2.0
"""Deviations at which TensorFlow's truncated normal cuts, which Google's `create_initializer` uses."""


def initial_tensor(spec: TensorSpec, initializer: Initializer, *, seed: int, deviation: float) -> Tensor:
    """Return a tensor whose values are drawn, or filled in, when they are loaded.

    Args:
        spec: The canonical tensor.
        initializer: How it starts.
        seed: The run's seed.
        deviation: Standard deviation before truncation, for `normal`.
    """

    def load() -> Array:
        import numpy as np

        if initializer == "normal":
            return truncated_normal(spec.name, spec.shape, seed=seed, deviation=deviation)
        return np.full(spec.shape, 1 if initializer == "ones" else 0, np.float32)

    return Tensor(spec.name, spec.shape, "float32", load)


def truncated_normal(name: str, shape: tuple[int, ...], *, seed: int, deviation: float) -> Array:
    """Draw float32 values of this shape by the rule at the top of this module."""
    import numpy as np

    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    # RandomState, not Generator: NumPy promises never to change what it draws (NEP 19).
    random = np.random.RandomState(np.frombuffer(digest, "<u4"))
    values = random.standard_normal(shape)
    while (outside := np.abs(values) > TRUNCATION).any():
        values[outside] = random.standard_normal(int(outside.sum()))
    return (values * deviation).astype(np.float32)
