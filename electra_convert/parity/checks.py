"""What is checked without running a model: every bit of the weights, the config, the tokenizer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from electra_convert.config import ElectraConfig, head_config
from electra_convert.digest import sha256_of
from electra_convert.errors import ElectraConvertError, OptionError
from electra_convert.formats import TargetFormat, read_weights
from electra_convert.inventory import TensorSpec
from electra_convert.mapping import FormatMapping
from electra_convert.models.files import ARCHITECTURES, CONFIG_FILE, read_config, read_json
from electra_convert.parity.diagnosis import same_bits, what_happened
from electra_convert.parity.directories import Directory
from electra_convert.parity.report import Check
from electra_convert.tensor import Tensor, numpy_dtype
from electra_convert.tokenizer import VOCABULARY_FILE, check_fits, read_vocabulary, tokenizer_files
from electra_convert.whole_file import read_whole

UNGATED_FIELDS = ("pad_token_id",)
"""Fields of config.json that follow from the vocabulary, not from the model."""
HARMLESS_FIELDS = frozenset({"_name_or_path", "transformers_version"})
"""Fields that transformers adds when it writes a config again."""


def check_round_trip(
    directory: Directory,
    target: TargetFormat,
    mapping: FormatMapping,
    specs: Sequence[TensorSpec],
    expected: Mapping[str, Tensor],
) -> Check:
    """Compare every tensor of a file, taken back through the mapping, with what it was made of: bit for bit.

    Args:
        directory: The directory.
        target: The format to read.
        mapping: Its mapping.
        specs: The canonical tensors of the head.
        expected: Each of them, by canonical name, as the source or the rule of first values gives it.
    """
    assert directory.record is not None  # noqa: S101  # for the type checker: audits have no round trip
    dtype = directory.record.options.dtype
    try:
        found = dict(_canonical(directory, target, mapping, specs))
    except ElectraConvertError as error:
        return _failed("round trip", target, str(error))
    return check_tensors(found, expected, dtype, wanted=[spec.name for spec in specs], target=target)


def check_tensors(
    found: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    dtype: str,
    *,
    wanted: Sequence[str] | None = None,
    target: TargetFormat | None = None,
) -> Check:
    """Compare tensors that were read back with what they were made of, bit for bit after the cast.

    Args:
        found: The tensors, by canonical name.
        expected: What they were made of.
        dtype: The dtype they should have.
        wanted: The names there should be; by default all that are expected.
        target: The format they were read from.
    """
    wanted = list(expected) if wanted is None else wanted
    faults = [*_name_faults(found, wanted)]
    for name in (name for name in wanted if name in found):
        faults += _tensor_faults(name, expected, found[name], dtype)
    says = f"{len(found)} tensors equal the source bit for bit" + ("" if dtype == "float32" else f", cast to {dtype}")
    if faults:
        says = f"{len(faults)} of {len(wanted)} tensors differ"
    return Check(name="round trip", framework=target, passed=not faults, says=says, faults=tuple(faults))


def check_formats(
    directory: Directory, mappings: Mapping[TargetFormat, FormatMapping], specs: Sequence[TensorSpec]
) -> Iterator[Check]:
    """Compare the formats of a directory with the first of them, bit for bit."""
    first, *others = directory.formats
    try:
        expected = dict(_canonical(directory, first, mappings[first], specs))
    except ElectraConvertError as error:
        yield _failed("weights", first, str(error))
        return
    faults = [*_name_faults(expected, [spec.name for spec in specs])]
    faults += (f"{name} holds values that are no numbers" for name in expected if not _is_finite(expected[name]))
    says = f"{len(expected)} tensors are there, fit the config and hold numbers"
    yield Check(name="weights", framework=first, passed=not faults, says=says, faults=tuple(faults))
    for target in others:
        try:
            found = dict(_canonical(directory, target, mappings[target], specs))
        except ElectraConvertError as error:
            yield _failed("weights", target, str(error))
            continue
        faults = [*_name_faults(found, list(expected))]
        for name in found.keys() & expected.keys():
            faults += _tensor_faults(name, expected, found[name], expected[name].dtype)
        says = f"{len(found)} tensors equal those of {first} bit for bit"
        yield Check(name="weights", framework=target, passed=not faults, says=says, faults=tuple(faults))


def check_config(directory: Directory, config: ElectraConfig) -> Check:
    """Compare `config.json` with what the conversion should have written.

    Args:
        directory: The directory.
        config: The config of the part.
    """
    head = directory.head
    expected = head_config(config, head=head, architecture=ARCHITECTURES[head], pad_token_id=0)
    try:
        said = read_json(directory.path / CONFIG_FILE)
    except ElectraConvertError as error:
        return _failed("config", None, str(error))
    faults = [
        f"{CONFIG_FILE} has {key} = {json.dumps(said.get(key))}; expected {json.dumps(value)}"
        for key, value in expected.items()
        if key not in UNGATED_FIELDS and said.get(key) != value
    ]
    pad = said.get("pad_token_id")
    if not isinstance(pad, int) or not 0 <= pad < config.vocab_size:
        faults.append(f"{CONFIG_FILE} has pad_token_id = {json.dumps(pad)}; expected an id of the vocabulary")
    faults += (
        f"{CONFIG_FILE} has {key} = {json.dumps(value)}, which no conversion writes"
        for key, value in said.items()
        if key not in expected.keys() | HARMLESS_FIELDS
    )
    says = f"{len(expected)} fields are as the conversion understood them"
    return Check(name="config", passed=not faults, says=says, faults=tuple(faults))


def check_readable_config(directory: Directory) -> Check:
    """Check that `config.json` describes an ELECTRA model."""
    try:
        config = read_config(directory.path, directory.head)
    except ElectraConvertError as error:
        return _failed("config", None, str(error))
    says = f"{config.num_hidden_layers} layers of {config.hidden_size}, {config.num_attention_heads} heads"
    return Check(name="config", passed=True, says=says)


def check_tokenizer(directory: Directory) -> Check | None:
    """Build the tokenizer's files again from its vocabulary and compare them; `None` where there is no tokenizer.

    Of files that others wrote, who may spell the same in many ways, only the vocabulary is compared.
    """
    file = directory.path / VOCABULARY_FILE
    written = directory.record and directory.record.tokenizer
    if not file.is_file():
        return _failed("tokenizer", None, f"{VOCABULARY_FILE} is gone") if written else None
    try:
        lowercase, strip_accents = _casing(directory)
        config = read_config(directory.path, directory.head)
        vocabulary = read_vocabulary(file)
        note = check_fits(vocabulary, config.vocab_size)
        built = tokenizer_files(
            vocabulary,
            lowercase=lowercase,
            strip_accents=strip_accents,
            max_length=config.max_position_embeddings,
        )
    except ElectraConvertError as error:
        return _failed("tokenizer", None, str(error))
    if not written:
        built = {VOCABULARY_FILE: built[VOCABULARY_FILE]}
    faults = [
        f"{name} is not what {VOCABULARY_FILE} gives"
        for name, content in built.items()
        if not _holds(directory.path / name, content)
    ]
    if written and written.vocabulary_sha256 != sha256_of(file):
        faults.append(f"{VOCABULARY_FILE} is not the one that was written")
    casing = "lower-cased" if lowercase else "cased"
    says = f"{', '.join(built)}: as built again from the vocabulary, {casing}" + (f"; {note}" if note else "")
    return Check(name="tokenizer", passed=not faults, says=says, faults=tuple(faults))


def _holds(path: Path, content: bytes) -> bool:
    try:
        return read_whole(path, len(content)) == content
    except OSError:
        return False


def _casing(directory: Directory) -> tuple[bool, bool | None]:
    """Return whether text is lower-cased and loses its accents."""
    if directory.record is not None and directory.record.tokenizer is not None:
        return directory.record.tokenizer.lowercase.value, directory.record.tokenizer.strip_accents
    file = directory.path / "tokenizer_config.json"
    said = read_json(file) if file.is_file() else {}
    lowercase = said.get("do_lower_case", True)
    if not isinstance(lowercase, bool):
        raise OptionError(f"{file} has do_lower_case = {lowercase!r}; expected true or false", hint="correct the file")
    return lowercase, None


def _canonical(
    directory: Directory, target: TargetFormat, mapping: FormatMapping, specs: Sequence[TensorSpec]
) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a file by their canonical names; those that nothing is bound to keep their own."""
    found = read_weights(directory.path, target)
    layouts = ("single", "shared") if directory.record is None else (directory.record.options.layout,)
    bindings = max(
        (mapping.bind(specs, mapping.resolve({"head": directory.head, "layout": layout})) for layout in layouts),
        key=lambda bindings: sum(binding.name in found for binding in bindings),
    )
    for binding in bindings:
        if binding.name in found:
            tensor = found.pop(binding.name)
            if tensor.shape == binding.shape:
                yield from ((part.name, part) for part in binding.unpack(tensor))
            else:
                yield binding.specs[0].name, tensor
    yield from found.items()


def _is_finite(tensor: Tensor) -> bool:
    import numpy as np

    return bool(np.isfinite(tensor.load()).all())


def _name_faults(found: Mapping[str, Tensor], expected: Sequence[str]) -> Iterator[str]:
    yield from (f"{name} is missing" for name in expected if name not in found)
    yield from (f"{name} {list(found[name].shape)} is unexpected" for name in found if name not in set(expected))


def _tensor_faults(name: str, expected: Mapping[str, Tensor], found: Tensor, dtype: str) -> Iterator[str]:
    """Yield what is wrong with one tensor, with the likely cause."""
    right = expected[name]
    if found.shape != right.shape:
        yield f"{name} has shape {list(found.shape)}; expected {list(right.shape)}"
    elif found.dtype != dtype:
        yield f"{name} is {found.dtype}; expected {dtype}"
    else:
        values = right.load().astype(numpy_dtype(dtype), copy=False)
        got = found.load()
        if not same_bits(values, got):
            yield what_happened(name, values, got, expected)


def _failed(name: str, framework: TargetFormat | None, fault: str) -> Check:
    return Check(name=name, framework=framework, passed=False, says="cannot be read", faults=(fault,))
