"""What ends a run from outside: Ctrl-C, a batch system, a terminal that is closed. Nothing is left behind."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import NoReturn

INTERRUPTED = 128 + signal.SIGINT
WORDS = "\ninterrupted: what was finished stays, nothing is half-written\n"
ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
AGAIN = 0.02
"""Seconds after which what was lost is sent again."""


def heed_signals() -> None:
    """Have each signal raise, once: what then clears away is not disturbed by the same signal again."""
    for number in ENDS:
        if signal.getsignal(number) != signal.SIG_IGN:  # as `nohup` has it, and a shell's background jobs
            signal.signal(number, _end)


def ignore_signals() -> None:
    """Ignore them from now on: all is done."""
    for number in ENDS:
        signal.signal(number, signal.SIG_IGN)


def tell_of_interrupt() -> NoReturn:
    """Say that Ctrl-C ended the run, and leave."""
    sys.stderr.write(WORDS)
    sys.exit(INTERRUPTED)


def send_again(lost: sys.UnraisableHookArgs) -> None:
    """Send a signal again that raised where nothing can be raised, as in a weak reference's callback.

    Args:
        lost: What `sys.unraisablehook` is told.
    """
    code = INTERRUPTED if isinstance(lost.exc_value, KeyboardInterrupt) else getattr(lost.exc_value, "code", None)
    number = next((number for number in ENDS if code == 128 + number), None)
    if number is None:
        sys.__unraisablehook__(lost)
    else:
        from threading import Timer

        signal.signal(number, _end)
        Timer(AGAIN, os.kill, (os.getpid(), number)).start()


def _end(number: int, frame: FrameType | None) -> None:
    if _is_sent_again(frame):
        return  # what is raised there would be lost, and the signal ignored from then on
    signal.signal(number, signal.SIG_IGN)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(128 + number)


def _is_sent_again(frame: FrameType | None) -> bool:
    """Say whether a signal comes while another is about to be sent again."""
    while frame and frame.f_code is not send_again.__code__:
        frame = frame.f_back
    return frame is not None
