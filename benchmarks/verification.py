"""How long a whole verification takes: `python -m benchmarks.verification [--size small] [--heads all]`.

A checkpoint of a released model's sizes is converted, the discriminator with all its heads in three formats, and then
verified by the command people use.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.checkpoints import SIZES, make_checkpoint
from electra_convert import ConvertOptions, convert_checkpoint


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--heads", default="", help="some of the heads, by commas; all by default")
    arguments = parser.parse_args()
    heads = tuple(filter(None, arguments.heads.split(",")))
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / arguments.size, Path(folder) / "out"
        make_checkpoint(source, arguments.size)
        convert_checkpoint(source, out, ConvertOptions(part="discriminator", heads=heads))
        began = time.perf_counter()
        command = [sys.executable, "-m", "electra_convert", "verify", str(out), "--json"]
        done = subprocess.run(command, capture_output=True, check=False, text=True)
        seconds = time.perf_counter() - began
    report = json.loads(done.stdout)
    count = len(report["heads"])
    frameworks = ", ".join(report["frameworks"])
    print(
        f"{arguments.size}: {count} heads in {frameworks}: {report['status']} in {seconds:.0f} s ({report['machine']})"
    )


if __name__ == "__main__":
    main()
