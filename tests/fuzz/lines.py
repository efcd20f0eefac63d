"""Tell which lines of a reader some inputs reach: `python -m tests.fuzz.lines TARGET FOLDER`, as JSON.

Only functions that are entered count: the others in a module are of no reader, or of another.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import click

from tests.fuzz.readers import Read
from tests.fuzz.targets import TARGETS, reader


def main() -> None:
    """Print how many lines were reached, of how many, and those that were not."""
    target, folder = TARGETS[sys.argv[1]], Path(sys.argv[2])
    own = [module for module in target.modules if module.startswith("electra_convert")]
    files = {str(import_module(module).__file__) for module in own}
    with reader(target) as read:
        reached = lines_reached(read, (path.read_bytes() for path in (*target.inputs, *folder.iterdir())), files)
    there = {(code.co_filename, line) for code in reached for _, _, line in code.co_lines() if line}
    seen = {(code.co_filename, line) for code, lines in reached.items() for line in lines}
    missed: dict[str, list[int]] = defaultdict(list)
    for file, line in sorted(there - seen):
        missed[Path(file).name].append(line)
    click.echo(json.dumps({"lines": [len(there & seen), len(there)], "missed": missed}))


def lines_reached(read: Read, inputs: Iterable[bytes], files: set[str]) -> dict[CodeType, set[int]]:
    """Return the lines that inputs reach, by the function they are of; its first counts as reached."""
    reached: dict[CodeType, set[int]] = {}

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename not in files:
            return None
        lines = reached.setdefault(frame.f_code, {frame.f_code.co_firstlineno})
        if event == "line":
            lines.add(frame.f_lineno)
        return trace

    for data in inputs:
        sys.settrace(trace)
        try:
            read(data)
        finally:
            sys.settrace(None)
    return reached


if __name__ == "__main__":
    main()
