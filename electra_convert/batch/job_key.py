"""What decides the result of a job, as one hash."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec

from electra_convert._version import __version__
from electra_convert.batch.jobs import Job
from electra_convert.digest import sha256_of
from electra_convert.errors import OptionError
from electra_convert.mapping import load_mappings
from electra_convert.opening import open_located
from electra_convert.source import locate


def job_key(job: Job) -> str:
    """Return the hash of a job: of its checkpoint, its options, and the version of this package.

    The checkpoint counts by its index, which holds the checksum of every tensor, and its vocabulary; a model by all of
    its files that are read, and files that the options name by their content.

    Raises:
        ElectraConvertError: The checkpoint, or a file that is named, cannot be read.
    """
    with locate(job.source, values=False) as location:
        mappings = load_mappings(job.convert.mappings)
        decided = {
            "electra_convert": __version__,
            "checkpoint": open_located(location, mappings).files.identity,
            "vocabulary": _hash_of(location.vocabulary) if location.vocabulary else None,
            "job": msgspec.to_builtins(msgspec.structs.replace(job, id="", source="", output=""), enc_hook=_hash_of),
        }
    return hashlib.sha256(msgspec.json.encode(decided, order="deterministic")).hexdigest()


def _hash_of(path: Any) -> str:
    """Return the SHA-256 of a file, or of all files in a folder with their names."""
    assert isinstance(path, Path)  # noqa: S101  # nothing else in a job is no plain data
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    digest = hashlib.sha256()
    try:
        for file in files:
            if file.is_file() or file == path:
                digest.update(f"{file.relative_to(path)}\0".encode())
                digest.update(bytes.fromhex(sha256_of(file)))
    except OSError as error:
        raise OptionError(f"{path} cannot be read: {error.strerror}", hint="correct the plan") from error
    return digest.hexdigest()
