"""The hub of all mappings: which tensors a model has, for a config and a head.

`mappings/electra.yaml` lists modules; a module's kind gives its tensors. A canonical name is the module's
name, with its layer number, and the leaf: `layer.3.ffn.up.kernel`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from electra_convert.config import ElectraConfig

Part = Literal["discriminator", "generator"]
Kind = Literal["table", "dense", "norm", "bias"]
Leaf = Literal["table", "kernel", "bias", "scale"]
Initializer = Literal["normal", "ones", "zeros"]

PARTS: tuple[Part, ...] = ("discriminator", "generator")

LEAVES: dict[Kind, tuple[Leaf, ...]] = {
    "table": ("table",),
    "dense": ("kernel", "bias"),
    "norm": ("scale", "bias"),
    "bias": ("bias",),
}
"""The tensors of a module, by its kind. Every leaf has the module's shape, but a dense bias only its last axis."""


class Module(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A row of the inventory."""

    kind: Kind
    shape: tuple[str | int, ...]
    when: Literal["projects_embeddings"] | None = None


class Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A head: the class it is in every framework, and its modules.

    Args:
        architecture: The class, without a framework's prefix.
        like: The head whose modules these are.
        modules: Its modules.
        tied: Tensors that are another one.
        mirrored: What Google's code has in place of the modules, where these can only be made to compute the same.
    """

    architecture: str
    like: str | None = None
    modules: dict[str, Module] = {}
    tied: dict[str, str] = {}
    mirrored: dict[str, Module] = {}


class TensorSpec(msgspec.Struct, frozen=True):
    """A canonical tensor, for one config.

    Args:
        name: Canonical name: `layer.3.ffn.up.kernel`.
        row: Row of the inventory it comes from: `layer.{layer}.ffn.up`.
        layer: Its layer, or `None` outside the encoder's layers.
        kind: Kind of its module.
        leaf: Which tensor of its module it is.
        shape: Lengths of its axes; dense kernels are `[in, out]`.
    """

    name: str
    row: str
    layer: int | None
    kind: Kind
    leaf: Leaf
    shape: tuple[int, ...]

    @property
    def leaf_key(self) -> str:
        """Kind and leaf, as the `leaves` of a mapping spell them: `dense.kernel`."""
        return f"{self.kind}.{self.leaf}"


class Inventory(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `electra.yaml` holds."""

    version: Literal[1]
    backbone: dict[str, Module]
    heads: dict[str, Head]
    initializers: dict[Leaf, Initializer]

    @property
    def rows(self) -> dict[str, Module]:
        """Every module, of the backbone and of all heads."""
        rows = dict(self.backbone)
        for head in self.heads.values():
            rows |= head.modules
        return rows

    @property
    def mirrored_rows(self) -> dict[str, Module]:
        """Every module that only Google's code has."""
        return {row: module for head in self.heads.values() for row, module in head.mirrored.items()}

    def origin(self, head: str) -> str:
        """Return the head whose modules `head` uses: itself, unless it is `like` another."""
        return self.heads[head].like or head

    def head_tensors(self, head: str, config: ElectraConfig) -> list[TensorSpec]:
        """Return the tensors that `head` adds to the backbone."""
        return list(_expand(self.heads[self.origin(head)].modules, config))

    def source_modules(self, head: str) -> dict[str, Module]:
        """Return the modules that `head` adds to the backbone in Google's code."""
        return self.heads[head].mirrored or self.heads[head].modules

    def source_tensors(self, head: str, config: ElectraConfig) -> list[TensorSpec]:
        """Return the tensors that `head` adds to the backbone in Google's code."""
        return list(_expand(self.source_modules(head), config))

    def backbone_tensors(self, config: ElectraConfig) -> list[TensorSpec]:
        """Return the tensors of embeddings and encoder."""
        return list(_expand(self.backbone, config))

    def tensors(self, head: str, config: ElectraConfig) -> list[TensorSpec]:
        """Return the tensors of a model with this head: those of the backbone, then the head's."""
        return [*self.backbone_tensors(config), *self.head_tensors(head, config)]

    def tied_tensors(self, head: str) -> Mapping[str, str]:
        """Return the tensors of `head` that are another one: `{tied: the one it is}`."""
        return self.heads[self.origin(head)].tied


def module_tensors(row: str, module: Module, layer: int | None) -> list[tuple[str, Leaf, tuple[str | int, ...]]]:
    """Return canonical name, leaf and symbolic shape of each tensor of one module."""
    name = row.format(layer=layer)
    return [
        (f"{name}.{leaf}", leaf, module.shape[-1:] if leaf == "bias" else module.shape) for leaf in LEAVES[module.kind]
    ]


def is_layered(row: str) -> bool:
    """Say whether `row` stands once for each layer."""
    return "{layer}" in row


def _expand(modules: Mapping[str, Module], config: ElectraConfig) -> Iterator[TensorSpec]:
    for row, module in modules.items():
        if module.when is not None and not getattr(config, module.when):
            continue
        for layer in range(config.num_hidden_layers) if is_layered(row) else (None,):
            for name, leaf, dimensions in module_tensors(row, module, layer):
                shape = tuple(d if isinstance(d, int) else getattr(config, d) for d in dimensions)
                yield TensorSpec(name, row, layer, module.kind, leaf, shape)
