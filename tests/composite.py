"""A composite action of GitHub, read from its file and run a step at a time, as the runner does it."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

INPUT = re.compile(r"\$\{\{ inputs\.([a-z-]+) \}\}")
"""The only kind of expression that an environment may hold."""
SHELL = ("bash", "--noprofile", "--norc", "-e", "-o", "pipefail")
"""What the runner makes of `shell: bash`."""


class Ran(NamedTuple):
    """A step that was run.

    Args:
        returncode: What it returned.
        log: What it printed.
        outputs: The outputs it set.
        summary: What it added to the summary.
    """

    returncode: int
    log: str
    outputs: dict[str, str]
    summary: str

    @property
    def annotations(self) -> list[str]:
        """The annotations among what it printed."""
        return re.findall(r"^::(?:error|warning|notice)\b.*$", self.log, flags=re.MULTILINE)


@dataclass(frozen=True)
class Action:
    """A composite action.

    Args:
        folder: Where its `action.yml` is.
    """

    folder: Path

    @property
    def document(self) -> dict[str, Any]:
        """What its file says."""
        document: dict[str, Any] = yaml.safe_load((self.folder / "action.yml").read_text())
        return document

    @property
    def inputs(self) -> dict[str, dict[str, Any]]:
        """Its inputs."""
        inputs: dict[str, dict[str, Any]] = self.document["inputs"]
        return inputs

    @property
    def steps(self) -> list[dict[str, Any]]:
        """Its steps."""
        steps: list[dict[str, Any]] = self.document["runs"]["steps"]
        return steps

    @property
    def scripts(self) -> dict[str, dict[str, Any]]:
        """The steps that run a script, by name."""
        return {step["name"]: step for step in self.steps if "run" in step}

    def run(
        self, name: str, given: Mapping[str, object], *, workspace: Path, files: Path, path: tuple[Path, ...] = ()
    ) -> Ran:
        """Run the script of a step, exactly as it is written.

        Args:
            name: Its name.
            given: The inputs that a workflow gives.
            workspace: The working directory.
            files: A folder for the files that the runner makes for the step.
            path: Folders to look for commands in, before all others.
        """
        step = self.scripts[name]
        files.mkdir(parents=True, exist_ok=True)
        names = {variable: files / variable for variable in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
        for file in names.values():
            file.write_text("")
        (files / "script.sh").write_text(step["run"])
        environment = {
            **os.environ,
            "PATH": os.pathsep.join([*map(str, path), os.environ["PATH"]]),
            "GITHUB_ACTION_PATH": str(self.folder),
            **{variable: str(file) for variable, file in names.items()},
            **dict(self._environment(step, given)),
        }
        ran = subprocess.run(
            [*SHELL, str(files / "script.sh")],
            cwd=workspace,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=300,
        )
        outputs = dict(line.split("=", 1) for line in names["GITHUB_OUTPUT"].read_text().splitlines())
        return Ran(ran.returncode, ran.stdout, outputs, names["GITHUB_STEP_SUMMARY"].read_text())

    def _environment(self, step: Mapping[str, Any], given: Mapping[str, object]) -> Iterator[tuple[str, str]]:
        """Yield the variables of a step, with the inputs put into them."""
        unknown = set(given) - set(self.inputs)
        assert not unknown, f"no such inputs: {unknown}"
        values = {name: str(given.get(name, about.get("default", ""))) for name, about in self.inputs.items()}
        for variable, expression in step.get("env", {}).items():
            found = INPUT.fullmatch(expression)
            assert found, f"{variable} is no input: {expression}"
            yield variable, values[found[1]]
