"""`electra-convert`, and `python -m electra_convert`, are the command line."""

from __future__ import annotations

import atexit
import gc
import sys

from electra_convert.signals import heed_signals, ignore_signals, send_again, tell_of_interrupt

OBJECTS = 1 << 16
"""New objects after which Python looks for garbage; it would do so a hundred times while all is loaded."""


def main() -> None:
    """Run what was typed, and leave with its exit code; Ctrl-C may come at any moment, also while all is loaded."""
    try:
        heed_signals()
        sys.unraisablehook = send_again
        gc.set_threshold(OBJECTS)
        atexit.register(gc.freeze)  # nor need it look once more in the end
        from electra_convert.cli import run

        sys.exit(run())
    except KeyboardInterrupt:
        tell_of_interrupt()
    except RuntimeError as error:  # Python before 3.12 makes this of what is raised while a class is made
        if isinstance(error.__cause__, SystemExit):
            sys.exit(error.__cause__.code)
        if isinstance(error.__cause__, KeyboardInterrupt):
            tell_of_interrupt()
        raise
    finally:
        ignore_signals()


if __name__ == "__main__":
    main()
