"""What a plan asks for that no run can do: told before any work, and all of it."""

from __future__ import annotations

from collections.abc import Iterator

from electra_convert.batch.plan_file import ALL_HEADS, JobPlan, UploadPlan, VerifyPlan
from electra_convert.errors import ElectraConvertError
from electra_convert.models.files import ARCHITECTURES
from electra_convert.options import NATIVE_HEAD
from electra_convert.remote.place import is_url, open_remote
from electra_convert.template import placeholders


def faults_of(entry: JobPlan) -> Iterator[str]:
    """Yield what is sure to fail in a job of a plan, whatever its checkpoint."""
    known = (NATIVE_HEAD, ALL_HEADS, *ARCHITECTURES)
    if unknown := [head for head in entry.head_names if head not in known]:
        yield f"there is no head {', '.join(map(repr, unknown))}: choose from {', '.join(known)}"
    yield from _output_faults(entry)
    if entry.upload is not None:
        yield from _gate_faults(entry, entry.upload)
        yield from _name_faults(entry, entry.upload)


def _output_faults(entry: JobPlan) -> Iterator[str]:
    if not is_url(entry.output):
        return
    try:
        if not open_remote(entry.output).is_writable:
            yield f"the output {entry.output} cannot be written to: choose gs://, s3:// or another that can"
    except ElectraConvertError as error:
        yield f"{error.message}: {error.hint}" if error.hint else error.message


def _gate_faults(entry: JobPlan, upload: UploadPlan) -> Iterator[str]:
    """Yield why the upload would be refused: for want of a proof, or of a head."""
    frameworks = entry.verify.frameworks if isinstance(entry.verify, VerifyPlan) else ()
    left_out = [target for target in entry.targets if frameworks and target not in frameworks]
    if not upload.allow_unverified and (entry.verify is False or left_out):
        what = f"{' and '.join(left_out)} left out of it" if left_out else "verify: false"
        yield f"only what is proven is published, and the proof has {what}: prove it, or give allow_unverified: true"
    absent = [head for head in upload.heads if head not in entry.head_names]
    if absent and not {ALL_HEADS, NATIVE_HEAD} & {*entry.head_names}:  # which head is native, the checkpoint tells
        yield f"{' and '.join(absent)} would be published, but not converted: add it to heads"


def _name_faults(entry: JobPlan, upload: UploadPlan) -> Iterator[str]:
    """Yield which placeholder is lacking where a job publishes several models."""
    told_apart = {*placeholders(upload.repo_id or ""), *placeholders(upload.revision)}
    several = {
        "part": entry.part == "both",
        "head": len(upload.heads) > 1,
        "format": entry.split_formats and len(entry.targets) > 1,
    }
    for name, needed in several.items():
        if needed and name not in told_apart:
            yield f"several models would be published as {upload.repo_id}: tell them apart with {{{name}}}"
