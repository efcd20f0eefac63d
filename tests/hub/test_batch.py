"""Batches that publish, in processes of their own: killed at any moment, and with jobs that fail."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.hub.server import HubServer, Phase
from tests.hub.state import MAIN, Repo

FIXTURE = "electra_tiny_noproj"
"""A small checkpoint."""
ROUNDS, KILLS = 5, 4
"""Times a batch begins anew, and times it is killed before it may end: 20 kills in all."""
MOST_EVENTS = 100
"""The most a run gets to do before it is killed, in steps of requests; all of a batch is some 400."""


def batch(
    plan: Path, environment: dict[str, str], *options: str, within: tuple[str, ...] = ()
) -> subprocess.Popen[str]:
    """Begin a batch."""
    return subprocess.Popen(
        [*within, sys.executable, "-m", "electra_convert", "batch", str(plan), *options],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def copies(fixtures: Path, folder: Path, count: int) -> list[str]:
    """Make copies of a checkpoint under names of their own."""
    names = [f"run-{number:02d}" for number in range(count)]
    for name in names:
        shutil.copytree(fixtures / FIXTURE, folder / name)
    return names


def wait_for_workers(plan: Path) -> None:
    """Wait until no process of a batch is left."""
    deadline = time.monotonic() + 20
    while any(str(plan) in _command(process) for process in Path("/proc").glob("[0-9]*")):
        assert time.monotonic() < deadline, "a worker outlives its batch"
        time.sleep(0.02)


def _command(process: Path) -> str:
    try:
        return (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:  # it has ended
        return ""


class Killer:
    """Kills a batch in the middle of a request: when the Hub has seen so many steps of requests."""

    def __init__(self, process: subprocess.Popen[str], after: int) -> None:
        self.process, self.left = process, after
        self.at: tuple[str, str, Phase] | None = None

    def __call__(self, method: str, path: str, phase: Phase) -> None:
        """Count a step."""
        self.left -= 1
        if self.left == 0:
            self.process.send_signal(signal.SIGKILL)
            self.at = method, path, phase


def publishing(names: list[str]) -> dict[str, Any]:
    """Return a plan that publishes each checkpoint: a third to the main branch, to a branch, as a pull request."""
    ways: tuple[dict[str, Any], ...] = ({}, {"revision": "step-{step}"}, {"create_pr": True})
    return {
        "version": 1,
        "defaults": {
            "part": "discriminator",
            "targets": ["pytorch"],
            "verify": False,
            "upload": {"repo_id": "org/{name}", "allow_unverified": True},
        },
        "jobs": [
            {"source": f"{name}/model.ckpt-*", "upload": dict(ways[number % len(ways)])}
            for number, name in enumerate(names)
        ],
    }


def is_as_published_once(repo: Repo, number: int, directory: Path) -> bool:
    """Say whether a repository holds a model once, where its job was to publish it, and nothing else was done."""
    published = [repo.branches[MAIN], repo.branches.get("step-30", []), []][number % 3]
    requests = repo.pull_requests
    if number % 3 == 2:
        assert len(requests) == 1, f"{repo.id} has {len(requests)} pull requests"
        published = requests[0].commits
    assert [len(repo.branches[MAIN]), len(requests)] == [2 if number % 3 == 0 else 1, number % 3 == 2]
    assert len(published) == 2, f"{repo.id} has {len(published) - 1} commits"
    files = {name: blob.content for name, blob in published[-1].files.items()}
    return set(files) == {".gitattributes", "README.md", *(path.name for path in directory.iterdir())} and all(
        files[path.name] == path.read_bytes() for path in directory.iterdir()
    )


def test_killed_at_any_moment(hub: HubServer, fixtures: Path, tmp_path: Path) -> None:
    """A batch that is killed again and again in mid-request ends as one that was not: each model there, once, whole."""
    names = copies(fixtures, tmp_path, 12)
    plan = tmp_path / "plan.yaml"
    plan.write_text(yaml.safe_dump(publishing(names)))
    chance = random.Random(20_261_124)  # noqa: S311  # the same moments in every run, as far as requests come alike
    moments = []
    for _ in range(ROUNDS):
        hub.repos.clear()
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        plan.with_name("plan.yaml.state.jsonl").unlink(missing_ok=True)
        for _ in range(KILLS):
            process = batch(plan, hub.environment, "--jobs", "2")
            hub.on_request = killer = Killer(process, chance.randint(1, MOST_EVENTS))
            process.communicate(timeout=60)
            hub.on_request = None
            assert process.returncode == -signal.SIGKILL, "it was to be killed in mid-work"
            assert killer.at is not None
            moments.append(killer.at)
            wait_for_workers(plan)
        last = batch(plan, hub.environment, "--jobs", "2", "--json")
        said, told = last.communicate(timeout=120)
        assert last.returncode == 0, told
        assert {job["outcome"] for job in json.loads(said)["jobs"]} <= {"done", "already done"}
        for number, name in enumerate(names):
            directory = tmp_path / "out" / name / "30" / "pretraining"
            assert is_as_published_once(hub.repos[f"org/{name}"], number, directory), name
        assert not list(tmp_path.rglob("*.partial"))
    assert len(moments) == ROUNDS * KILLS == 20
    requests = len(hub.requests)
    idle = batch(plan, hub.environment, "--json")
    assert {job["outcome"] for job in json.loads(idle.communicate(timeout=60)[0])["jobs"]} == {"already done"}
    assert len(hub.requests) == requests


@pytest.mark.parametrize("moment", ["begin", "body", "done"])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_killed_while_it_commits(hub: HubServer, fixtures: Path, tmp_path: Path, number: int, moment: Phase) -> None:
    """Killed before, while, and right after the Hub makes the commit or pull request, a batch makes it once."""
    names = copies(fixtures, tmp_path, 3)
    plan = tmp_path / "plan.yaml"
    plan.write_text(yaml.safe_dump(publishing(names)))
    process = batch(plan, hub.environment, "--only", f"{names[number]}/*")

    def kill(_method: str, path: str, phase: Phase) -> None:
        if "/commit/" in path and phase == moment:
            process.send_signal(signal.SIGKILL)

    hub.on_request = kill
    process.communicate(timeout=60)
    hub.on_request = None
    assert process.returncode == -signal.SIGKILL
    wait_for_workers(plan)
    again = batch(plan, hub.environment, "--only", f"{names[number]}/*")
    _, told = again.communicate(timeout=60)
    assert again.returncode == 0, told
    directory = tmp_path / "out" / names[number] / "30" / "pretraining"
    assert is_as_published_once(hub.repos[f"org/{names[number]}"], number, directory)


def test_three_of_24_jobs_fail(hub: HubServer, fixtures: Path, tmp_path: Path, secret: str) -> None:
    """A broken source, a full disk and a refused upload are named, with what to do; the other 21 jobs are done."""
    names = copies(fixtures, tmp_path, 24)
    broken, full, refused = names[5], names[12], names[19]
    data = tmp_path / broken / "model.ckpt-30.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-1000])
    (tmp_path / "small").mkdir()
    jobs: list[dict[str, Any]] = [{"source": f"{name}/model.ckpt-*"} for name in names]
    jobs[12]["output"] = "small/{name}"
    jobs[19]["upload"] = {"repo_id": "elsewhere/{name}"}
    plan = tmp_path / "plan.yaml"
    defaults = publishing([])["defaults"]
    plan.write_text(yaml.safe_dump({"version": 1, "defaults": defaults, "jobs": jobs}))
    report = tmp_path / "report.json"
    with_small_disk = (
        *("unshare", "--mount", *(() if os.geteuid() == 0 else ("--user", "--map-root-user"))),
        *("sh", "-c", f'mount -t tmpfs -o size=300k none "{tmp_path}/small" && exec "$@"', "sh"),
    )
    options = ("--jobs", "2", "--report", str(report), "--report", str(report.with_suffix(".html")))
    process = batch(plan, hub.environment, *options, within=with_small_disk)
    said, told = process.communicate(timeout=120)
    assert process.returncode == 1, told
    outcomes = {job["id"]: job for job in json.loads(report.read_text())["jobs"]}
    failed = {name: job for name, job in outcomes.items() if job["outcome"] == "failed"}
    assert set(failed) == {f"{name}/30" for name in (broken, full, refused)}
    assert "model.ckpt-30.data-00000-of-00001" in failed[f"{broken}/30"]["error"]
    assert "its disk has" in failed[f"{full}/30"]["error"]
    assert f"does not let you create elsewhere/{refused}" in failed[f"{refused}/30"]["error"]
    assert [failed[f"{name}/30"]["stage"] for name in (broken, full, refused)] == [
        "converting",
        "converting",
        "uploading",
    ]
    for job in failed.values():
        assert f"✗ {job['id']} failed while {job['stage']}" in said
        assert job["error"].splitlines()[0] in said
    assert "24 jobs: 21 done, 3 failed in " in said.splitlines()[-1]
    right = set(names) - {broken, full, refused}
    assert {repo.removeprefix("org/") for repo in hub.repos} == right
    for name in right:
        assert is_as_published_once(hub.repos[f"org/{name}"], 0, tmp_path / "out" / name / "30" / "pretraining")
    written = [said, told, *(path.read_text() for path in tmp_path.glob("*.*") if path.is_file())]
    assert len(written) == 6  # the plan, its state file and the two reports
    assert not [text for text in written if secret in text]
