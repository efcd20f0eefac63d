"""What each format calls the tensors of the inventory: `mappings/<format>.yaml`, checked and compiled.

Names are generated and looked up, never parsed. A mapping is checked when it is loaded: every module of the
inventory is named, joined or declared absent; every placeholder is known; no two tensors get one name.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import product
from math import prod
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec

from electra_convert.config import DIMENSIONS, ElectraConfig
from electra_convert.errors import MappingError
from electra_convert.inventory import LEAVES, PARTS, Inventory, Part, TensorSpec, is_layered
from electra_convert.tensor import Tensor
from electra_convert.transforms import TRANSFORMS, TransformName, join, joined_shape
from electra_convert.yaml import read_hashed_yaml

if TYPE_CHECKING:
    from electra_convert.tensor import Values

Layout = Literal["single", "shared"]
LAYOUTS: tuple[Layout, ...] = ("single", "shared")
INVENTORY_FILE = "electra.yaml"
MOST_CHOICES = 1000
"""Values that the placeholders of a mapping may have together; each is tried."""
T = TypeVar("T")


def _is_present(prefix: str, names: Collection[str]) -> bool:
    return any(name.startswith(prefix) for name in names)


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One value a placeholder can take, and when it does."""

    value: str = msgspec.field(name="is")
    when: dict[Literal["part", "head", "layout"], str] = {}
    if_present: bool = False

    def fits(self, context: Mapping[str, str], names: Collection[str]) -> bool:
        """Say whether this case holds for a request and the names of a checkpoint."""
        return all(context.get(key) == value for key, value in self.when.items()) and (
            not self.if_present or _is_present(self.value, names)
        )


class Topology(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A kind of checkpoint, told from the names in it."""

    has: tuple[str, ...]
    parts: dict[Part, str | None]
    says: str
    lacks: tuple[str, ...] = ()
    hparams: dict[str, bool] = {}
    one_transformer: bool = False
    note: str = ""

    def fits(self, names: Collection[str]) -> bool:
        """Say whether a checkpoint with these names is of this kind."""
        return all(_is_present(prefix, names) for prefix in self.has) and not any(
            _is_present(prefix, names) for prefix in self.lacks
        )


class TaskHead(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the scope of a fine-tuned task holds a head.

    Args:
        modules: Names in the scope, by row.
        lacks: Modules with which it is no such head, with the reason.
        unsupported: Modules that have no place in the head, with the reason.
        note: What to know about such heads.
    """

    modules: dict[str, str]
    lacks: dict[str, str] = {}
    unsupported: dict[str, str] = {}
    note: str = ""


class KnownTask(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A task whose name says what it is."""

    head: str
    labels: tuple[str, ...] = ()
    note: str = ""


class Tasks(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What fine-tuning puts beside the backbone: in `scope`, a scope for each task."""

    scope: str
    heads: dict[str, TaskHead]
    names: dict[str, KnownTask] = {}


class Binding(msgspec.Struct, frozen=True):
    """A tensor of a format and the canonical tensors it is made of: one, or several side by side."""

    name: str
    specs: tuple[TensorSpec, ...]
    transform: TransformName

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape in the format."""
        return TRANSFORMS[self.transform].shape(joined_shape([spec.shape for spec in self.specs]))

    def pack(self, canonical: Mapping[str, Tensor]) -> Tensor:
        """Return the format's tensor, made of canonical ones when it is loaded."""
        tensors = [canonical[spec.name] for spec in self.specs]

        def values() -> Values:
            return TRANSFORMS[self.transform].apply(join([tensor.values() for tensor in tensors]))

        return Tensor(self.name, self.shape, tensors[0].dtype, values, (self.specs, self.transform))

    def unpack(self, tensor: Tensor) -> Iterator[Tensor]:
        """Yield the canonical tensors that a tensor of the format is made of."""
        end = 0
        for spec in self.specs:
            begin, end = end, end + spec.shape[-1]

            def values(part: slice = slice(begin, end)) -> Values:
                import numpy as np

                whole = TRANSFORMS[self.transform].invert(tensor.values())
                return whole if len(self.specs) == 1 else np.asarray(whole)[..., part]

            yield Tensor(spec.name, spec.shape, tensor.dtype, values)


class FormatMapping(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `<format>.yaml` holds."""

    version: Literal[1]
    format: str
    leaves: dict[str, str]
    modules: dict[str, str]
    aliases: dict[str, tuple[str, ...]] = {}
    placeholders: dict[str, tuple[Case, ...]] = {}
    transforms: dict[str, TransformName] = {}
    exceptions: dict[str, str] = {}
    joined: dict[str, tuple[str, ...]] = {}
    repeated: dict[str, tuple[str, ...]] = {}
    absent: tuple[str, ...] = ()
    ignore: dict[str, str] = {}
    unsupported: dict[str, str] = {}
    topologies: dict[str, Topology] = {}
    tasks: Tasks | None = None

    def resolve(self, context: Mapping[str, str], names: Collection[str] = ()) -> dict[str, str]:
        """Choose the value of every placeholder.

        Args:
            context: The request: `part`, `head`, `layout`, as far as the format cares.
            names: The names in the checkpoint that is read, if one is.

        Returns:
            A value by placeholder.

        Raises:
            MappingError: A placeholder has no case that fits.
        """
        values: dict[str, str] = {}
        for placeholder, cases in self.placeholders.items():
            fitting = next((case for case in cases if case.fits(context, names)), None)
            if fitting is None:
                raise MappingError(
                    f"{self.format}.yaml: no case of placeholder {placeholder!r} fits {dict(context)}",
                    hint="end its cases with one that has no `when` and no `if_present`",
                )
            values[placeholder] = fitting.value
        return values

    def name(self, spec: TensorSpec, values: Mapping[str, str]) -> str:
        """Return what this format calls a canonical tensor that it does not join with others."""
        pattern = self.exceptions.get(spec.name) or self.leaves[spec.leaf_key]
        module = self._module_of(spec.row).format(layer=spec.layer, **values)
        return pattern.format(module=module, **values)

    def spellings(self, spec: TensorSpec, values: Mapping[str, str]) -> list[str]:
        """Return what files may call a canonical tensor: its name, then those it had before."""
        module = self._module_of(spec.row).format(layer=spec.layer, **values)
        aliases = self.aliases.get(spec.leaf_key, ()) if spec.name not in self.exceptions else ()
        return [self.name(spec, values), *(pattern.format(module=module) for pattern in aliases)]

    def bind(
        self, specs: Iterable[TensorSpec], values: Mapping[str, str], names: Collection[str] = ()
    ) -> list[Binding]:
        """Compile the rows for these tensors; absent modules are left out.

        Args:
            specs: Canonical tensors, in any order.
            values: What `resolve` returned.
            names: The names in a file; a tensor that has there one that it had before is bound to that.
        """
        parts: dict[str, list[TensorSpec]] = {}
        for spec in specs:
            if spec.row not in self.absent:
                spellings = self.spellings(spec, values) if names else [self.name(spec, values)]
                name = next((name for name in spellings if name in names), spellings[0])
                parts.setdefault(name, []).append(spec)
        return [
            Binding(name, tuple(group), self.transforms.get(group[0].leaf_key, "identity"))
            for name, group in parts.items()
        ]

    def with_modules(self, modules: Mapping[str, str]) -> FormatMapping:
        """Return this mapping with names for modules, which may have been absent."""
        absent = tuple(row for row in self.absent if row not in modules)
        return msgspec.structs.replace(self, modules=self.modules | dict(modules), absent=absent)

    def topology(self, names: Collection[str]) -> tuple[str, Topology] | None:
        """Return the first kind of checkpoint these names fit, with its key."""
        return next((item for item in self.topologies.items() if item[1].fits(names)), None)

    def explain(self, name: str) -> tuple[Literal["ignored", "unsupported"], str] | None:
        """Say why a name that is bound to nothing may be left behind; `None` if nothing says so."""
        for fate, rules in (("ignored", self.ignore), ("unsupported", self.unsupported)):
            for pattern, reason in rules.items():
                if fnmatchcase(name, pattern):
                    return fate, reason  # type: ignore[return-value]  # the literals of the line above
        return None

    def _module_of(self, row: str) -> str:
        for module, rows in self.joined.items():
            if row in rows:
                return module
        return self.modules[row]


class Mappings(msgspec.Struct, frozen=True):
    """The inventory and all formats, as loaded from one folder."""

    inventory: Inventory
    formats: dict[str, FormatMapping]
    hashes: dict[str, str]
    """sha256 of each file, by its name."""

    def of(self, target: str) -> FormatMapping:
        """Return the mapping of a format.

        Raises:
            MappingError: There is none.
        """
        if target not in self.formats:
            raise MappingError(
                f"the mappings say nothing of the format {target}: there are {', '.join(self.formats)}",
                hint=f"add {target}.yaml to the folder of mappings",
            )
        return self.formats[target]


def default_directory() -> Path:
    """Return the folder of the mappings that come with the package.

    In a wheel it lies inside the package; in a checkout and in an editable install, beside it.
    """
    package = Path(__file__).parent
    inside = package / "mappings"
    return inside if inside.is_dir() else package.parent / "mappings"


def load_mappings(directory: Path | None = None) -> Mappings:
    """Read and check a folder of mappings.

    Args:
        directory: A folder with `electra.yaml` and one file for each format; by default the package's own.

    Raises:
        MappingError: A file is missing, malformed or inconsistent. Every fault is listed.
    """
    directory = default_directory() if directory is None else directory
    files = sorted(directory.glob("*.yaml"))
    if directory / INVENTORY_FILE not in files:
        raise MappingError(
            f"there is no {INVENTORY_FILE} in the mappings folder {directory}",
            hint="copy the package's own folder and change the copy; `electra-convert mappings list` shows where it is",
        )
    hashes: dict[str, str] = {}
    inventory = _read(directory / INVENTORY_FILE, Inventory, hashes)
    mappings = {path: _read(path, FormatMapping, hashes) for path in files if path.name != INVENTORY_FILE}
    problems = [f"{INVENTORY_FILE}: {fault}" for fault in _inventory_faults(inventory)]
    if not problems:  # only then can the formats be compared with it
        problems = [f"{path.name}: {fault}" for path in mappings for fault in _faults(mappings[path], inventory, path)]
    if problems:
        raise MappingError(f"the mappings in {directory} are wrong", problems=problems, hint="correct these rows")
    return Mappings(inventory, {mapping.format: mapping for mapping in mappings.values()}, hashes)


def mapping_schema() -> dict[str, Any]:
    """Return the JSON Schema of the inventory and of a format's mapping, for editors."""
    (inventory, mapping), definitions = msgspec.json.schema_components(
        [Inventory, FormatMapping], ref_template="#/$defs/{name}"
    )
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "electra-convert mapping files",
        "anyOf": [inventory, mapping],
        "$defs": definitions,
    }


def _read(path: Path, kind: type[T], hashes: dict[str, str]) -> T:
    """Return what a file holds, and note its hash."""
    try:
        content, hashes[path.name] = read_hashed_yaml(path)
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        raise MappingError(
            f"{path.name} does not follow the schema: {error}",
            hint="`electra-convert mappings schema` prints the schema",
        ) from error


def _inventory_faults(inventory: Inventory) -> Iterator[str]:
    for row, module in (inventory.rows | inventory.mirrored_rows).items():
        for dimension in module.shape:
            if isinstance(dimension, str) and dimension not in DIMENSIONS:
                yield f"{row}: {dimension!r} is no dimension: {', '.join(DIMENSIONS)}"
    for head, entry in inventory.heads.items():
        if entry.like is not None and entry.like not in inventory.heads:
            yield f"heads.{head}: like names {entry.like!r}, which is no head"
        backbone = set(inventory.backbone) & set(entry.modules)
        yield from (f"heads.{head}: {row} is in the backbone already" for row in sorted(backbone))
    missing = {leaf for leaves in LEAVES.values() for leaf in leaves} - set(inventory.initializers)
    yield from (f"initializers: {leaf} has none" for leaf in sorted(missing))


def _faults(mapping: FormatMapping, inventory: Inventory, path: Path) -> list[str]:
    """List what is wrong with a mapping; collisions are looked for only in one that is otherwise right."""
    faults = [
        *_name_faults(mapping, path),
        *_row_faults(mapping, inventory),
        *_pattern_faults(mapping, inventory),
        *_topology_faults(mapping, inventory),
        *_task_faults(mapping, inventory),
    ]
    return faults or [*_collisions(mapping, inventory)]


def _name_faults(mapping: FormatMapping, path: Path) -> Iterator[str]:
    if mapping.format != path.stem:
        yield f"format is {mapping.format!r}; the file's name says {path.stem!r}"


def _row_faults(mapping: FormatMapping, inventory: Inventory) -> Iterator[str]:
    claims = [("modules", row) for row in mapping.modules]
    claims += [("joined", row) for rows in mapping.joined.values() for row in rows]
    claims += [("absent", row) for row in mapping.absent]
    rows = inventory.rows
    for section, row in claims:
        if row not in rows:
            yield f"{section}: {row} is no row of {INVENTORY_FILE}"
    for row in rows:
        sections = [section for section, claimed in claims if claimed == row]
        if not sections:
            yield f"{row} is in {INVENTORY_FILE} but not here: name it under `modules` or `joined`, or under `absent`"
        elif len(sections) > 1:
            yield f"{row} stands under {' and '.join(sections)}; it must stand once"
    for layer, named in mapping.repeated.items():
        for row in named:
            if row not in inventory.backbone:
                yield f"repeated.{layer}: {row} is no row of the backbone of {INVENTORY_FILE}"


def _pattern_faults(mapping: FormatMapping, inventory: Inventory) -> Iterator[str]:
    values = set(mapping.placeholders)
    for row, pattern in mapping.modules.items():
        layer = {"layer"} if is_layered(row) else set()
        yield from _fields_faults(f"modules: {row}", pattern, allowed=values | layer, required=layer)
    for module in mapping.joined:
        yield from _fields_faults(f"joined: {module}", module, allowed=values, required=set())
    for key, pattern in mapping.leaves.items():
        yield from _fields_faults(f"leaves: {key}", pattern, allowed={"module"}, required={"module"})
    for key, patterns in mapping.aliases.items():
        for pattern in patterns:
            yield from _fields_faults(f"aliases: {key}", pattern, allowed={"module"}, required={"module"})
    for name, pattern in mapping.exceptions.items():
        yield from _fields_faults(f"exceptions: {name}", pattern, allowed=values | {"module"}, required=set())
    known = {f"{kind}.{leaf}" for kind, leaves in LEAVES.items() for leaf in leaves}
    used = {f"{module.kind}.{leaf}" for module in inventory.rows.values() for leaf in LEAVES[module.kind]}
    for section in (mapping.leaves, mapping.transforms, mapping.aliases):
        yield from (f"{key!r} is no kind and leaf: {', '.join(sorted(known))}" for key in section if key not in known)
    yield from (f"leaves: {key} is not spelt" for key in sorted(used - set(mapping.leaves)))


def _fields_faults(place: str, pattern: str, *, allowed: set[str], required: set[str]) -> Iterator[str]:
    try:
        replaced = [part for part in Formatter().parse(pattern) if part[1] is not None]
    except ValueError as error:
        yield f"{place}: {pattern!r} is malformed: {error}"
        return
    fields = {str(field) for _, field, *_ in replaced}
    for _, field, spec, conversion in replaced:
        if spec or conversion:
            yield f"{place}: {{{field}}} in {pattern!r} must stand alone, without {spec or conversion!r}"
    for field in sorted(fields - allowed):
        known = ", ".join(sorted(allowed)) or "none"
        yield f"{place}: {{{field}}} in {pattern!r} is no placeholder here; there are: {known}"
    for field in sorted(required - fields):
        yield f"{place}: {pattern!r} must hold {{{field}}}"


def _topology_faults(mapping: FormatMapping, inventory: Inventory) -> Iterator[str]:
    for key, topology in mapping.topologies.items():
        for part, head in topology.parts.items():
            if head is not None and head not in inventory.heads:
                yield f"topologies.{key}: parts.{part}: {head!r} is no head: {', '.join(inventory.heads)}"
        if not topology.parts:
            yield f"topologies.{key}: it has no parts"
    choices: dict[str, set[str]] = {"part": set(PARTS), "head": set(inventory.heads), "layout": set(LAYOUTS)}
    for placeholder, cases in mapping.placeholders.items():
        for case in cases:
            for key, value in case.when.items():
                if value not in choices[key]:
                    yield f"placeholders.{placeholder}: {key} is never {value!r}: {', '.join(sorted(choices[key]))}"
        if not cases or cases[-1].when or cases[-1].if_present:
            yield f"placeholders.{placeholder}: its last case must hold always (no `when`, no `if_present`)"


def _task_faults(mapping: FormatMapping, inventory: Inventory) -> Iterator[str]:
    if mapping.tasks is None:
        return
    heads = mapping.tasks.heads
    for head, entry in heads.items():
        if head not in inventory.heads:
            yield f"tasks.heads: {head!r} is no head: {', '.join(inventory.heads)}"
            continue
        rows = inventory.source_modules(head)
        if entry.modules.keys() != rows.keys():
            yield f"tasks.heads.{head}: modules names {', '.join(entry.modules)}; the head has {', '.join(rows)}"
    for name, known in mapping.tasks.names.items():
        if known.head not in heads:
            yield f"tasks.names.{name}: {known.head!r} is under no `heads`: {', '.join(heads)}"


def _collisions(mapping: FormatMapping, inventory: Inventory) -> Iterator[str]:
    """Compile every head of a small model, with every value of every placeholder, and look for names used twice."""
    config = ElectraConfig(vocab_size=7, embedding_size=2, hidden_size=3, num_hidden_layers=1, num_attention_heads=1)
    choices = [[(name, case.value) for case in cases] for name, cases in mapping.placeholders.items()]
    count = prod(map(len, choices))
    if count > MOST_CHOICES:
        yield f"placeholders: they can have {count} values together; expected at most {MOST_CHOICES}"
        return
    found: set[str] = set()
    for head in inventory.heads:
        specs = inventory.tensors(head, config)
        for values in map(dict, product(*choices)):
            bindings = mapping.bind(specs, values)
            found.update(_shared(mapping, bindings), _ambiguous(mapping, bindings, values))
    yield from sorted(found)


def _shared(mapping: FormatMapping, bindings: Sequence[Binding]) -> Iterator[str]:
    """Yield the names that several modules have, though nothing says that they are joined."""
    for binding in bindings:
        rows = tuple(spec.row for spec in binding.specs)
        if len(rows) > 1 and rows not in mapping.joined.values():
            yield f"{' and '.join(sorted(set(rows)))} are both called {binding.name!r}"


def _ambiguous(mapping: FormatMapping, bindings: Sequence[Binding], values: Mapping[str, str]) -> Iterator[str]:
    """Yield the names that a tensor had before and that another one has, or had."""
    owners = {binding.name: binding.name for binding in bindings}
    for binding in bindings:
        for spec in binding.specs if mapping.aliases else ():
            for alias in mapping.spellings(spec, values)[1:]:
                if owners.setdefault(alias, binding.name) != binding.name:
                    yield f"aliases: {alias!r} is what {spec.row} was called, and another tensor is, or was"
