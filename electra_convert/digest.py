"""Files by their content."""

from __future__ import annotations

import hashlib
from pathlib import Path

from electra_convert.whole_file import open_file


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal.

    Raises:
        OSError: It cannot be read, or is no file.
    """
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
