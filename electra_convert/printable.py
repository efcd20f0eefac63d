"""Text that only is shown: names in files, and of files, may hold what a terminal would obey."""

from __future__ import annotations


def printable(text: str | bytes, most: int | None = None) -> str:
    r"""Return text as one line, in which all that cannot be printed is escaped: `\n`, `\x1b[31m`, `\ud800`.

    Args:
        text: The text; bytes that are not UTF-8 are escaped, too.
        most: Characters, or bytes, that are shown; `...` stands for the others.
    """
    shown = text if most is None else text[:most]
    line = shown if isinstance(shown, str) else shown.decode(errors="backslashreplace")
    if not line.isprintable():
        line = "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in line)
    return line + "..." * (len(shown) < len(text))


def printable_lines(text: str) -> str:
    """Return text of several lines, each of them printable."""
    return "\n".join(map(printable, text.split("\n")))
