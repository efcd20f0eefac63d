"""Sources and targets elsewhere: what a URL names is downloaded once and whole, or copied there."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from electra_convert import ConvertOptions, convert_checkpoint, inspect_checkpoint
from electra_convert.batch.jobs import plan_jobs
from electra_convert.cli import main
from electra_convert.errors import (
    CheckpointNotFoundError,
    CorruptCheckpointError,
    DiskSpaceError,
    ElectraConvertError,
    OptionError,
    OutputError,
    OutputExistsError,
    SourceError,
    UnsupportedCheckpointError,
)
from electra_convert.origin import NOTE_FILE, recall
from electra_convert.remote import cache, copy, place, released
from electra_convert.remote.copy import copy_directory
from electra_convert.remote.place import is_url, open_remote, shown
from electra_convert.source import expand_source, locate, step_of
from tests.sources import refusal, values_of

FIXTURES = Path(__file__).parents[1] / "fixtures"
TINY = FIXTURES / "electra_tiny"
SHARDED = FIXTURES / "electra_tiny_sharded"
PREFIX = "model.ckpt-30"
DATA = f"{PREFIX}.data-00000-of-00001"
SECRET = "hunter2"  # noqa: S105  # what must be told nowhere


# A web server


@dataclass
class Fault:
    """What goes wrong with the content of a file.

    Args:
        status: What is answered instead.
        after: Bytes after which the connection is cut.
        stall: Do not cut it there, but send no more until the server is released.
    """

    status: int = 0
    after: int = 0
    stall: bool = False


@dataclass
class Web:
    """A web server on loopback, and what it was asked."""

    files: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, Fault] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    ranges: bool = True
    etags: bool = True
    listed: bool = True
    port: int = 0
    stalled: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)

    def url(self, path: str = "") -> str:
        """Return the URL of a path."""
        return f"http://127.0.0.1:{self.port}/{path}"

    def gets(self, path: str) -> list[str | None]:
        """Return the ranges that were asked for of a file's content."""
        return [asked for method, at, asked in self.requests if (method, at) == ("GET", path)]

    def serve(self, folder: Path, at: str) -> None:
        """Serve the files of a folder."""
        self.files |= {f"{at}/{path.name}": path.read_bytes() for path in folder.iterdir()}


class Handler(BaseHTTPRequestHandler):
    """Answers as `Web` says."""

    protocol_version = "HTTP/1.1"
    web: Web

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class's name
        """Print nothing."""

    def do_HEAD(self) -> None:
        """Answer without the content."""
        self._answer(b"")

    def do_GET(self) -> None:
        """Answer with the content."""
        self._answer(None)

    def _answer(self, body: bytes | None) -> None:
        path = self.path.partition("?")[0].lstrip("/")
        asked = self.headers["Range"]
        self.web.requests.append((self.command, path, asked))
        fault = self.web.faults.get(path, Fault())
        content = self._content(path)
        if content is None or fault.status:
            is_folder = self._content(f"{path}/") is not None
            self.send_response(fault.status or (301 if is_folder else 404))
            self.send_header("Location", f"/{path}/")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
        begin = 0
        if asked and self.web.ranges and self.headers["If-Range"] in (None, etag):
            begin = int(asked.removeprefix("bytes=").split("-")[0])
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(content) - begin))
        self.send_header("Content-Type", "text/html" if path.endswith("/") else "application/octet-stream")
        if self.web.etags:
            self.send_header("ETag", etag)
        for name, value in self.web.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if body is None:
            self._send(content[begin:], fault)

    def _send(self, content: bytes, fault: Fault) -> None:
        if not fault.after:
            self.wfile.write(content)
            return
        self.wfile.write(content[: fault.after])
        self.close_connection = True
        if fault.stall:
            self.web.stalled.set()
            self.web.release.wait(60)
            with suppress(ConnectionError):  # the client may be gone
                self.wfile.write(content[fault.after :])

    def _content(self, path: str) -> bytes | None:
        if path in self.web.files:
            return self.web.files[path]
        names = [name for name in self.web.files if name.startswith(path)] if path.endswith("/") else []
        if not names or not self.web.listed:
            return None
        links = sorted({re.sub(r"/.*", "/", name.removeprefix(path)) for name in names})
        return "".join(f'<a href="{link}">{link}</a>' for link in ["?C=N;O=D", "../", *links]).encode()


@pytest.fixture
def web() -> Iterator[Web]:
    """A web server."""
    state = Web()

    class Bound(Handler):
        web = state

    server = ThreadingHTTPServer(("127.0.0.1", 0), Bound)
    server.daemon_threads = True
    state.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield state
    state.release.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> int:
    """Downloads are synced, and resumed, after so few bytes that a tiny checkpoint has many; waits are short."""
    monkeypatch.setattr(cache, "SYNCED", 4096)
    monkeypatch.setattr(place, "CHUNK", 1024)
    monkeypatch.setattr(place, "PATIENCE", 1.5)
    return 4096


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the cache."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("ELECTRA_CONVERT_CACHE", str(folder))
    return folder


@pytest.fixture
def store() -> Iterator[Any]:
    """A store of objects in memory."""
    from fsspec.implementations.memory import MemoryFileSystem

    fs = MemoryFileSystem()
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    yield fs
    MemoryFileSystem.store.clear()


def fill(store: Any, folder: Path, at: str) -> None:
    """Put the files of a folder into a store."""
    for path in folder.iterdir():
        store.pipe_file(f"/{at}/{path.name}", path.read_bytes())


def run_of(store: Any, *steps: int) -> str:
    """Make a training run of a checkpoint at several steps, whose `checkpoint` file names the last; return its URL."""
    for step in steps:
        for path in TINY.glob(f"{PREFIX}.*"):
            store.pipe_file(f"/bucket/run/{path.name.replace(PREFIX, f'model.ckpt-{step}')}", path.read_bytes())
    state = f'model_checkpoint_path: "gs://elsewhere/model.ckpt-{steps[-1]}"\n'
    store.pipe_file("/bucket/run/checkpoint", state.encode())
    return "memory://bucket/run"


def whole_files(kept: Path) -> list[bytes]:
    """Return the content of all files in the cache that look complete."""
    return [path.read_bytes() for path in kept.rglob("*") if path.is_file() and path.suffix != ".partial"]


def zipped(tmp_path: Path) -> bytes:
    """Return a zip of a checkpoint's directory."""
    return Path(shutil.make_archive(str(tmp_path / "packed"), "zip", FIXTURES, "electra_tiny")).read_bytes()


# What leads to a checkpoint


@pytest.mark.parametrize("name", ["", "/", f"/{PREFIX}", f"/{PREFIX}.index", f"/{DATA}", "/checkpoint"])
@pytest.mark.parametrize("kind", ["listed", "unlisted", "memory"])
def test_a_checkpoint_elsewhere_is_found_by_any_of_its_files(web: Web, store: Any, kind: str, name: str) -> None:
    """As here: its directory, its prefix, each of its files; a web server need not list what it has."""
    web.listed = kind == "listed"
    web.serve(TINY, "runs/electra_tiny")
    fill(store, TINY, "runs/electra_tiny")
    source = ("memory://runs/electra_tiny" if kind == "memory" else web.url("runs/electra_tiny")) + name
    assert values_of(source) == values_of(TINY)
    with locate(source) as location:
        assert (location.prefix.name, location.name) == (PREFIX, "electra_tiny")
        assert location.vocabulary is not None
        assert location.vocabulary.read_bytes() == (TINY / "vocab.txt").read_bytes()


def test_a_sharded_checkpoint_is_downloaded_whole(web: Web) -> None:
    """All data files that its index counts, listed or not."""
    web.listed = False
    web.serve(SHARDED, "small")
    state = (SHARDED / "checkpoint").read_text()
    prefix = re.search(r'"(.*?)"', state)
    assert prefix is not None
    assert values_of(web.url(f"small/{prefix[1]}")) == values_of(SHARDED)


@pytest.mark.parametrize("query", ["", "?signature=" + SECRET])
def test_an_archive_elsewhere_is_unpacked(web: Web, tmp_path: Path, query: str) -> None:
    """It has the name of the archive, without what is asked for with it."""
    web.files["models/tiny.zip"] = zipped(tmp_path)
    source = web.url("models/tiny.zip") + query
    assert values_of(source) == values_of(TINY)
    with locate(source) as location:
        assert location.name == "tiny"


@pytest.fixture
def small(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a checkpoint that Google released, and that this server has."""
    web.files["electra-data/electra_small.zip"] = zipped(tmp_path)
    monkeypatch.setitem(released.ADDRESSES, "electra-small", web.url("electra-data/electra_small.zip"))
    return "google://electra-small"


def test_what_google_released_is_read_by_its_name(web: Web, small: str) -> None:
    """Downloaded once, and called as its archive."""
    for _ in range(2):
        assert values_of(small) == values_of(TINY)
    assert len(web.gets("electra-data/electra_small.zip")) == 1
    with locate(f"{small}/") as location:
        assert location.name == "electra_small"
        assert location.vocabulary is not None


def test_a_released_checkpoint_is_gone_on_with(web: Web, small: str, small_blocks: int) -> None:
    """As any download is, however large it is."""
    web.faults["electra-data/electra_small.zip"] = Fault(after=10 * small_blocks + 5, stall=True)
    assert web.url("electra-data/electra_small.zip") in refusal(small)
    web.faults.clear()
    assert values_of(small) == values_of(TINY)
    assert web.gets("electra-data/electra_small.zip") == [None, f"bytes={9 * small_blocks}-"]


@pytest.mark.parametrize("name", ["electra-small", "electra-base", "electra-large"])
def test_all_that_google_released_has_a_name(name: str) -> None:
    """It leads to an archive at an address that cannot be tampered with on the way."""
    remote = open_remote(f"google://{name}")
    assert (remote.scheme, remote.name) == ("https", f"{name.replace('-', '_')}.zip")


@pytest.mark.parametrize("name", ["electra-huge", "electra-*", "", "electra-small/model.ckpt"])
def test_what_google_did_not_release_is_told(name: str) -> None:
    """With all that it did; patterns match none of it."""
    for refused in (open_remote, expand_source):
        with pytest.raises(OptionError, match=rf"{re.escape(repr(name))}\nWhat to do: .*google://electra-small, "):
            refused(f"google://{name}")


def test_a_released_checkpoint_is_found_again(web: Web, small: str, tmp_path: Path, base: ConvertOptions) -> None:
    """By its name, in the note beside what was made of it; in a plan it needs no download to have a name."""
    report = convert_checkpoint(small, tmp_path / "out", base)
    origin = recall(tmp_path / "out" / "base", report.identity)
    assert origin is not None
    assert origin.source == small
    web.requests.clear()
    (tmp_path / "plan.yaml").write_text(f"version: 1\njobs: [{{source: '{small}', part: both}}]\n")
    (job,) = plan_jobs(tmp_path / "plan.yaml")
    assert (job.id, job.source, job.place) == ("electra_small", small, "out/electra_small")
    assert not web.requests


def test_a_file_url_is_a_path(kept: Path) -> None:
    """Nothing is copied for it."""
    with locate(f"file://{TINY}") as location:
        assert location.prefix == TINY / PREFIX
    assert not kept.exists()


def test_names_are_spelt_as_on_a_disk(web: Web) -> None:
    """A web address spells other letters than those of ASCII as numbers."""
    for path in TINY.glob(f"{PREFIX}.*"):
        web.files[f"a%20b/%EC%A0%9C{path.name.removeprefix(PREFIX)}"] = path.read_bytes()
    for source in (web.url("a b"), web.url("a%20b"), web.url("a b/제")):
        with locate(source) as location:
            assert (location.prefix.name, location.name) == ("제", "a b")


def test_the_vocabulary_is_also_where_googles_code_keeps_it(store: Any) -> None:
    """Two folders up, if the one between is called `models`."""
    for path in TINY.glob(f"{PREFIX}.*"):
        store.pipe_file(f"/bucket/data/models/small/{path.name}", path.read_bytes())
    store.pipe_file("/bucket/data/vocab.txt", b"[PAD]\n")
    with locate("memory://bucket/data/models/small") as location:
        assert location.vocabulary is not None
        assert location.vocabulary.read_bytes() == b"[PAD]\n"


def test_a_step_is_chosen(store: Any) -> None:
    """Whatever the `checkpoint` file says."""
    run = run_of(store, 9, 10, 100)
    with locate(run) as location:
        assert location.prefix.name == "model.ckpt-100"
    with locate(run, step=9) as location:
        assert location.prefix.name == "model.ckpt-9"
    with pytest.raises(CheckpointNotFoundError, match=r"memory://bucket/run holds no checkpoint of step 7\n  - model"):
        values_of(run, step=7)


def test_only_what_is_needed_is_downloaded(web: Web, kept: Path) -> None:
    """The data of one step, and no graph; to inspect it, no data at all."""
    for step in (9, 10):
        for path in TINY.glob(f"{PREFIX}.*"):
            web.files[f"run/{path.name.replace(PREFIX, f'model.ckpt-{step}')}"] = path.read_bytes()
    web.files["run/checkpoint"] = b'model_checkpoint_path: "model.ckpt-10"\n'
    expected = msgspec.structs.replace(inspect_checkpoint(TINY), source="model.ckpt-10")
    assert inspect_checkpoint(web.url("run")) == expected
    assert not any("data" in path for method, path, _ in web.requests if method == "GET")
    values_of(web.url("run"))
    read = {path for path in web.files if web.gets(path)}
    assert read == {
        f"run/{name}" for name in ("checkpoint", "model.ckpt-10.index", DATA.replace(PREFIX, "model.ckpt-10"))
    }
    assert (TINY / DATA).read_bytes() in whole_files(kept)


@pytest.mark.parametrize("name", ["../evil.index", "%2e%2e%2fevil.index", "a%00.index", "x" * 300 + ".index"])
def test_names_that_cannot_be_those_of_files_are_ignored(web: Web, tmp_path: Path, name: str) -> None:
    """Nothing is written elsewhere, whatever a server lists."""
    web.files["run/"] = f'<a href="{name}">a</a>'.encode()
    refusal(web.url("run"), CheckpointNotFoundError)
    assert not list(tmp_path.rglob("*evil*"))


# The cache


@pytest.mark.parametrize("name", ["run", f"run/{PREFIX}", "tiny.zip"])
def test_what_is_unchanged_is_not_downloaded_again(web: Web, tmp_path: Path, name: str) -> None:
    """A server is only asked what it has."""
    web.serve(TINY, "run")
    web.files["tiny.zip"] = zipped(tmp_path)
    first = values_of(web.url(name))
    web.requests.clear()
    assert values_of(web.url(name)) == first
    assert web.requests
    assert not [path for path in web.files if web.gets(path)]


def test_what_changed_is_downloaded_again(web: Web, store: Any) -> None:
    """Told by its ETag, or its time, even if it is as long as before."""
    web.serve(TINY, "run")
    fill(store, TINY, "run")
    for url, put in ((web.url("run"), web.files.__setitem__), ("memory://run", store.pipe_file)):
        with locate(url):
            pass
        put("run/vocab.txt", bytes(reversed((TINY / "vocab.txt").read_bytes())))
        with locate(url) as location:
            assert location.vocabulary is not None
            assert location.vocabulary.read_bytes() == bytes(reversed((TINY / "vocab.txt").read_bytes()))


def test_what_would_not_be_known_again_is_not_kept(web: Web, kept: Path) -> None:
    """A server that tells nothing but a size is asked for the content each time."""
    web.etags = False
    web.serve(TINY, "run")
    for _ in range(2):
        assert values_of(web.url(f"run/{PREFIX}")) == values_of(TINY)
    assert len(web.gets(f"run/{DATA}")) == 2
    assert not kept.exists()


def test_the_cache_lies_where_caches_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In the folder that is named, or the user's."""
    assert cache.cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("ELECTRA_CONVERT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.cache_folder() == tmp_path / "xdg" / "electra-convert"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.cache_folder() == tmp_path / ".cache" / "electra-convert"


def test_the_disk_must_have_room(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """For all that is downloaded, before any of it is."""
    web.serve(TINY, "run")
    size = (TINY / DATA).stat().st_size + (TINY / "vocab.txt").stat().st_size
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, size - 1))
    assert "ELECTRA_CONVERT_CACHE" in refusal(web.url("run"), DiskSpaceError)
    assert not web.gets(f"run/{DATA}")


def test_a_cache_that_cannot_be_written_is_told(web: Web, kept: Path) -> None:
    """With where it is, and how to have it elsewhere."""
    kept.write_text("")
    web.serve(TINY, "run")
    assert str(kept) in refusal(web.url("run"), OutputError)


def test_progress_tells_every_byte(web: Web, small_blocks: int) -> None:
    """Also those that were there from before."""
    told: list[tuple[str, int, list[int]]] = []

    def progress(name: str, total: int, /, *, unit: str = "bytes") -> Any:
        assert unit == "bytes"
        told.append((name, total, []))
        return nullcontext(told[-1][2].append)

    web.serve(TINY, "run")
    web.faults[f"run/{DATA}"] = Fault(after=5 * small_blocks, stall=True)
    with pytest.raises(SourceError), locate(web.url("run"), progress=progress):
        pass
    web.faults.clear()
    with locate(web.url("run"), progress=progress):
        pass
    size = (TINY / DATA).stat().st_size
    assert [name for name, *_ in told] == ["downloading", "downloading"]
    assert told[-1][1] == sum(told[-1][2]) == size + (TINY / "vocab.txt").stat().st_size
    assert told[-1][2][0] == 4 * small_blocks


# What goes wrong


@pytest.mark.parametrize(
    ("fault", "kind", "says"),
    [
        (Fault(status=404), CheckpointNotFoundError, "there is nothing at"),
        (Fault(status=410), CheckpointNotFoundError, "there is nothing at"),
        (Fault(status=401), SourceError, "may not be read: the server answers 401 Unauthorized"),
        (Fault(status=403), SourceError, "may not be read: the server answers 403 Forbidden"),
        (Fault(status=500), SourceError, "cannot be read: the server answers 500 Internal Server Error"),
        (Fault(status=503), SourceError, "cannot be read: the server answers 503 Service Unavailable"),
        (Fault(after=1000), SourceError, "cannot be read: Response payload is not completed"),
    ],
    ids=lambda value: str(value.status or "cut") if isinstance(value, Fault) else "",
)
def test_a_server_that_fails_is_told(
    web: Web, tmp_path: Path, kept: Path, fault: Fault, kind: type[ElectraConvertError], says: str
) -> None:
    """In one message with what to do and without secrets; nothing that looks complete is left."""
    web.files["tiny.zip"] = zipped(tmp_path)
    web.faults["tiny.zip"] = fault
    url = f"http://user:{SECRET}@127.0.0.1:{web.port}/tiny.zip?X-Signature={SECRET}"
    message = refusal(url, kind)
    assert says in message
    assert f"http://***@127.0.0.1:{web.port}/tiny.zip?***" in message
    assert "What to do: check the address" in message
    assert SECRET not in message
    assert not whole_files(kept)
    web.faults.clear()
    assert values_of(url) == values_of(TINY)


def test_a_server_that_is_not_there_is_told(web: Web) -> None:
    """A refused connection is not taken for a file that is missing."""
    url = re.sub(r":\d+/", ":9/", web.url("tiny.zip"))
    assert "cannot be read: Cannot connect to host" in refusal(url)


def test_a_server_that_stops_answering_is_told(web: Web, monkeypatch: pytest.MonkeyPatch, kept: Path) -> None:
    """After a while without a byte."""
    monkeypatch.setattr(place, "PATIENCE", 1.5)
    web.serve(TINY, "run")
    web.faults[f"run/{DATA}"] = Fault(after=1000, stall=True)
    assert "does not answer, or stopped answering" in refusal(web.url("run"))
    assert (TINY / DATA).read_bytes()[:1000] not in whole_files(kept)


def test_errors_name_the_url_and_not_its_stand_in(web: Web, store: Any) -> None:
    """Paths of the mirror say nothing to anybody."""
    web.files |= {"run/checkpoint": b'model_checkpoint_path: "m-1"', "run/m-2.index": b"", "run/m-2.meta": b""}
    message = refusal(web.url("run"), CheckpointNotFoundError)
    assert f"{web.url('run/checkpoint')} says that the latest checkpoint is m-1" in message
    assert "- m-2 is" in message
    store.pipe_file("/run/m.index", b"no index")
    assert refusal("memory://run", CorruptCheckpointError).startswith("memory://run/m.index is damaged")
    store.pipe_file("/other/saved_model.pb", b"")
    message = refusal("memory://other", UnsupportedCheckpointError)
    assert "memory://other holds saved_model.pb, which is not read" in message
    store.pipe_file("/lone/m.data-00000-of-00001", b"")
    assert "m.index is missing" in refusal("memory://lone", CheckpointNotFoundError)
    assert "there is nothing at memory://nowhere" in refusal("memory://nowhere", CheckpointNotFoundError)
    assert "there is no checkpoint in" in refusal(web.url("nowhere"), CheckpointNotFoundError)


def test_a_checkpoint_whose_data_is_missing_is_told(web: Web) -> None:
    """By the rule that holds for checkpoints here."""
    web.serve(TINY, "run")
    del web.files[f"run/{DATA}"]
    message = refusal(web.url("run"), CorruptCheckpointError)
    assert "data files are missing" in message
    assert web.url(f"run/{DATA}") in message


@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_goes_on_where_it_stopped(web: Web, small_blocks: int, kept: Path, *, ranges: bool) -> None:
    """Where the server can; else it begins again. The last blocks are not trusted: a crash may have left anything."""
    web.ranges = ranges
    web.serve(TINY, "run")
    web.faults[f"run/{DATA}"] = Fault(after=10 * small_blocks + 5, stall=True)
    refusal(web.url("run"))
    (partial,) = kept.rglob("*.partial")
    content = bytearray(partial.read_bytes())
    content[-small_blocks:] = bytes(small_blocks)
    partial.write_bytes(content)
    web.faults.clear()
    assert values_of(web.url("run")) == values_of(TINY)
    asked = web.gets(f"run/{DATA}")[-1]
    assert asked is not None
    assert int(asked.removeprefix("bytes=").removesuffix("-")) == (len(content) // small_blocks - 1) * small_blocks
    assert not list(kept.rglob("*.partial"))


def test_a_file_that_changed_is_not_gone_on_with(web: Web, small_blocks: int) -> None:
    """What is there of the old one is of no use."""
    web.serve(TINY, "run")
    web.files[f"run/{DATA}"] = web.files[f"run/{DATA}"][::-1]
    web.faults[f"run/{DATA}"] = Fault(after=10 * small_blocks, stall=True)
    refusal(web.url("run"))
    web.faults.clear()
    web.serve(TINY, "run")
    assert values_of(web.url("run")) == values_of(TINY)
    assert web.gets(f"run/{DATA}") == [None, None]


def test_a_file_that_changes_while_it_is_downloaded_is_not_kept(
    web: Web, monkeypatch: pytest.MonkeyPatch, kept: Path
) -> None:
    """It may be half the one and half the other."""
    web.serve(TINY, "run")
    go_on = cache._go_on

    def change(*arguments: Any) -> None:
        go_on(*arguments)
        if arguments[0].remote.name == "vocab.txt":
            web.files["run/vocab.txt"] = bytes(len(web.files["run/vocab.txt"]))

    monkeypatch.setattr(cache, "_go_on", change)
    assert "vocab.txt changed while it was downloaded" in refusal(web.url("run"), CorruptCheckpointError)
    assert (TINY / "vocab.txt").read_bytes() not in whole_files(kept)
    assert not list(kept.rglob("*.partial"))


@pytest.mark.parametrize("shorter", [True, False])
def test_a_store_that_gives_other_than_it_announced_is_told(
    store: Any, monkeypatch: pytest.MonkeyPatch, kept: Path, *, shorter: bool
) -> None:
    """Fewer bytes are gone on with, more are thrown away; neither is kept as the file."""
    fill(store, TINY, "run")
    size = (TINY / DATA).stat().st_size
    info = type(store).info

    def lie(self: Any, path: str, **options: Any) -> Any:
        known = info(self, path, **options)
        return {**known, "size": size + 1 if shorter else size - 1} if path.endswith(DATA) else known

    monkeypatch.setattr(type(store), "info", lie)
    if shorter:
        assert f"broke off after {size} of {size + 1} bytes" in refusal("memory://run")
    else:
        message = refusal("memory://run", CorruptCheckpointError)
        assert f"has more than the {size - 1} bytes that were announced" in message
    assert bool(list(kept.rglob("*.partial"))) == shorter
    assert (TINY / DATA).read_bytes() not in whole_files(kept)


def test_a_checksum_that_is_announced_is_compared(web: Web, kept: Path) -> None:
    """What differs from it is not kept."""
    web.files["tiny.zip"] = b"not what was announced"
    web.headers["Content-MD5"] = base64.b64encode(hashlib.md5(b"what was", usedforsecurity=False).digest()).decode()
    assert "its md5 is another" in refusal(web.url("tiny.zip"), CorruptCheckpointError)
    assert not list(kept.rglob("*.partial"))
    assert not whole_files(kept)


# Several processes, and sudden ends


LOCATE = "import sys; from electra_convert.source import locate; from electra_convert.formats.google_tf1 import *\n"
READ = (
    LOCATE
    + "with locate(sys.argv[1]) as found: c = open_checkpoint(found.prefix); c.check(c.tensors); print(len(c.tensors))"
)


def started(url: str) -> subprocess.Popen[str]:
    """Start a process that reads a checkpoint."""
    return subprocess.Popen(
        [sys.executable, "-c", READ, url], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def test_a_download_that_is_killed_leaves_nothing_that_looks_complete(web: Web, kept: Path) -> None:
    """And the next run succeeds."""
    web.serve(TINY, "run")
    web.faults[f"run/{DATA}"] = Fault(after=100_000, stall=True)
    process = started(web.url("run"))
    assert web.stalled.wait(60), "it is in mid-work"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert len(list(kept.rglob("*.partial"))) == 1
    whole = {path.read_bytes() for path in TINY.iterdir() if path.is_file()}
    assert set(whole_files(kept)) <= whole - {(TINY / DATA).read_bytes()}
    web.faults.clear()
    web.release.set()
    output, errors = started(web.url("run")).communicate()
    assert int(output) > 0, errors
    assert (TINY / DATA).read_bytes() in whole_files(kept)
    assert not list(kept.rglob("*.partial"))


def test_two_processes_download_a_file_once(web: Web) -> None:
    """The second waits for the first, and both have it."""
    web.serve(TINY, "run")
    web.faults[f"run/{DATA}"] = Fault(after=100_000, stall=True)
    first = started(web.url("run"))
    assert web.stalled.wait(60)
    asked = len(web.requests)
    second = started(web.url("run"))
    while ("HEAD", "run/vocab.txt", None) not in web.requests[asked:][-1:] and second.poll() is None:
        time.sleep(0.01)
    time.sleep(0.3)  # time enough to begin a download, if it did
    assert second.poll() is None, "it waits"
    web.release.set()
    for process in (first, second):
        output, errors = process.communicate()
        assert int(output) > 0, errors
    assert len(web.gets(f"run/{DATA}")) == 1


def test_two_threads_download_a_file_once(web: Web) -> None:
    """As two processes do."""
    web.serve(TINY, "run")
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: values_of(web.url("run")), range(4)))
    assert found == [values_of(TINY)] * 4
    assert len(web.gets(f"run/{DATA}")) == 1


# What is told and noted of a URL


@pytest.mark.parametrize(
    ("url", "redacted"),
    [
        ("gs://bucket/run/model.ckpt-1", "gs://bucket/run/model.ckpt-1"),
        ("gs://bucket/run/model.ckpt-?", "gs://bucket/run/model.ckpt-?"),
        (f"https://me:{SECRET}@host/a.zip", "https://***@host/a.zip"),
        (f"https://me:p@{SECRET}@host/a.zip", "https://***@host/a.zip"),
        (f"https://host/a.zip?sig={SECRET}&x=1", "https://host/a.zip?***"),
        (f"https://host/a.zip?{SECRET}", "https://host/a.zip?***"),
        (f"s3://bucket/a.zip?versionId={SECRET}", "s3://bucket/a.zip?***"),
        (
            f"403, url='https://host/a.zip?sig={SECRET}' (sftp://me:{SECRET}@h/x)",
            "403, url='https://host/a.zip?***' (sftp://***@h/x)",
        ),
        ("s3://bucket/a@b", "s3://bucket/a@b"),
    ],
)
def test_secrets_of_urls_are_not_shown(url: str, redacted: str) -> None:
    """User names, passwords, and queries, which may be signatures; in URLs, and in what others say of them."""
    assert shown(url) == redacted


def test_no_cause_of_an_error_tells_a_secret(web: Web) -> None:
    """Not in a traceback either."""
    web.faults["a.zip"] = Fault(status=500)
    web.files["a.zip"] = b""
    with pytest.raises(SourceError) as error:
        values_of(web.url(f"a.zip?sig={SECRET}"))
    assert SECRET not in "".join(traceback.format_exception(error.value))


@pytest.fixture
def base() -> ConvertOptions:
    """Options of a small conversion."""
    return ConvertOptions(part="discriminator", heads=("base",), targets=("pytorch",))


def test_a_url_is_noted_and_in_nothing_that_is_published(web: Web, tmp_path: Path, base: ConvertOptions) -> None:
    """Verification finds the source again; the model is what a source here gives."""
    web.serve(TINY, "electra_tiny")
    report = convert_checkpoint(web.url("electra_tiny"), tmp_path / "out", base)
    convert_checkpoint(TINY, tmp_path / "here", base)
    origin = recall(tmp_path / "out" / "base", report.identity)
    assert origin is not None
    assert origin.source == web.url("electra_tiny")
    for path in (tmp_path / "out" / "base").iterdir():
        assert path.read_bytes() == (tmp_path / "here" / "base" / path.name).read_bytes()
        assert b"127.0.0.1" not in path.read_bytes()


def test_a_url_with_a_secret_is_not_noted(web: Web, tmp_path: Path, base: ConvertOptions) -> None:
    """The report says so, without it."""
    web.files["tiny.zip"] = zipped(tmp_path)
    report = convert_checkpoint(web.url(f"tiny.zip?sig={SECRET}"), tmp_path / "out", base)
    (note,) = [note for note in report.notes if "verify --source" in note]
    assert "tiny.zip?*** has credentials or a query" in note
    assert not (tmp_path / "out" / NOTE_FILE).exists()


def test_the_command_line_takes_urls(web: Web, tmp_path: Path) -> None:
    """Each command that takes a source; a plan needs no data."""
    web.serve(TINY, "electra_tiny")
    url = web.url("electra_tiny")
    plan = [url, str(tmp_path / "out"), "--part", "discriminator", "--head", "base", "--to", "pytorch"]
    runner = CliRunner()
    assert "Would write" in runner.invoke(main, ["convert", *plan, "--dry-run"], catch_exceptions=False).stdout
    inspected = json.loads(runner.invoke(main, ["inspect", url, "--json"], catch_exceptions=False).stdout)
    assert inspected["source"] == PREFIX
    assert not web.gets(f"electra_tiny/{DATA}")
    run = runner.invoke(main, plan, catch_exceptions=False)
    assert run.exit_code == 0
    assert "Wrote" in run.stdout
    assert "downloading" in run.stderr
    failed = runner.invoke(main, ["inspect", web.url(f"none.zip?sig={SECRET}")], catch_exceptions=False)
    assert failed.exit_code == 1
    assert "there is nothing at" in failed.stderr
    assert SECRET not in failed.output


@pytest.mark.parametrize(
    ("scheme", "package", "extra"), [("https", "aiohttp", "remote"), ("gs", "gcsfs", "gcs"), ("s3", "s3fs", "s3")]
)
def test_a_missing_extra_is_told(monkeypatch: pytest.MonkeyPatch, scheme: str, package: str, extra: str) -> None:
    """With the command that installs it."""
    from fsspec.registry import _registry

    for protocol in ("http", "https", "gs", "gcs", "s3"):
        monkeypatch.delitem(_registry, protocol, raising=False)
    for module in [
        name for name in sys.modules if name.split(".")[0] == package or name.endswith("implementations.http")
    ]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(OptionError, match=rf'pip install "electra-convert\[{extra}\]"'):
        open_remote(f"{scheme}://bucket/run")


@pytest.mark.parametrize("url", ["nonsense://a/b", "zip://a::https://host/b.zip"])
def test_a_url_of_no_known_kind_is_refused(url: str) -> None:
    """It is wrong usage."""
    with pytest.raises(OptionError):
        open_remote(url)


def test_only_texts_are_urls() -> None:
    """A path has lost one of the slashes."""
    assert is_url("gs://bucket/run")
    assert not is_url("C:/run")
    assert not is_url(Path("gs://bucket/run"))


# Patterns


def test_the_step_is_in_the_name() -> None:
    """Behind the last dash."""
    assert step_of("model.ckpt-1000") == 1000
    assert step_of("electra-small-0") == 0
    assert step_of("electra_small") is None
    assert step_of("-5") is None
    assert step_of("model.ckpt-") is None


@pytest.fixture(params=["here", "memory", "web", "file"])
def tree(request: pytest.FixtureRequest, tmp_path: Path, web: Web, store: Any) -> tuple[str, Callable[[str], Any]]:
    """Files in a folder somewhere, and what a source in it is expected to be."""
    names = [
        f"run/model.ckpt-{step}{end}" for step in (9, 100, 10) for end in (".index", ".meta", ".data-00000-of-00001")
    ]
    names += ["run/checkpoint", "run/best.index", "run/._best.index", "run/eval/events.out", "run/deep/m.index"]
    names += ["packed/electra-20.zip", "packed/electra-3.tar.gz", "packed/notes.txt"]
    root = {"here": f"{tmp_path}/t", "file": f"file://{tmp_path}/t", "memory": "memory://t", "web": web.url("t")}
    for name in names:
        path = tmp_path / "t" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        store.pipe_file(f"/t/{name}", b"")
        web.files[f"t/{name}"] = b""
    base = root[request.param]
    here = Path(f"{tmp_path}/t")
    return base, (lambda name: here / name) if request.param in ("here", "file") else (lambda name: f"{base}/{name}")


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("run/model.ckpt-*", ["run/model.ckpt-9", "run/model.ckpt-10", "run/model.ckpt-100"]),
        ("run/model.ckpt-*.index", ["run/model.ckpt-9", "run/model.ckpt-10", "run/model.ckpt-100"]),
        ("run/model.ckpt-1*", ["run/model.ckpt-10", "run/model.ckpt-100"]),
        ("run/model.ckpt-[19]", ["run/model.ckpt-9"]),
        ("run/*0", ["run/model.ckpt-10", "run/model.ckpt-100"]),
        ("run/*", ["run/best", "run/deep", "run/model.ckpt-9", "run/model.ckpt-10", "run/model.ckpt-100"]),
        ("packed/*", ["packed/electra-3.tar.gz", "packed/electra-20.zip"]),
        ("packed/*.zip", ["packed/electra-20.zip"]),
        ("r*", ["run"]),
        ("r*/", ["run"]),
        ("*/model.ckpt-10", ["run/model.ckpt-10"]),
        ("run/model.ckpt-9", ["run/model.ckpt-9"]),
        ("nowhere", ["nowhere"]),
    ],
)
def test_a_pattern_matches_checkpoints_in_the_order_of_their_steps(
    tree: tuple[str, Callable[[str], Any]], pattern: str, found: list[str]
) -> None:
    """Prefixes once each, directories that hold a checkpoint, archives; what is no pattern is returned as it is."""
    base, expected = tree
    assert expand_source(f"{base}/{pattern}") == [expected(name) for name in found]


def test_a_pattern_that_matches_nothing_is_told(tree: tuple[str, Callable[[str], Any]]) -> None:
    """With what is there."""
    base, _ = tree
    with pytest.raises(CheckpointNotFoundError) as error:
        expand_source(f"{base}/run/other-*")
    assert "/run/other-*" in error.value.message
    assert "model.ckpt-9.index is there" in error.value.problems
    with pytest.raises(CheckpointNotFoundError, match="no checkpoint matches"):
        expand_source(f"{base}/nowhere/*")


def test_a_path_that_is_there_is_no_pattern(tmp_path: Path) -> None:
    """Brackets may be in names."""
    (tmp_path / "run[1]").mkdir()
    (tmp_path / "run[1]" / "m-[2].index").touch()
    assert expand_source(tmp_path / "run[1]") == [tmp_path / "run[1]"]
    assert expand_source(tmp_path / "run[1]" / "m-[2]") == [tmp_path / "run[1]" / "m-[2]"]


def test_a_question_mark_in_a_web_address_begins_the_query() -> None:
    """It is no wildcard there, and a pattern has no query."""
    assert expand_source("https://host/a.zip?x=1*") == ["https://host/a.zip?x=1*"]
    with pytest.raises(OptionError, match=r"https://host/\*\.zip\?\*\*\* is a pattern with a query"):
        expand_source(f"https://host/*.zip?{SECRET}")


# Copies


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Something like an output of two heads."""
    for head in ("base", "pretraining"):
        folder = tmp_path / "out" / head
        folder.mkdir(parents=True)
        for name in ("README.md", "config.json", "model.safetensors", "conversion.json", "verification.json"):
            (folder / name).write_bytes(f"{head} {name}".encode() * 100)
    (tmp_path / "out" / NOTE_FILE).write_text("{}")
    (tmp_path / "out" / ".base.abcd.partial").mkdir()
    (tmp_path / "out" / ".base.abcd.partial" / "config.json").touch()
    return tmp_path / "out"


@pytest.fixture(params=["memory", "file"])
def target(request: pytest.FixtureRequest, tmp_path: Path, store: Any) -> tuple[str, Any, str]:
    """A URL to copy to, its file system, and the path in it."""
    if request.param == "memory":
        return "memory://bucket/models", store, "/bucket/models"
    from fsspec.implementations.local import LocalFileSystem

    return f"file://{tmp_path}/models", LocalFileSystem(), f"{tmp_path}/models"


def files_in(fs: Any, path: str) -> dict[str, bytes]:
    """Return the files of a folder elsewhere."""
    return {found.removeprefix(f"{path}/"): fs.cat_file(found) for found in fs.find(path)}


def files_of(output: Path) -> dict[str, bytes]:
    """Return the files of an output that are to be copied."""
    return {
        str(path.relative_to(output)): path.read_bytes() for path in output.glob("*/*") if path.parent.name[0] != "."
    }


def test_an_output_is_copied_and_not_again(output: Path, target: tuple[str, Any, str]) -> None:
    """Every file but hidden ones, each model's config last; what is the same is not sent."""
    url, fs, path = target
    report = copy_directory(output, url)
    assert files_in(fs, path) == files_of(output)
    assert report.nbytes == sum(map(len, files_of(output).values()))
    sent = [name for name in report.sent if name.startswith("base/")]
    assert (sent[0], sent[-1]) == ("base/conversion.json", "base/config.json")
    again = copy_directory(output, url)
    assert (again.sent, again.nbytes, again.removed) == ((), 0, ())
    assert sorted(again.unchanged) == sorted(files_of(output))


def test_one_head_is_copied(output: Path, target: tuple[str, Any, str]) -> None:
    """Its directory is what the URL names."""
    url, fs, path = target
    copy_directory(output / "base", url)
    assert set(files_in(fs, path)) == {file.name for file in (output / "base").iterdir()}


def test_another_model_is_in_the_way(output: Path, target: tuple[str, Any, str]) -> None:
    """All of it is named, and nothing is touched; if it is to be replaced, nothing of it stays."""
    url, fs, path = target
    fs.makedirs(f"{path}/base", exist_ok=True)
    theirs = {"base/config.json": b"another", "base/tf_model.h5": b"another", "base/.gitattributes": b"kept"}
    for name, content in theirs.items():
        fs.pipe_file(f"{path}/{name}", content)
    with pytest.raises(OutputExistsError) as error:
        copy_directory(output, url)
    assert [problem.rpartition("/")[2] for problem in error.value.problems] == ["config.json", "tf_model.h5"]
    assert "--overwrite" in error.value.hint
    assert files_in(fs, path) == theirs
    report = copy_directory(output, url, overwrite=True)
    assert [name.rpartition("/")[2] for name in report.removed] == ["tf_model.h5"]
    assert files_in(fs, path) == {**files_of(output), "base/.gitattributes": b"kept"}


def test_a_model_of_the_same_conversion_is_completed(output: Path, target: tuple[str, Any, str]) -> None:
    """Whatever broke off before is replaced, and a new proof takes the old one's place; what else is there stays."""
    url, fs, path = target
    copy_directory(output, url)
    fs.pipe_file(f"{path}/base/notes.md", b"of the user")
    fs.pipe_file(f"{path}/base/model.safetensors", b"broken off")
    fs.rm_file(f"{path}/base/config.json")
    (output / "pretraining" / "verification.json").write_bytes(b"a new proof")
    report = copy_directory(output, url)
    assert files_in(fs, path) == {**files_of(output), "base/notes.md": b"of the user"}
    assert set(report.sent) == {
        "base/model.safetensors",
        "base/config.json",
        "pretraining/verification.json",
        "pretraining/config.json",
    }


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_copy_that_breaks_off_does_not_look_like_a_model(
    output: Path, target: tuple[str, Any, str], monkeypatch: pytest.MonkeyPatch, *, overwrite: bool
) -> None:
    """At any file: a model whose files are not all there has no config; and the next copy ends as it should."""
    url, fs, path = target
    send = copy._send
    for stop in range(len(files_of(output))):
        fs.makedirs(path, exist_ok=True)
        fs.rm(path, recursive=True)
        if overwrite:
            shutil.copytree(output, output.parent / "old", dirs_exist_ok=True)
            for old in (output.parent / "old").glob("*/*"):
                old.write_bytes(b"old")
            copy_directory(output.parent / "old", url)
        sent: list[Path] = []

        def break_off(file: Path, remote: Any, stop: int = stop, sent: list[Path] = sent) -> None:
            if len(sent) == stop:
                raise OutputError("broken off")
            sent.append(file)
            send(file, remote)

        monkeypatch.setattr(copy, "_send", break_off)
        with pytest.raises(OutputError, match="broken off"):
            copy_directory(output, url, overwrite=overwrite)
        there = files_in(fs, path)
        for head in ("base", "pretraining"):
            wanted = {name: content for name, content in files_of(output).items() if name.startswith(head)}
            untouched = overwrite and all(there.get(name) == b"old" for name in wanted)
            assert untouched or f"{head}/config.json" not in there or wanted.items() <= there.items()
        monkeypatch.setattr(copy, "_send", send)
        copy_directory(output, url, overwrite=overwrite)
        assert files_in(fs, path) == files_of(output)


def test_what_does_not_arrive_is_told(output: Path, store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is looked at after it was sent."""
    put = type(store).put_file

    def lose(self: Any, here: str, there: str, **options: Any) -> None:
        put(self, os.devnull if there.endswith("model.safetensors") else here, there, **options)

    monkeypatch.setattr(type(store), "put_file", lose)
    with pytest.raises(OutputError, match=r"base/model.safetensors did not arrive: 0 of \d+ bytes"):
        copy_directory(output, "memory://bucket/models")
    assert "/bucket/models/base/config.json" not in store.store


@pytest.mark.parametrize("announced", ["md5Hash", "crc32c", "ETag"])
def test_a_checksum_saves_reading_what_is_there(
    output: Path, store: Any, monkeypatch: pytest.MonkeyPatch, announced: str
) -> None:
    """Where a store tells one that is of the content; an ETag is one if it says the same."""
    from google_crc32c import Checksum

    copy_directory(output, "memory://bucket/models")
    info = type(store).info

    def tell(self: Any, path: str, **options: Any) -> Any:
        known = info(self, path, **options)
        content = store.cat_file(path) if known["type"] == "file" else b""
        md5 = hashlib.md5(content, usedforsecurity=False)
        values = {
            "md5Hash": base64.b64encode(md5.digest()).decode(),
            "crc32c": base64.b64encode(Checksum(content).digest()).decode(),
            "ETag": f'"{md5.hexdigest()}"',
        }
        return {**known, announced: values[announced]}

    monkeypatch.setattr(type(store), "info", tell)
    read: list[str] = []
    opened = type(store).open

    def note(self: Any, path: str, *arguments: Any, **options: Any) -> Any:
        read.append(path)
        return opened(self, path, *arguments, **options)

    monkeypatch.setattr(type(store), "open", note)
    assert not copy_directory(output, "memory://bucket/models").sent
    assert not read
    content = (output / "base" / "model.safetensors").read_bytes()
    (output / "base" / "model.safetensors").write_bytes(bytes(reversed(content)))
    assert "base/model.safetensors" in copy_directory(output, "memory://bucket/models").sent


def test_a_web_server_is_no_target(output: Path) -> None:
    """It only reads."""
    with pytest.raises(OptionError, match="cannot be written to"):
        copy_directory(output, "https://host/models")


def test_nothing_cannot_be_copied(tmp_path: Path) -> None:
    """An empty directory is no output."""
    with pytest.raises(OptionError, match="holds nothing that could be copied"):
        copy_directory(tmp_path, "memory://bucket/models")
