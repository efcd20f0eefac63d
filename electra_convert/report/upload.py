"""An upload on the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.text import Text

from electra_convert.hub.publication import CARD_FILE
from electra_convert.hub.upload import Change, RepoReport, UploadReport
from electra_convert.output import in_bytes
from electra_convert.plan import NATIVE
from electra_convert.report.words import plural

MARKS = {"added": ("+", "green"), "changed": ("~", "yellow"), "deleted": ("-", "red"), "unchanged": ("=", "dim")}
NOTHING_SENT = ("unchanged", "reused")


def show_upload(report: UploadReport, console: Console) -> None:
    """Print what an upload did, or would do."""
    for number, repo in enumerate(report.repos):
        if number:
            console.print()
        _show_repo(repo, console, dry_run=report.dry_run)


def _show_repo(repo: RepoReport, console: Console, *, dry_run: bool) -> None:
    model = " ".join(filter(None, (repo.part, repo.head))) + (
        f" ({repo.note})" if repo.note not in ("", NATIVE) else ""
    )
    console.print(Text.assemble((repo.place, "bold"), f": {model}, {repo.status}"), soft_wrap=True)
    for change in repo.changes if repo.outcome not in NOTHING_SENT else ():
        console.print(_line(change), soft_wrap=True)
    for line in _asides(repo):
        console.print(Text.assemble(("note: ", "yellow"), line), soft_wrap=True)
    console.print(Text(says(repo, dry_run=dry_run), "bold" if dry_run else "bold green"), soft_wrap=True)
    if not dry_run:
        console.print(repo.url, soft_wrap=True)


def says(repo: RepoReport, *, dry_run: bool) -> str:
    """Say in a sentence what was done, or would be done."""
    count = sum(change.kind != "unchanged" for change in repo.changes)
    what = f"{plural(count, 'file')}, {in_bytes(repo.sent)} to send" if dry_run else f"{plural(count, 'file')}"
    made = (
        f"Would make the {' and the '.join(repo.created)}" if dry_run else f"Made the {' and the '.join(repo.created)}"
    )
    done = {
        "unchanged": "Nothing to do: all of it is there",
        "reused": f"Nothing to do: the open pull request {repo.revision} has all of it",
        "planned": f"Would change {what}",
        "committed": f"Committed {what} as {repo.oid[:8]}",
        "opened": f"Opened the pull request {repo.revision} with {what}",
    }[repo.outcome]
    return f"{made}. {done}" if repo.created else done


def _line(change: Change) -> Text:
    mark, style = MARKS[change.kind]
    return Text.assemble((f"  {mark} ", style), f"{change.path:<32} ", (f"{in_bytes(change.nbytes):>8}", "dim"))


def _asides(repo: RepoReport) -> Iterator[str]:
    if repo.left_behind:
        yield f"not published, for no model has such files: {', '.join(repo.left_behind)} (--include does)"
    yield from repo.notes
    if any(change.path == CARD_FILE and change.kind == "changed" for change in repo.changes):
        yield "the card on the Hub is replaced; to keep words of your own, put them into a README.md in the directory"
    others = [name for name in repo.left_alone if name != ".gitattributes"]
    if others:
        yield f"left alone in the repository: {', '.join(others)}"
