"""What a model can be exported to: what that needs, where it lies, and how it is loaded."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from electra_convert.errors import OptionError

ExportTarget = Literal["orbax", "keras", "saved_model"]
EXPORT_TARGETS: tuple[ExportTarget, ...] = get_args(ExportTarget)


class Target(NamedTuple):
    """What is particular to one target.

    Args:
        title: What it is called.
        place: Where it lies in the output.
        needs: The modules that writing and checking it imports.
        packages: The packages whose versions are noted.
        extra: The extra of this package that installs them.
        call: Loads it, `{place}` being its path.
    """

    title: str
    place: str
    needs: tuple[str, ...]
    packages: tuple[str, ...]
    extra: str
    call: str


TENSORFLOW_MODULES = ("tensorflow", "keras")
DESCRIBED: dict[ExportTarget, Target] = {
    "orbax": Target(
        "Orbax",
        "orbax",
        ("orbax.checkpoint", "jax", "flax"),
        ("orbax-checkpoint", "jax"),
        "orbax",
        "orbax.checkpoint.StandardCheckpointer().restore({place})",
    ),
    "keras": Target(
        "Keras",
        "model.keras",
        TENSORFLOW_MODULES,
        ("keras", "tensorflow"),
        "tensorflow",
        "keras.models.load_model({place})",
    ),
    "saved_model": Target(
        "SavedModel",
        "saved_model/1",  # the 1 is the version: TensorFlow Serving takes the folder above it
        TENSORFLOW_MODULES,
        ("tensorflow", "keras"),
        "tensorflow",
        'tensorflow.saved_model.load({place}).signatures["serving_default"]',
    ),
}


def load_call(target: ExportTarget, output: Path) -> str:
    """Return the call that loads what was exported to a directory; Orbax takes absolute paths alone."""
    place = output / DESCRIBED[target].place
    path = place.absolute() if target == "orbax" else place
    return DESCRIBED[target].call.format(place=json.dumps(str(path), ensure_ascii=False))


def targets_in(output: Path) -> tuple[ExportTarget, ...]:
    """Return what was exported to a directory."""
    return tuple(target for target in EXPORT_TARGETS if os.path.lexists(output / DESCRIBED[target].place))


def require_installed(targets: Sequence[ExportTarget]) -> None:
    """Check that all that targets need can be imported, without importing it.

    Raises:
        OptionError: Something is not installed. All of it is listed.
    """
    missing = {target: [name for name in DESCRIBED[target].needs if not _is_there(name)] for target in targets}
    lacking = [target for target in targets if missing[target]]
    if not lacking:
        return
    extras = ",".join(sorted({DESCRIBED[target].extra for target in lacking}))
    others = ",".join(target for target in targets if target not in lacking)
    raise OptionError(
        "an export is written and tried with the framework's own library, which is not installed",
        problems=[f"{target} needs {', '.join(missing[target])}" for target in lacking],
        hint=f'install it: pip install "electra-convert[{extras}]"'
        + (f"; or write --to {others} alone" * bool(others)),
    )


def versions_of(target: ExportTarget) -> dict[str, str]:
    """Return the version of each package that wrote a target."""
    found = {}
    for package in DESCRIBED[target].packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # what a dotted name begins with
        return False
