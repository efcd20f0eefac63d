"""Processes that run models, one for each framework: apart in memory and in what kills them, side by side in time."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec

import msgspec

from electra_convert.formats import TargetFormat
from electra_convert.parity.worker import Answer, Job

NEEDS: dict[TargetFormat, tuple[str, ...]] = {
    "pytorch": ("torch",),
    "tensorflow": ("tensorflow", "keras"),
    "flax": ("jax", "flax"),
}
"""The packages a framework's models import."""
EXTRAS: dict[TargetFormat, str] = {"pytorch": "torch", "tensorflow": "tensorflow", "flax": "flax"}
"""The extra of this package that installs it."""
LAST_WORDS = 2000
"""Characters of a crashed worker's stderr that are shown."""


def installed(framework: TargetFormat) -> bool:
    """Say whether a framework can be imported, without importing it."""
    return all(find_spec(package) is not None for package in NEEDS[framework])


class Worker:
    """A process that runs models of one framework.

    Args:
        framework: The framework.
        threads: Threads it may compute with.
    """

    def __init__(self, framework: TargetFormat, *, threads: int) -> None:
        self.framework = framework
        self._words = tempfile.TemporaryFile()  # noqa: SIM115  # closed in close()
        self._process = subprocess.Popen(  # noqa: S603  # our own module
            [sys.executable, "-P", "-m", "electra_convert.parity.worker", framework],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._words,
            env=os.environ | _environment(threads),
        )
        self._turn = ThreadPoolExecutor(1, thread_name_prefix=framework)

    def submit(self, job: Job) -> Future[Answer]:
        """Have a job done after those submitted before; a worker that dies answers with its last words."""
        return self._turn.submit(self._do, job)

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._turn.shutdown(wait=False, cancel_futures=True)
        self._process.kill()
        self._process.communicate()
        self._turn.shutdown()
        self._words.close()

    def _do(self, job: Job) -> Answer:
        assert self._process.stdin is not None  # noqa: S101  # for the type checker: it is a pipe
        assert self._process.stdout is not None  # noqa: S101
        try:
            self._process.stdin.write(msgspec.json.encode(job, enc_hook=str) + b"\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = b""
        return msgspec.json.decode(line, type=Answer) if line else Answer(error=self._end())

    def _end(self) -> str:
        code = self._process.wait()
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        self._words.seek(0)
        words = self._words.read().decode(errors="replace")[-LAST_WORDS:].strip()
        return f"the {self.framework} process ended with {how}" + (f":\n{words}" if words else "")


@contextmanager
def running(frameworks: Sequence[TargetFormat]) -> Iterator[Mapping[TargetFormat, Worker]]:
    """Yield a worker for each framework; all are ended when the block is."""
    threads = os.cpu_count() or 1
    workers: dict[TargetFormat, Worker] = {}
    try:
        for framework in frameworks:
            workers[framework] = Worker(framework, threads=threads)
        yield workers
    finally:
        for worker in workers.values():
            worker.close()


def _environment(threads: int) -> dict[str, str]:
    """Return what makes a framework quiet, keep to the CPU, and compute in the precision it is asked for."""
    one = "true" if threads > 1 else "false"
    return {
        "CUDA_VISIBLE_DEVICES": "",
        "JAX_PLATFORMS": "cpu",
        "KERAS_BACKEND": "tensorflow",
        "OMP_NUM_THREADS": str(threads),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TF_ENABLE_ONEDNN_OPTS": "0",
        "TF_NUM_INTEROP_THREADS": "1",
        "TF_NUM_INTRAOP_THREADS": str(threads),
        "XLA_FLAGS": f"--xla_cpu_multi_thread_eigen={one} intra_op_parallelism_threads={threads}",
    }
