"""A process that writes one target: `python -m electra_convert.export.writer keras`.

The job comes as a line of JSON on stdin, and is answered by a line on stdout when the files are there. What anything
prints goes to stderr, so that it cannot be taken for the answer.
"""

from __future__ import annotations

import sys
import traceback
from importlib import import_module
from pathlib import Path

import msgspec

from electra_convert.child import claim_answers
from electra_convert.errors import ElectraConvertError
from electra_convert.formats import TargetFormat
from electra_convert.mapping import load_mappings
from electra_convert.model_directory import open_model_directory
from electra_convert.parity.worker import Answer


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be written.

    Args:
        model: The directory of the model.
        format: The format to read.
        file: The file of weights that is named, if one is.
        mappings: The folder of mappings, if it is not the package's own.
        place: Where to write.
    """

    model: Path
    format: TargetFormat
    file: Path | None
    mappings: Path | None
    place: Path


def main(target: str) -> None:
    """Answer jobs until there are no more."""
    send = claim_answers()
    for line in sys.stdin.buffer:
        send(msgspec.json.encode(_answer(target, line)))


def _answer(target: str, line: bytes) -> Answer:
    try:
        job = msgspec.json.decode(line, type=Job, dec_hook=lambda kind, value: kind(value))
        mappings = load_mappings(job.mappings)
        model = open_model_directory(job.model, mappings, job.format, file=job.file)
        import_module(f"electra_convert.export.{target}").write(model, mappings, job.place)
    except ElectraConvertError as error:
        return Answer(error=str(error))
    except OSError as error:
        return Answer(error=str(error), stopped=True)
    except Exception as error:  # noqa: BLE001  # whatever a framework raises is an answer
        traceback.print_exc()
        return Answer(error="".join(traceback.format_exception_only(error)).strip())
    return Answer()


if __name__ == "__main__":
    main(sys.argv[1])
