"""What the float32 gate is chosen between: `python -m benchmarks.calibrate` prints it as gates.yaml holds it.

Right models are all heads of all genuine checkpoints and of one of electra-small's sizes, and the native head of the
base and the large sizes, in every framework. Known faults are what one change of Google's graph makes of the native
heads of the genuine checkpoints; a fault counts by the checkpoint on which it shows least. Both are in units of
2**-24 x scale x depth.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from benchmarks.checkpoints import SIZES, make_checkpoint
from electra_convert import ConvertOptions, convert_checkpoint, inspect_checkpoint, load_mappings
from electra_convert.parity.causes import faulty_graphs
from electra_convert.parity.compare import Comparison, as_computed
from electra_convert.parity.directories import find_directories
from electra_convert.parity.gates import committed_gates
from electra_convert.parity.known import open_source
from electra_convert.parity.probes import BUDGET
from electra_convert.parity.verify import verify_output
from electra_convert.progress import no_progress

FIXTURES = Path(__file__).parents[1] / "fixtures"


def main() -> None:
    """Measure, and print YAML."""
    right: dict[str, float] = {}
    faults: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, source, options in _sources(Path(folder)):
            print(f"# {name}", file=sys.stderr)
            out = Path(folder) / "out" / name
            convert_checkpoint(source, out, options)
            for key, units in _right(out):
                right[key] = max(units, right.get(key, 0.0))
            if source.parent == FIXTURES:
                for fault, units in _faults(out, source).items():
                    faults[fault] = min(units, faults.get(fault, math.inf))
    measured = {"right": right, "faults": dict(sorted(faults.items(), key=lambda item: item[1]))}
    print(yaml.safe_dump({"calibration": measured}, sort_keys=False))


def _sources(folder: Path) -> Iterator[tuple[str, Path, ConvertOptions]]:
    """Yield every part of every genuine checkpoint, as it was trained, and discriminators of the released sizes."""
    for source in sorted(FIXTURES.glob("elect*")):
        if (source / "expected.json").is_file():
            hparams = folder / f"{source.name}.json"
            hparams.write_text(json.dumps(json.loads((source / "expected.json").read_text())["hparams"]))
            for part in inspect_checkpoint(source).parts:
                yield f"{source.name}-{part.part}", source, ConvertOptions(part=part.part, config=hparams)
    for size in SIZES:
        heads = () if size == "small" else ("pretraining",)
        yield size, make_checkpoint(folder / size, size), ConvertOptions(part="discriminator", heads=heads)


def _right(out: Path) -> Iterator[tuple[str, float]]:
    """Yield what each framework needed, in units."""
    for head in verify_output(out).heads:
        for run in head.runs:
            if run.precision == "float32":
                yield run.framework, run.needed * committed_gates().float32.units


def _faults(out: Path, source: Path) -> dict[str, float]:
    """Return how far each fault takes the native head, on the probe where it shows most, in units."""
    mappings = load_mappings()
    directories = find_directories(out, mappings.inventory)
    options: dict[str, Any] = {"source": source, "step": None, "config": None, "budget": BUDGET}
    with open_source(directories, mappings, **options, progress=no_progress) as known:
        assert known is not None  # it is named
        assert directories[0].record is not None  # it was just converted
        part = known.part(directories[0], directories[0].record)
        assert part.native_head is not None  # every pre-training part has one
        comparisons: dict[str, Comparison] = defaultdict(lambda: Comparison(committed_gates(), "float32"))
        for number, probe in enumerate(part.probes):
            right = part.reference.compute(part.reference.oracle, part.native_head, number, probe)
            for fault, arrays in faulty_graphs(part.reference, part.native_head, number):
                comparisons[fault].add(probe.name, as_computed(right), as_computed(arrays))
    units = committed_gates().float32.units
    found: dict[str, float] = {}
    for fault, comparison in comparisons.items():
        kind = "num_attention_heads" if "num_attention_heads" in fault else fault
        found[kind] = min(comparison.needed * units, found.get(kind, math.inf))
    return found


if __name__ == "__main__":
    main()
