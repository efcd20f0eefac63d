"""Checkpoints that lie on the Hub, read by its own client, of either generation: `hf://org/name[@revision][/folder]`."""

from __future__ import annotations

import errno
import io
import shutil
import subprocess
import sys
import traceback
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import huggingface_hub.constants
import huggingface_hub.file_download
import pytest

from electra_convert import ConvertOptions, convert_checkpoint, diff_checkpoints, inspect_checkpoint
from electra_convert.batch.jobs import plan_jobs
from electra_convert.errors import (
    CheckpointNotFoundError,
    CorruptCheckpointError,
    DiskSpaceError,
    HubPermissionError,
    OptionError,
    PlanError,
    SourceError,
    UnsupportedCheckpointError,
)
from electra_convert.origin import recall
from electra_convert.remote.copy import copy_directory
from electra_convert.remote.place import open_remote
from electra_convert.source import expand_source, locate
from tests.hub.server import Fault, HubServer
from tests.hub.state import MAIN, Blob, Commit, PullRequest, Repo
from tests.sources import refusal, values_of

TINY = Path(__file__).parents[2] / "fixtures" / "electra_tiny"
PREFIX = "model.ckpt-30"
DATA = f"{PREFIX}.data-00000-of-00001"
INDEX = f"{PREFIX}.index"
SOURCE = "hf://org/electra"


def blobs(folder: str = "", prefix: str = PREFIX) -> dict[str, Blob]:
    """Return the files of a checkpoint as a repository has them, its data as an object."""
    files = {
        path.name.replace(PREFIX, prefix): path.read_bytes() for path in TINY.iterdir() if "expected" not in path.name
    }
    return {f"{folder}{name}": Blob(content, lfs=".data-" in name) for name, content in files.items()}


def commit(repo: Repo, files: dict[str, Blob], branch: str = MAIN) -> None:
    """Make a commit that holds some files and no others."""
    history = repo.branches.setdefault(branch, list(repo.branches[MAIN]))
    history.append(Commit("a checkpoint", "", history[-1].oid, files, author="author"))


@pytest.fixture
def repo(hub: HubServer) -> Repo:
    """A public repository with a checkpoint."""
    hub.repos["org/electra"] = found = Repo("org/electra", private=False)
    commit(found, blobs() | {"README.md": Blob(b"# A checkpoint\n")})
    return found


@pytest.fixture(autouse=True)
def _nothing_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client waits a second before it goes on with a download."""
    monkeypatch.setattr(huggingface_hub.file_download.time, "sleep", lambda _: None)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, hub: HubServer) -> Iterator[None]:
    """From now on, `HF_HUB_OFFLINE` is set, and nothing is asked."""
    hub.requests.clear()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    yield
    assert not hub.requests


def downloaded(hub: HubServer) -> list[str]:
    """Return the names of the files whose content was asked for."""
    return [seen.path.rpartition("/")[2] for seen in hub.requests if seen.method == "GET" and "/resolve/" in seen.path]


def model_blobs(directory: Path) -> dict[str, Blob]:
    """Return the files of a model as a repository has them, its weights as objects."""
    files = (path for path in directory.iterdir() if path.name != "conversion.json")
    return {
        path.name: Blob(path.read_bytes(), lfs=path.suffix in (".safetensors", ".h5", ".msgpack")) for path in files
    }


# What leads to a checkpoint


@pytest.mark.parametrize(
    "name", ["", "/", f"/{PREFIX}", f"/{INDEX}", f"/{DATA}", "/checkpoint", "@main", f"@main/{PREFIX}"]
)
def test_a_checkpoint_on_the_hub_is_found_by_any_of_its_files(repo: Repo, name: str) -> None:
    """As here: its directory, its prefix, each of its files; it is called as the repository is."""
    assert repo
    assert values_of(SOURCE + name) == values_of(TINY)
    with locate(SOURCE + name) as location:
        assert (location.prefix.name, location.name) == (PREFIX, "electra")
        assert location.vocabulary is not None
        assert location.vocabulary.read_bytes() == (TINY / "vocab.txt").read_bytes()


@pytest.mark.parametrize("revision", ["step-9", "runs%2Fa", "refs/pr/1", "refs%2Fpr%2F1", "commit"])
def test_a_revision_is_read(repo: Repo, revision: str) -> None:
    """A branch, whatever is in its name, a pull request, a commit."""
    commit(repo, blobs(), "step-9")
    commit(repo, blobs(), "runs/a")
    repo.pull_requests.append(PullRequest(1, "", "", "author", MAIN, repo.branches["step-9"]))
    revision = revision.replace("commit", repo.branches["step-9"][-1].oid)
    commit(repo, {"README.md": Blob(b"")})
    assert values_of(f"{SOURCE}@{revision}") == values_of(f"{SOURCE}@{revision}/{PREFIX}") == values_of(TINY)
    refusal(SOURCE, CheckpointNotFoundError)


def test_a_folder_of_a_repository_is_read(repo: Repo) -> None:
    """It is named where nothing above it is a checkpoint; the vocabulary may be where Google's code keeps it."""
    files = blobs("data/models/small/")
    del files["data/models/small/vocab.txt"]
    commit(repo, {**files, "data/vocab.txt": Blob(b"[PAD]\n")})
    with locate(f"{SOURCE}/data/models/small") as location:
        assert location.name == "small"
        assert location.vocabulary is not None
        assert location.vocabulary.read_bytes() == b"[PAD]\n"
    message = refusal(f"{SOURCE}/data/models", CheckpointNotFoundError)
    assert f"there is no checkpoint in {SOURCE}/data/models" in message
    assert f"give a directory that holds one: {SOURCE}/data/models/small" in message


def test_an_archive_on_the_hub_is_unpacked(repo: Repo) -> None:
    """It is called as it is."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for path in TINY.iterdir():
            archive.write(path, f"electra_tiny/{path.name}")
    commit(repo, {"small.zip": Blob(content.getvalue(), lfs=True)})
    assert values_of(f"{SOURCE}/small.zip") == values_of(TINY)
    with locate(f"{SOURCE}/small.zip") as location:
        assert location.name == "small"


def test_only_what_is_needed_is_downloaded_and_only_once(repo: Repo, hub: HubServer) -> None:
    """To inspect it, no data; then the data of one step; then nothing, for the cache of the client has it."""
    commit(repo, {**blobs(), **blobs(prefix="model.ckpt-9"), "pytorch_model.bin": Blob(b"", lfs=True)})
    assert inspect_checkpoint(SOURCE) == inspect_checkpoint(TINY)
    assert sorted(downloaded(hub)) == ["checkpoint", INDEX, "vocab.txt"]
    hub.requests.clear()
    assert values_of(SOURCE) == values_of(TINY)
    assert downloaded(hub) == [DATA]
    hub.requests.clear()
    assert values_of(SOURCE) == values_of(TINY)
    assert [seen.path.partition("?")[0] for seen in hub.requests] == ["/api/models/org/electra/revision/main"]


def test_what_is_in_the_cache_of_the_client_is_used(repo: Repo, hub: HubServer) -> None:
    """Whoever put it there."""
    huggingface_hub.HfApi(endpoint=hub.url).snapshot_download(repo.id)
    hub.requests.clear()
    assert values_of(SOURCE) == values_of(TINY)
    assert not downloaded(hub)


@pytest.mark.parametrize("name", ["../evil.index", "a/../../evil.index", "x" * 300 + ".index"])
def test_names_that_cannot_be_those_of_files_are_ignored(repo: Repo, tmp_path: Path, name: str) -> None:
    """Nothing is written elsewhere, whatever a repository holds."""
    commit(repo, {name: Blob(b"")})
    refusal(SOURCE, CheckpointNotFoundError)
    assert not list(tmp_path.rglob("*evil*"))


# What goes wrong


def test_a_repository_that_is_not_there_is_told(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or one that is not shown: the Hub does not tell which, with a token and without."""
    hub.repos["other/secret"] = Repo("other/secret", private=True)
    for token in ("", "HF_TOKEN"):
        monkeypatch.delenv(token, raising=False)
        for name in ("org/none", "other/secret"):
            message = refusal(f"hf://{name}")
            assert f"the Hub does not know {name}, or does not show it to you" in message
            assert "hf auth login" in message


def test_a_token_that_the_hub_does_not_know_is_told(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what one needs; its letters are told nowhere."""
    assert repo
    monkeypatch.setenv("HF_TOKEN", "hf_unknown")
    message = refusal(SOURCE)
    assert "the Hub knows no such token" in message
    assert "read access to the contents of the repositories of org" in message
    assert "hf_unknown" not in message


def test_a_token_that_can_be_none_is_told(repo: Repo, hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the client puts it into a header, and then into its error."""
    assert repo
    monkeypatch.setenv("HF_TOKEN", "hf_mis typed")
    assert "has characters that no token has" in refusal(SOURCE, HubPermissionError)
    assert not hub.requests


def test_a_gated_repository_is_told(repo: Repo) -> None:
    """With who can open it."""
    repo.gated = True
    message = refusal(SOURCE)
    assert "org/electra is gated" in message
    assert "ask for access on its page" in message


def test_a_revision_that_is_not_there_is_told(repo: Repo) -> None:
    """And a folder, by what is there of its name."""
    assert repo
    assert "org/electra has no revision 'step-9'" in refusal(f"{SOURCE}@step-9")
    assert f"there is nothing at {SOURCE}/run" in refusal(f"{SOURCE}/run", CheckpointNotFoundError)


def test_what_is_there_instead_of_a_checkpoint_is_told(repo: Repo) -> None:
    """A model that is not read, or whatever it is."""
    commit(repo, {"saved_model.pb": Blob(b"", lfs=True)})
    assert f"{SOURCE} holds saved_model.pb, which is not read" in refusal(SOURCE, UnsupportedCheckpointError)
    commit(repo, {"README.md": Blob(b""), "run/vocab.txt": Blob(b"")})
    message = refusal(SOURCE, CheckpointNotFoundError)
    assert f"there is no checkpoint in {SOURCE}\n  - README.md is there\n  - run is there\n" in message


@pytest.mark.parametrize("path", ["/api/models/", f"resolve/.*{DATA}"])
def test_a_hub_that_fails_is_told(repo: Repo, hub: HubServer, secret: str, path: str) -> None:
    """In one message, without the token in it or in a traceback; the next run goes on."""
    assert repo
    hub.faults += [Fault(method, path, "status", status=500, times=99) for method in ("GET", "HEAD")]
    with pytest.raises(SourceError) as error:
        values_of(SOURCE)
    assert "the Hub fails to read org/electra" in str(error.value)
    assert "run it again" in error.value.hint
    assert secret not in "".join(traceback.format_exception(error.value))
    hub.faults.clear()
    assert values_of(SOURCE) == values_of(TINY)


def test_a_download_that_is_cut_is_gone_on_with(repo: Repo, hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the client, at once or in the next run; nothing that is not whole is ever taken for the file."""
    assert repo
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 1024)
    fault = Fault("GET", f"resolve/.*{DATA}", "cut_answer")
    hub.faults.append(fault)
    try:
        found = values_of(SOURCE)
    except SourceError:  # clients before version 1 do not try again
        found = values_of(SOURCE)
    assert fault.met == 1
    assert found == values_of(TINY)
    first, second = (seen.range for seen in hub.requests if seen.method == "GET" and seen.path.endswith(DATA))
    assert (first, second) == (None, f"bytes={(TINY / DATA).stat().st_size // 2 // 1024 * 1024}-")


def test_all_files_are_of_one_commit(repo: Repo, hub: HubServer) -> None:
    """A branch that moves meanwhile is told, for its data may belong to another index."""

    def move(method: str, path: str, phase: str) -> None:
        if (method, phase) == ("HEAD", "begin") and path.endswith(DATA) and len(repo.branches[MAIN]) == 2:
            commit(repo, blobs())

    hub.on_request = move
    assert "org/electra changed while it was read" in refusal(SOURCE, CorruptCheckpointError)
    assert values_of(SOURCE) == values_of(TINY)


def test_the_disk_must_have_room(repo: Repo, hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the cache of the client, before the data is downloaded."""
    assert repo
    size = (TINY / DATA).stat().st_size
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, size - 1))
    assert "HF_HUB_CACHE" in refusal(SOURCE, DiskSpaceError)
    assert DATA not in downloaded(hub)


def test_a_disk_that_fills_is_told(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever took the room meanwhile."""
    assert repo
    monkeypatch.setattr(huggingface_hub.HfApi, "hf_hub_download", Mock(side_effect=OSError(errno.ENOSPC, "full")))
    message = refusal(SOURCE, DiskSpaceError)
    assert "org/electra does not fit into the cache of the Hub's client" in message
    assert "HF_HUB_CACHE" in message


# Offline


def test_offline_the_cache_of_the_client_is_enough(repo: Repo, request: pytest.FixtureRequest) -> None:
    """What was read once is read again, by its branch or its commit, and nothing is asked."""
    values_of(SOURCE)
    request.getfixturevalue("offline")
    for name in ("", f"/{PREFIX}", f"@{repo.branches[MAIN][-1].oid}"):
        assert values_of(SOURCE + name) == values_of(TINY)
    assert inspect_checkpoint(SOURCE) == inspect_checkpoint(TINY)


def test_offline_other_files_need_not_be_there(repo: Repo, hub: HubServer, request: pytest.FixtureRequest) -> None:
    """What another program left incomplete in the cache may be all of a checkpoint."""
    api = huggingface_hub.HfApi(endpoint=hub.url)
    api.snapshot_download(repo.id, allow_patterns=["model.ckpt-30.*", "checkpoint"])
    request.getfixturevalue("offline")
    assert values_of(SOURCE) == values_of(TINY)


def test_offline_what_is_not_in_the_cache_is_told(repo: Repo, request: pytest.FixtureRequest) -> None:
    """No repository, no such branch, or not all of a checkpoint: that more of it may be there is told too."""
    inspect_checkpoint(SOURCE)
    request.getfixturevalue("offline")
    assert repo
    for name, what in (("hf://org/none", "org/none"), (f"{SOURCE}@step-9", "org/electra at step-9")):
        message = refusal(name)
        assert f"{what} is not in the cache of the Hub's client" in message
        assert "unset HF_HUB_OFFLINE" in message
    message = refusal(SOURCE, CorruptCheckpointError)
    assert "data files are missing" in message
    assert "HF_HUB_OFFLINE is set: only files in the cache of the Hub's client are seen" in message


# Where such sources go


def test_verification_finds_the_source_again(repo: Repo, tmp_path: Path) -> None:
    """The note names it; the model is what a source here gives."""
    assert repo
    options = ConvertOptions(part="discriminator", heads=("base",), targets=("pytorch",))
    report = convert_checkpoint(SOURCE, tmp_path / "out", options)
    convert_checkpoint(TINY, tmp_path / "here", options)
    origin = recall(tmp_path / "out" / "base", report.identity)
    assert origin is not None
    assert origin.source == SOURCE
    for path in (tmp_path / "out" / "base").iterdir():
        assert path.read_bytes() == (tmp_path / "here" / "base" / path.name).read_bytes()


def test_a_plan_takes_them(repo: Repo, hub: HubServer, tmp_path: Path) -> None:
    """A job is called as the repository, or its folder, and the step; no data is downloaded to plan it."""
    hub.repos["org/electra-1000"] = numbered = Repo("org/electra-1000", private=False)
    commit(numbered, blobs())
    commit(repo, blobs("run/"))
    plan = tmp_path / "plan.yaml"
    sources = (f"hf://org/electra/run/{PREFIX}", "hf://org/electra-1000@main", "hf://org/none")
    plan.write_text("version: 1\njobs:\n" + "".join(f"- {{source: '{source}', part: both}}\n" for source in sources))
    jobs = plan_jobs(plan)
    assert [(job.id, job.source) for job in jobs[:2]] == [("run/30", sources[0]), ("electra-1000/30", sources[1])]
    assert "the Hub does not know org/none" in jobs[2].fault
    assert DATA not in downloaded(hub)
    plan.write_text(f"version: 1\njobs: [{{source: '{SOURCE}/model.ckpt-*', output: 'hf://org/out'}}]\n")
    with pytest.raises(PlanError) as error:
        plan_jobs(plan)
    assert f"{SOURCE}/model.ckpt-* is a pattern, which matches nothing on the Hub" in str(error.value)
    assert "the output hf://org/out cannot be written to" in str(error.value)


def test_a_batch_converts_them_and_knows_them_again(repo: Repo, hub: HubServer, tmp_path: Path) -> None:
    """In processes of their own; what is unchanged is asked for, and not downloaded again."""
    assert repo
    plan = tmp_path / "plan.yaml"
    job = f"{{source: '{SOURCE}', part: discriminator, targets: [pytorch], verify: false}}"
    plan.write_text(f"version: 1\njobs: [{job}]\n")
    command = [sys.executable, "-m", "electra_convert", "batch", str(plan)]
    for done in ("1 done", "1 already done"):
        run = subprocess.run(command, env=hub.environment, capture_output=True, text=True, check=False)
        assert done in run.stdout, run.stdout + run.stderr
    assert (tmp_path / "out" / "electra" / "30" / "pretraining" / "model.safetensors").is_file()
    assert downloaded(hub).count(DATA) == 1


def test_patterns_and_copies_are_refused(tmp_path: Path) -> None:
    """What is asked for cannot be: a pattern needs a place that lists, and a copy one that takes files."""
    with pytest.raises(OptionError, match="matches nothing on the Hub"):
        expand_source(f"{SOURCE}/*")
    assert expand_source(SOURCE) == [SOURCE]
    with pytest.raises(OptionError, match=r"hf://org/electra cannot be written to[^$]*uploads"):
        copy_directory(tmp_path, SOURCE)


@pytest.mark.parametrize("url", ["hf://", "hf://electra", "hf:///electra", "hf://org/", "hf://org/a..b", "hf://or g/a"])
def test_an_address_that_can_be_none_is_told(url: str) -> None:
    """Before anything is asked."""
    with pytest.raises(OptionError, match="OWNER/"):
        open_remote(url)


# Models


@pytest.mark.parametrize("layout", ["single", "shared"])
def test_a_model_on_the_hub_is_converted(
    repo: Repo, hub: HubServer, converted: Callable[..., Path], tmp_path: Path, layout: Any
) -> None:
    """Its config, its tokenizer and the weights that are read first, shards too; nothing else is downloaded."""
    model = converted("electra_tiny", "discriminator", layout=layout, heads=("native",)) / "pretraining"
    commit(repo, model_blobs(model) | {"README.md": Blob(b"# A model")})
    convert_checkpoint(SOURCE, tmp_path / "out", ConvertOptions(heads=("native",)))
    assert diff_checkpoints(model, tmp_path / "out" / "pretraining").equal
    asked = set(downloaded(hub))
    assert {name for name in asked if name.endswith((".h5", ".msgpack"))} == set()
    assert "README.md" not in asked
    assert {"config.json", "vocab.txt", "tokenizer.json"} <= asked


def test_a_file_of_a_model_on_the_hub_names_its_format(
    repo: Repo, converted: Callable[..., Path], tmp_path: Path
) -> None:
    """Only that is downloaded."""
    model = converted("electra_tiny", "generator", heads=("native",)) / "masked_lm"
    commit(repo, model_blobs(model))
    report = convert_checkpoint(f"{SOURCE}/tf_model.h5", tmp_path / "out", ConvertOptions(heads=("native",)))
    assert report.topology == "ElectraForMaskedLM, a model of TensorFlow"
    assert diff_checkpoints(model, tmp_path / "out" / "masked_lm").equal
    assert inspect_checkpoint(SOURCE).topology == "ElectraForMaskedLM, a model of PyTorch"


def test_a_repository_with_a_config_alone_is_told(repo: Repo) -> None:
    """There are no weights, of any kind."""
    commit(repo, {"config.json": Blob(b'{"architectures": ["ElectraModel"]}')})
    with pytest.raises(CheckpointNotFoundError, match="there are no weights in"):
        inspect_checkpoint(SOURCE)
