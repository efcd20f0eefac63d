"""A batch that proves and publishes, and what transformers makes of it when it loads it from the Hub."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.hub.server import HubServer
from tests.hub.state import MAIN

for package in ("torch", "transformers"):
    pytest.importorskip(package)

ALL = find_spec("tensorflow") is not None
"""Whether this environment has TensorFlow and Flax, and the transformers that has classes for them."""
CLASSES = {"discriminator": "ElectraForPreTraining", "generator": "ElectraForMaskedLM"}
PREFIXES = {"pytorch": "", "tensorflow": "TF", "flax": "Flax"}
LOAD = """
import sys
import numpy as np
import transformers
place, architecture, framework, revision, probe, out = sys.argv[1:]
options = {"revision": revision} if revision else {}
if framework == "tensorflow":
    options["use_safetensors"] = False
model = getattr(transformers, architecture).from_pretrained(place, **options)
inputs = dict(np.load(probe))
if framework == "pytorch":
    import torch
    model.eval()
    with torch.no_grad():
        logits = model(**{name: torch.from_numpy(array).long() for name, array in inputs.items()}).logits
else:
    logits = model(**inputs).logits
np.save(out, np.asarray(logits))
"""


def logits_of(place: str, part: str, framework: str, folder: Path, hub: HubServer, revision: str = "") -> Any:
    """Load a model with transformers, in a process of its own, and return its logits on a recorded input."""
    out = folder / f"{part}-{framework}-{place.count('/') > 1}.npy"
    arguments = [place, PREFIXES[framework] + CLASSES[part], framework, revision, str(folder / "probe.npz"), str(out)]
    flags = {"USE_TF": str(int(framework == "tensorflow")), "USE_FLAX": str(int(framework == "flax"))}
    run = subprocess.run(
        [sys.executable, "-c", LOAD, *arguments],
        env={**hub.environment, **flags, "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return np.load(out)


def batch(plan: Path, hub: HubServer, *options: str) -> tuple[dict[str, Any], str]:
    """Carry out a plan; return its report, and what it told meanwhile."""
    command = [sys.executable, "-m", "electra_convert", "batch", str(plan), "--json", *options]
    run = subprocess.run(command, env=hub.environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return json.loads(run.stdout), run.stderr


def test_from_a_plan_to_from_pretrained(
    hub: HubServer, fixtures: Path, hparams: Callable[[str], Path], tmp_path: Path
) -> None:
    """Both parts are proven in every framework, published, and give Google's recorded logits when they are loaded."""
    frameworks = list(PREFIXES) if ALL else ["pytorch"]
    upload = {"repo_id": "org/tiny-{part}", "revision": "step-{step}", "license": "apache-2.0"}
    job = {"source": str(fixtures / "electra_tiny"), "name": "tiny", "config": str(hparams("electra_tiny"))}
    plan = tmp_path / "plan.yaml"
    jobs = [{**job, "part": "both", "targets": frameworks, "upload": upload}]
    plan.write_text(yaml.safe_dump({"version": 1, "jobs": jobs}))
    report, told = batch(plan, hub)
    assert "tiny/30: verifying" in told
    assert [model["status"] for model in report["jobs"][0]["models"]] == ["proven", "proven"]
    recorded = np.load(fixtures / "electra_tiny" / "expected.npz")
    inputs = ("input_ids", "attention_mask", "token_type_ids")
    np.savez(tmp_path / "probe.npz", **{name: recorded[name] for name in inputs})
    attended = recorded["attention_mask"].astype(bool)
    for part in CLASSES:
        head = hub.repos[f"org/tiny-{part}"].head("step-30").files
        assert "✓ proven" in head["README.md"].content.decode()
        assert json.loads(head["verification.json"].content)["status"] == "proven"
        for framework in frameworks:
            logits = logits_of(f"org/tiny-{part}", part, framework, tmp_path, hub, "step-30")
            difference = np.abs(logits - recorded[f"{part}_logits"])[attended].max()
            assert difference < 1e-5, (part, framework)
    requests = len(hub.requests)
    again, told = batch(plan, hub, "--fresh")
    assert "verifying" not in told, "a proof that holds is not made again"
    assert [repo["outcome"] for repo in again["jobs"][0]["repos"]] == ["unchanged", "unchanged"]
    assert {seen.method for seen in hub.requests[requests:]} == {"GET"}
    assert [len(hub.repos[f"org/tiny-{part}"].branches[MAIN]) for part in CLASSES] == [1, 1]


def test_what_is_refuted_is_not_published(
    hub: HubServer, fixtures: Path, hparams: Callable[[str], Path], tmp_path: Path
) -> None:
    """An output that was damaged after it was converted fails its job, and never reaches the Hub."""
    plan = tmp_path / "plan.yaml"
    job = {
        "source": str(fixtures / "electra_tiny"),
        "name": "tiny",
        "config": str(hparams("electra_tiny")),
        "part": "discriminator",
        "targets": ["pytorch"],
    }
    plan.write_text(yaml.safe_dump({"version": 1, "defaults": {"verify": False}, "jobs": [job]}))
    batch(plan, hub)
    weights = tmp_path / "out" / "tiny" / "30" / "pretraining" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-4:] = b"\0\0\0\x40"  # the last value is 2.0
    weights.write_bytes(content)
    upload = {"repo_id": "org/tiny", "allow_unverified": True}
    plan.write_text(yaml.safe_dump({"version": 1, "jobs": [{**job, "upload": upload}]}))
    command = [sys.executable, "-m", "electra_convert", "batch", str(plan)]
    run = subprocess.run(command, env=hub.environment, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert (
        "✗ tiny/30 failed while verifying:\n  it is not proven\n    - discriminator pretraining: failed" in run.stdout
    )
    assert not hub.requests
