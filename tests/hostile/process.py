"""A process that has imported the package, and runs commands in children of its own: a start costs nothing then.

It reads a line of JSON for each command and answers with one. In a child no capability is left, so that a file which
nobody may read cannot be read even where tests run as root.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import struct
import sys
import tempfile
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

PATIENCE = 20
"""Seconds after which a command hangs."""
WARM = (
    "electra_convert.archive",
    "electra_convert.batch.run",
    "electra_convert.convert",
    "electra_convert.inspection",
    "electra_convert.parity.verify",
    "electra_convert.show",
    "google_crc32c",
    "h5py",
    "msgpack",
    "numpy",
    "tokenizers",
)
CAPABILITY_VERSION = 0x20080522
"""`_LINUX_CAPABILITY_VERSION_3`."""


def serve() -> None:
    """Run a command for each line of stdin."""
    for module in WARM:
        import_module(module)
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if not child:
            _run(request)
        _, status, usage = os.wait4(child, 0)
        answer = {
            "code": os.waitstatus_to_exitcode(status),
            "seconds": usage.ru_utime + usage.ru_stime,
            "peak": usage.ru_maxrss * 1024,
        }
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _run(request: dict[str, Any]) -> None:
    """Run a command as if it had been typed, and end."""
    code: Any = 1
    try:
        _settle(request)
        from electra_convert.cli import main

        main(request["command"], prog_name="electra-convert")
    except SystemExit as leaving:
        code = leaving.code or 0
    except BaseException:  # noqa: BLE001  # told as Python tells it, and the process ends here
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _settle(request: dict[str, Any]) -> None:
    signal.alarm(PATIENCE)
    for number, name in ((0, os.devnull), (1, request["stdout"]), (2, request["stderr"])):
        os.dup2(os.open(name, os.O_RDWR | os.O_CREAT), number)
    os.chdir(request["folder"])
    os.environ |= request["environment"]
    tempfile.tempdir = None
    _drop_capabilities()


def _drop_capabilities() -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if library.capset(struct.pack("<Ii", CAPABILITY_VERSION, 0), bytes(24)):
        raise OSError(ctypes.get_errno(), "cannot give up capabilities")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    serve()
