"""Processes that run models, one for each framework: apart in memory and in what kills them, side by side in time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from importlib.util import find_spec

import msgspec

from electra_convert.child import Child
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
        self._child = Child("electra_convert.parity.worker", framework, environment=environment(threads))
        self._turn = ThreadPoolExecutor(1, thread_name_prefix=framework)

    @property
    def alive(self) -> bool:
        """Say whether it can do jobs."""
        return self._child.alive

    def submit(self, job: Job) -> Future[Answer]:
        """Have a job done after those submitted before; a worker that dies answers with its last words."""
        return self._turn.submit(self._do, job)

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._turn.shutdown(wait=False, cancel_futures=True)
        self._child.end()
        self._turn.shutdown()
        self._child.close()

    def _do(self, job: Job) -> Answer:
        self._child.send(msgspec.json.encode(job, enc_hook=str))
        line = self._child.receive()
        if line:
            return msgspec.json.decode(line, type=Answer)
        return Answer(error=f"the {self.framework} process {self._child.last_words()}")


Lend = Callable[[Sequence[TargetFormat]], AbstractContextManager[Mapping[TargetFormat, Worker]]]
"""Gives workers for some frameworks."""


class Pool:
    """Workers that several verifications use, one after the other: a framework is loaded once.

    Args:
        threads: Threads that each may compute with; by default as many as there are cores.
    """

    def __init__(self, threads: int | None = None) -> None:
        self.threads = threads or os.cpu_count() or 1
        self._workers: dict[TargetFormat, Worker] = {}

    @contextmanager
    def lend(self, frameworks: Sequence[TargetFormat]) -> Iterator[Mapping[TargetFormat, Worker]]:
        """Yield a worker for each framework; after an error all are ended, for they may be busy with what failed."""
        try:
            yield {framework: self._worker(framework) for framework in frameworks}
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End all workers."""
        while self._workers:
            self._workers.popitem()[1].close()

    def _worker(self, framework: TargetFormat) -> Worker:
        worker = self._workers.get(framework)
        if worker is not None and not worker.alive:
            worker.close()
        if worker is None or not worker.alive:
            self._workers[framework] = Worker(framework, threads=self.threads)
        return self._workers[framework]


@contextmanager
def running(frameworks: Sequence[TargetFormat]) -> Iterator[Mapping[TargetFormat, Worker]]:
    """Yield a worker for each framework; all are ended when the block is."""
    with closing(Pool()) as pool, pool.lend(frameworks) as workers:
        yield workers


def environment(threads: int) -> dict[str, str]:
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
