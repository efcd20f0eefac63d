"""The state file: what is finished stays noted, whoever adds to it and whatever kills whom."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from msgspec.structs import replace

from electra_convert import BatchOptions, run_batch
from electra_convert.batch.jobs import Job
from electra_convert.batch.state import Finished, StateFile
from electra_convert.errors import OutputError
from electra_convert.hub.publication import UploadOptions
from electra_convert.options import ConvertOptions

EACH = 60
"""Jobs that each of several processes adds."""
ADDING = """
import sys
from pathlib import Path
from electra_convert.batch.state import Finished, StateFile

_, path, name, count = sys.argv
print("ready", flush=True)
input()
for number in range(int(count)):
    StateFile(Path(path)).add(Finished(key=f"{name}-{number}", job="x" * number * 50, outputs=(), places=()))
"""
JOB = Job(
    id="ko/30",
    name="ko",
    step=30,
    source="ko",
    place="out",
    output="out",
    convert=ConvertOptions(),
    proof=None,
    upload=None,
)


def finished(key: str, *outputs: Path | str) -> Finished:
    """Return a finished job."""
    return Finished(key=key, job=f"job {key}", outputs=tuple(map(str, outputs)), places=(f"org/{key} (1a2b)",))


def adding(state: StateFile, name: str) -> subprocess.Popen[str]:
    """Begin a process that adds many jobs when it is told to."""
    command = [sys.executable, "-c", ADDING, str(state.path), name, str(EACH)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def state(tmp_path: Path) -> StateFile:
    """A state file that is not there yet, in a folder that is not either."""
    return StateFile(tmp_path / "folder" / "plan.state.jsonl")


def test_what_is_added_is_read(state: StateFile) -> None:
    """Jobs come back by their keys; of two with one key, the later counts."""
    assert state.read() == {}
    jobs = [finished("a", "out/한국어"), finished("b"), replace(finished("a"), places=("org/a (ffff)",))]
    for job in jobs:
        state.add(job)
    assert StateFile(state.path).read() == {"a": jobs[2], "b": jobs[1]}


@pytest.mark.parametrize("left", [1, 20, -2])
def test_a_line_that_broke_off_is_no_job(state: StateFile, left: int) -> None:
    """The last words of a killed run are ignored, and give way to what is added after them."""
    state.add(finished("a"))
    whole = state.path.read_bytes()
    state.path.write_bytes(whole + whole.replace(b"a", b"c")[:left])
    assert set(state.read()) == {"a"}
    state.add(finished("b"))
    assert set(state.read()) == {"a", "b"}
    state.add(finished("c"))
    assert set(state.read()) == {"a", "b", "c"}
    assert state.path.read_bytes().startswith(whole + b'{"key":"b"')


def test_a_line_without_its_end_is_a_job(state: StateFile) -> None:
    """A line that lacks nothing but its end counts, and keeps apart from the next."""
    state.add(finished("a"))
    state.path.write_bytes(state.path.read_bytes().rstrip(b"\n"))
    state.add(finished("b"))
    assert set(state.read()) == {"a", "b"}


@pytest.mark.parametrize("end", [b"", b"\n"])
@pytest.mark.parametrize(
    "line",
    [
        b"[1, 2]",
        b'{"key": 3}',
        b"\xff\xfe",
        b'{"key": "\xff"}',
        b'{"key": "z"}',
        b"a: 1",
        pytest.param(b'{"a":' + b"[" * 9999, id="nested"),
    ],
)
def test_a_file_of_something_else_is_no_state_file(state: StateFile, line: bytes, end: bytes) -> None:
    """Other JSON, a field of another type, bytes that are no text: told with the line, and nothing is added to it."""
    state.add(finished("a"))
    state.path.write_bytes(state.path.read_bytes() + line + end)
    with pytest.raises(OutputError, match=f"line 2 of {state.path} is no line of a state file") as caught:
        state.check()
    assert caught.value.hint == "if this is a state file, remove that line; if not, choose another with --state"


@pytest.mark.parametrize("line", [b'{"key":"a"', b""])
def test_a_line_that_broke_off_in_the_middle_is_damage(state: StateFile, line: bytes) -> None:
    """Only the last line can be a killed run's last words."""
    state.path.parent.mkdir()
    state.path.write_bytes(line + b"\n")
    with pytest.raises(OutputError, match="line 1 of"):
        state.read()


def test_the_plan_is_no_state_file(
    tmp_path: Path, checkpoint: Callable[..., Path], write_plan: Callable[..., Path]
) -> None:
    """It is refused by whichever path it is named, and stays as it was."""
    checkpoint("ko")
    plan, link = write_plan("ko"), tmp_path / "link"
    content = plan.read_bytes()
    link.symlink_to(plan)
    for dry_run in (True, False):
        with pytest.raises(OutputError, match=f"the state file {link} is the plan itself"):
            run_batch(plan, BatchOptions(state=link), dry_run=dry_run)
    assert plan.read_bytes() == content


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_never_ends_is_no_state_file(tmp_path: Path, kind: str) -> None:
    """A pipe that nobody writes to does not keep it waiting, nor does a device fill the memory."""
    path = tmp_path / "state.jsonl"
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
    with pytest.raises(OutputError, match="cannot be read: it is a pipe, a socket or a device, not a file"):
        StateFile(path).check()


def test_processes_that_add_at_once_lose_nothing(state: StateFile) -> None:
    """Several batches may share a state file: every job of each is in it."""
    names = ["a", "b"]
    with ExitStack() as stack:
        started = [stack.enter_context(adding(state, name)) for name in names]
        assert [process.stdout and process.stdout.readline() for process in started] == ["ready\n"] * 2
        for process in started:
            assert process.stdin
            process.stdin.write("go\n")
            process.stdin.flush()
        assert [process.wait(60) for process in started] == [0, 0]
    assert set(state.read()) == {f"{name}-{number}" for name in names for number in range(EACH)}
    assert len(state.path.read_bytes().splitlines()) == len(names) * EACH


def test_a_path_that_cannot_be_used_is_one_error(tmp_path: Path) -> None:
    """A directory in its place, a file above it, a folder one may not write to: told, with what to do."""
    (tmp_path / "file").write_text("")
    folder, below = StateFile(tmp_path), StateFile(tmp_path / "file" / "state.jsonl")
    for state, verb in ((folder, "read"), (folder, "written"), (below, "read"), (below, "written")):
        with pytest.raises(OutputError, match=f"the state file {state.path} cannot be {verb}") as caught:
            state.read() if verb == "read" else state.add(finished("a"))
        assert caught.value.hint == "choose another with --state"


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    """A job that cannot be noted is told as one error."""
    state = StateFile(tmp_path / "state.jsonl")
    state.path.symlink_to("/dev/full")
    with pytest.raises(OutputError, match="cannot be written: No space left on device"):
        state.add(finished("a"))


def test_what_is_gone_is_not_held(tmp_path: Path) -> None:
    """A job whose directories are all there need not be done again; one of whose is gone must be."""
    here, gone = tmp_path / "here", tmp_path / "gone"
    here.mkdir()
    assert finished("a", here).holds(JOB)
    assert not finished("a", here, gone).holds(JOB)
    assert not finished("a", tmp_path / "plan.yaml").holds(JOB)


def test_what_went_elsewhere_is_held(tmp_path: Path) -> None:
    """What was published, or copied to a URL, is not asked for here."""
    gone = finished("a", tmp_path / "gone")
    assert gone.holds(replace(JOB, upload=UploadOptions(repo="org/ko")))
    assert gone.holds(replace(JOB, output="gs://bucket/ko"))
