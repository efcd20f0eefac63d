"""Fuzz one reader, in a process of its own: `python -m tests.fuzz.fuzz_one TARGET [OPTION OF LIBFUZZER...]`."""

from __future__ import annotations

import resource
import sys
from collections.abc import Sequence
from importlib import import_module
from itertools import count
from pathlib import Path

import atheris  # type: ignore[import-untyped]  # it is only where fuzzing is done

from tests.fuzz.mutators import seeded
from tests.fuzz.readers import Read
from tests.fuzz.targets import TARGETS, Target, reader

SPARE = 1 << 28
"""Bytes of memory that an input may cost, beyond what the process has."""
UNTIL_LIMITED = 1000
"""Executions after which it is looked at anew what the process has."""


def fuzz(target: Target, options: Sequence[str]) -> None:
    """Fuzz a target; libFuzzer ends the process, with 0 if nothing was found."""
    with atheris.instrument_imports(include=list(target.modules)):
        for module in target.modules:
            import_module(module)
    with reader(target) as read:
        for seed in target.seeds:  # so that all is imported that is imported late
            read(seed.read_bytes())
        atheris.Setup([target.name, *options], limited(read), custom_mutator=mutator(target))
        atheris.Fuzz()


def mutator(target: Target) -> object:
    """Return a target's mutator as atheris calls it."""

    def mutate(data: bytes, longest: int, seed: int) -> bytes:
        return target.mutator(data, lambda part: bytes(atheris.Mutate(part, longest)), seeded(seed))[:longest]

    return mutate


def limited(read: Read) -> Read:
    """Return a reader with little memory for each input; the fuzzer itself may take more and more."""
    executions = count()

    def read_one(data: bytes) -> None:
        if next(executions) % UNTIL_LIMITED == 0:
            limit_memory()
        read(data)

    return read_one


def limit_memory() -> None:
    """Let allocations fail that are far larger than any input: the error that follows is a finding."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + SPARE, most))


if __name__ == "__main__":
    fuzz(TARGETS[sys.argv[1]], sys.argv[2:])
